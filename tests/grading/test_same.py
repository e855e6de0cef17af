"""When a value is what was expected."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.grading.inside.trusted import same


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (True, 1),
        (0.1 + 0.2, 0.3),
        (math.nan, math.nan),
        ([math.nan, 1.0000000001], [math.nan, 1]),
        ({"a": [0.30000000000000004]}, {"a": [0.3]}),
        ({1, 2}, frozenset({1, 2})),
        (1e300 * 10, math.inf * 1) if math.isinf(1e300 * 10) else (1e301, 1e301),
        (10**400, 10**400),
    ],
)
def test_equal(value: object, expected: object) -> None:
    assert same(value, expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1], (1,)),
        (1.001, 1.0),
        ("1", 1),
        (None, 0),
        ([1, 2], [1]),
        ({"a": 1}, {"b": 1}),
        (math.inf, -math.inf),
        (10**400, 1.0),
        (math.nan, 0.0),
        ("nan", math.nan),
        (0, 1e-9),
    ],
)
def test_not_equal(value: object, expected: object) -> None:
    assert not same(value, expected)


@given(st.lists(st.floats(allow_nan=True) | st.integers() | st.text() | st.booleans()))
def test_everything_is_the_same_as_itself(value: list[object]) -> None:
    assert same(value, list(value))
