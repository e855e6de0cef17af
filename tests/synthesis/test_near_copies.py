"""Near-copies are all found, however often they stand there, and strangers are not."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.synthesis.near_copies import alike, near_copies, plain_shingles, similarity

MARKS = st.lists(st.frozensets(st.integers(0, 12), max_size=10), max_size=30)


def test_near_copies_are_found_and_strangers_are_not() -> None:
    rng = random.Random(1)
    words = [f"w{number}" for number in range(400)]
    texts = [rng.sample(words, 80) for _ in range(40)]
    texts.append([*texts[7][:40], "other", *texts[7][41:]])
    marks = [plain_shingles(" ".join(text)) for text in texts]
    assert near_copies(marks, [*["train"] * 20, *["test"] * 21], 0.8) == [(7, 40)]
    assert near_copies(marks, ["train"] * 41, 0.8) == []


def test_boilerplate_leaves_training_however_often_it_stands_there() -> None:
    boilerplate = plain_shingles("def setup(self): self.client = Client(host, port) ; self.client.connect()")
    groups = [*["train"] * 60, "test"]
    assert near_copies([boilerplate] * 61, groups, 0.8) == [(place, 60) for place in range(60)]


@given(MARKS, st.sampled_from([0.1, 0.5, 0.7, 0.8, 1.0]))
def test_alike_are_just_those_that_reach_the_threshold(marks: list[frozenset[int]], threshold: float) -> None:
    pairs = {(one, two) for two in range(len(marks)) for one in range(two)}
    wanted = {(one, two) for one, two in pairs if similarity(marks[one], marks[two]) >= threshold}
    assert list(alike(marks, threshold)) == sorted(wanted, key=lambda pair: (pair[1], pair[0]))
