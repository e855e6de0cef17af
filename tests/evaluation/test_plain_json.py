"""Whatever figures there are, a strict reader of JSON takes them."""

import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.evaluation.plain_json import without_nan

numbers = st.floats(allow_nan=True, allow_infinity=True) | st.integers() | st.none() | st.booleans() | st.text()
figures = st.recursive(
    numbers,
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
)


@given(figures)
def test_it_is_strict_json_and_comes_back_as_it_is(data: Any) -> None:
    plain = without_nan(data)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_numbers_without_a_word_are_null_wherever_they_stand() -> None:
    assert without_nan({1: [math.nan, (math.inf, 2.0)], "b": -math.inf}) == {"1": [None, [None, 2.0]], "b": None}
