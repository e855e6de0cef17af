"""New inputs are plain, of the types seen, within what was seen, and the same for the same seed."""

from __future__ import annotations

import ast
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from code_repair_rl.synthesis.probe.inputs import is_plain, is_short, variations

reals = st.floats(-9, 9).map(lambda number: round(number, 1))
scalars = st.none() | st.booleans() | st.integers(-50, 50) | reals | st.text("ab c", max_size=5)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner), max_leaves=5)
calls = st.integers(1, 3).flatmap(lambda n: st.lists(st.tuples(*[values] * n), min_size=1, max_size=5))
steady = settings(max_examples=60)


@steady
@given(calls, st.integers(0, 9))
def test_variations_are_new_distinct_plain_and_reproducible(seen: list[tuple[Any, ...]], seed: int) -> None:
    made = list(variations(seen, random.Random(seed), 6))
    assert made == list(variations(seen, random.Random(seed), 6))
    assert len({repr(arguments) for arguments in made} | {repr(arguments) for arguments in seen}) == len(made) + len(
        {repr(arguments) for arguments in seen}
    )
    for arguments in made:
        assert is_plain(arguments)
        assert is_short(arguments)
        assert ast.literal_eval(repr(arguments)) == arguments
        assert len(arguments) in {len(one) for one in seen}


@steady
@given(
    st.lists(st.tuples(st.integers(1, 60), st.lists(st.integers(1, 9), min_size=1, max_size=5)), min_size=2, max_size=6)
)
def test_numbers_and_lengths_stay_within_what_was_seen(seen: list[tuple[int, list[int]]]) -> None:
    for number, numbers in variations(seen, random.Random(1), 10):
        assert min(one for one, _ in seen) <= number <= max(one for one, _ in seen)
        assert min(len(one) for _, one in seen) <= len(numbers) <= max(len(one) for _, one in seen)
        elements = [element for _, one in seen for element in one]
        assert all(min(elements) <= element <= max(elements) for element in numbers)


@steady
@given(st.lists(st.tuples(st.text("xyz", min_size=1, max_size=6)), min_size=1, max_size=4))
def test_text_is_written_with_letters_that_were_seen(seen: list[tuple[str]]) -> None:
    letters = {letter for (text,) in seen for letter in text}
    for (text,) in variations(seen, random.Random(2), 10):
        assert set(text) <= letters


def test_what_is_not_plain_is_told_apart() -> None:
    assert all(is_plain(value) for value in (None, True, 3, -2.5, "x", [1, (2, {"a": 3})]))
    assert not any(is_plain(value) for value in (float("nan"), float("inf"), 10**20, {1}, b"x", object(), [object()]))


def test_nothing_seen_gives_nothing_new() -> None:
    assert list(variations([], random.Random(0), 5)) == []
    assert list(variations([()], random.Random(0), 5)) == []
