"""Prompts that begin alike are computed together, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from code_repair_rl.models import tiny_model, tiny_tokenizer
from code_repair_rl.models.packed import SequencesLayout
from code_repair_rl.rollouts import Sampling
from code_repair_rl.rollouts.local import LocalEngine
from code_repair_rl.rollouts.prefixes import alike, apart

PROMPTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 30)).map(
        # One of three stems, cut somewhere, and something after it.
        lambda drawn: [3 + drawn[0] + place % 7 for place in range(20 + drawn[1])] + [99] * drawn[2]
    ),
    min_size=1,
    max_size=7,
)


@settings(max_examples=200)
@given(PROMPTS, st.data(), st.integers(1, 6))
def test_every_row_has_one_place_and_shares_what_it_begins_with(
    prompts: list[list[int]], data: st.DataObject, max_rows: int
) -> None:
    counts = data.draw(st.lists(st.integers(0, 4), min_size=len(prompts), max_size=len(prompts)))
    wanted = [(number, row) for number, count in enumerate(counts) for row in range(count)]
    for places in (alike(prompts, counts, max_rows), apart(prompts, counts, max_rows)):
        assert sorted(row for place in places for row in place.rows) == wanted
        for place in places:
            assert 1 <= len(place.rows) <= max_rows
            assert len({tuple(prompts[number][: place.shared]) for number, _ in place.rows}) == 1
            assert 1 <= place.shared <= min(len(prompts[number]) for number, _ in place.rows)


@settings(max_examples=12)
@given(PROMPTS, st.integers(1, 3), st.integers(1, 9), st.integers(1, 40))
def test_the_answers_are_those_of_the_plain_loop(
    prompts: list[list[int]], count: int, max_rows: int, limit: int
) -> None:
    sampling = Sampling(temperature=1.0, max_new_tokens=limit, seed=4)
    packed, plain = (
        LocalEngine(tiny_model(), tiny_tokenizer(), max_rows=max_rows, packed=way).generate(
            prompts, completions_per_prompt=count, sampling=sampling
        )
        for way in (True, False)
    )
    for one, other in zip(packed, plain, strict=True):
        assert [answer.token_ids for answer in one] == [answer.token_ids for answer in other]
        assert [answer.prompt_ids for answer in one] == [answer.prompt_ids for answer in other]
        for a, b in zip(one, other, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def test_what_is_shared_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    attend = SequencesLayout.attend

    def counted(self: SequencesLayout, layer: int, query: torch.Tensor, *rest: object) -> torch.Tensor:
        computed.append(query.shape[2]) if layer == 0 else None
        return attend(self, layer, query, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(SequencesLayout, "attend", counted)
    stem = [5 + place % 50 for place in range(200)]
    prompts = [[*stem, *[60 + number] * 20] for number in range(4)]
    engine = LocalEngine(tiny_model(), tiny_tokenizer(), packed=True)
    engine.generate(prompts, completions_per_prompt=1, sampling=Sampling(max_new_tokens=3))
    assert computed == [200]
