"""The style term: the habits of the surroundings, whatever they are, and never more than the gain."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_repair_rl.edits import diff
from code_repair_rl.grading.verdict import Outcome, Verdict
from code_repair_rl.rewards import Reward, RewardWeights, style_conformity
from tests.rewards.cases import task

SNAKE = '''def first_item(all_items: list[int]) -> int:
    """Give the first one.

    Args:
        all_items: some.
    """
    return all_items[0]


def last_item(all_items: list[int]) -> int:
    """Give the last one.

    Args:
        all_items: some.
    """
    return all_items[-1]


'''
CAMEL = """def firstItem(allItems):
    return allItems[0]


def lastItem(allItems):
    return allItems[-1]


"""
LIKE_SNAKE = '''def middle_item(all_items: list[int]) -> int:
    """Give the one between.

    Args:
        all_items: some.
    """
    half_way = len(all_items) // 2
    return all_items[half_way]
'''
LIKE_CAMEL = "def middleItem(allItems):\n    halfWay = len(allItems) // 2\n    return allItems[halfWay]\n"
MASK = "# MASKED\n"


def _conformity(around: str, written: str) -> float:
    return style_conformity({"a.py": around + MASK}, {"a.py": around + written})


def test_what_looks_like_its_surroundings_conforms_whatever_they_look_like() -> None:
    assert _conformity(SNAKE, LIKE_SNAKE) == 1.0
    assert _conformity(CAMEL, LIKE_CAMEL) == 1.0
    assert _conformity(CAMEL, LIKE_SNAKE) == 0.0
    assert _conformity(SNAKE, LIKE_CAMEL) == 0.0


@pytest.mark.parametrize(
    ("written", "conformity"),
    [
        (LIKE_SNAKE.replace(": list[int]", "").replace(" -> int", ""), (1 + 0 + 1) / 3),
        (LIKE_SNAKE.replace(" -> int", ""), (1 + 0.5 + 1) / 3),
        (LIKE_SNAKE.replace("half_way", "halfWay"), (2 / 3 + 1 + 1) / 3),  # three names of several words, one foreign
        (LIKE_SNAKE.replace('"""', "'''"), (1 + 1 + 3 / 4) / 3),
        (LIKE_SNAKE.replace("Args:", ":param all_items:"), (1 + 1 + 3 / 4) / 3),
        (LIKE_SNAKE.replace('"""Give', '"""\n    Give'), (1 + 1 + 3 / 4) / 3),
        (LIKE_SNAKE.replace(LIKE_SNAKE[LIKE_SNAKE.index('    """') : LIKE_SNAKE.index("    half")], ""), 2 / 3),
        ("def g(: pass", 0.0),
        ("x = 1\n", 1.0),
    ],
)
def test_each_habit_counts(written: str, conformity: float) -> None:
    assert _conformity(SNAKE, written) == pytest.approx(conformity)


def test_what_the_surroundings_leave_open_is_left_out() -> None:
    assert _conformity("", LIKE_CAMEL) == 1.0
    assert _conformity("def f(x): return x\n\n\n", LIKE_SNAKE) == pytest.approx((0 + 0) / 2)  # types and docstring
    assert style_conformity({"a.c": "int f;"}, {"a.c": "int g;"}) == 1.0


def test_only_the_written_function_is_judged_not_what_was_there() -> None:
    mixed = SNAKE + "def oddOne(someThing):\n    return someThing\n\n\n"
    assert style_conformity({"a.py": mixed}, {"a.py": mixed + LIKE_SNAKE}) > 0.85
    nested = {"a.py": SNAKE + "class A:\n    # MASKED\n    x = 1\n"}
    method = "    def middle_item(self, all_items: int) -> int:\n" + '        """Give it."""\n        return 1\n'
    assert style_conformity(nested, {"a.py": nested["a.py"].replace("    # MASKED\n", method)}) > 0.9


def test_style_pays_only_along_the_way_to_the_oracle() -> None:
    files = {"a.py": SNAKE + MASK}
    question = task(files, {"a.py": SNAKE + LIKE_SNAKE})
    reward = Reward(RewardWeights(applied=0.0, style=0.5), all_terms=True)

    def total(after: str, outcome: Outcome = Outcome.UNTESTED) -> float:
        text = str(diff(files, {"a.py": after}))
        value = reward(question, text, Verdict(outcome, tolerance="exact"))
        assert value.total is not None
        return value.total

    assert total(SNAKE + LIKE_SNAKE, Outcome.PASSED) == 1.0
    assert total("import os\n" + SNAKE + MASK) == 0.0  # conforms to everything, and leads nowhere
    near = LIKE_SNAKE.replace("// 2", "// 3")
    assert 0.0 < total(SNAKE + near.replace("half_way", "halfWay")) < total(SNAKE + near) < 0.5


LINES = st.sampled_from(
    [
        "def f(a_b, c):",
        "def gH(x) -> int:",
        "class A:",
        "    def m(self):",
        '    """Doc."""',
        "    return 1",
        "\t",
        "x=1",
    ]
)
TEXTS = st.lists(LINES, max_size=10).map("\n".join)


@settings(max_examples=100)
@given(TEXTS, TEXTS)
def test_it_lies_between_nothing_and_one_for_any_text(before: str, after: str) -> None:
    assert 0.0 <= style_conformity({"a.py": before}, {"a.py": after}) <= 1.0
