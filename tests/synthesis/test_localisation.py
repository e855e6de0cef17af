"""Fault localisation: the published coefficient, and its order."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.synthesis.localisation import ochiai, rank_of, ranked_lines

counts = st.integers(0, 20)


@pytest.mark.parametrize(
    ("failing_with", "passing_with", "failing", "expected"),
    [(2, 0, 2, 1.0), (0, 5, 2, 0.0), (2, 2, 2, 1 / math.sqrt(2)), (1, 3, 4, 1 / 4)],
)
def test_the_coefficient_is_the_published_one(
    failing_with: int, passing_with: int, failing: int, expected: float
) -> None:
    assert ochiai(failing_with, passing_with, failing) == pytest.approx(expected)


@given(counts, counts, counts)
def test_it_lies_between_nought_and_one_and_falls_with_passing_tests(failed: int, passed: int, more: int) -> None:
    score = ochiai(failed, passed, failed + more)
    assert 0 <= score <= 1
    assert ochiai(failed, passed + 1, failed + more) <= score


def test_lines_stand_by_suspicion_then_in_the_order_of_the_text() -> None:
    spectrum = [(1, 2, 3), (2, 2, 0), (3, 2, 3), (4, 0, 9)]
    assert ranked_lines(spectrum, failing=2) == [2, 1, 3]
    assert rank_of([2, 1, 3], [3, 1]) == 2
    assert rank_of([2, 1, 3], [9]) is None
