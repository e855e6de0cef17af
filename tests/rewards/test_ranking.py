"""Answers in the order in which a careful engineer would put them."""

from __future__ import annotations

import pytest

from code_repair_rl.grading.verdict import Outcome
from code_repair_rl.rewards import Reward, RewardWeights
from tests.rewards.cases import BEFORE, ORACLE_TEXT, answer, task, verdict_on

SHAPED = RewardWeights(applied=0.05, format=0.05, gain=0.3, files=0.05, lines=0.1, economy=0.2)

LOOP = "    for value in values[1:]:\n        result += value\n"
ANSWERS = {
    "oracle": (ORACLE_TEXT, True),
    "correct but different": (
        answer("a.py", "    result = 0\n" + LOOP + "    return result\n", "    return sum(values)\n"),
        True,
    ),
    "oracle and a needless change": (
        ORACLE_TEXT + answer("b.py", "values[0]", "list(values)[0] if len(values) else None"),
        True,
    ),
    "right line, wrong fix": (answer("a.py", "values[1:]", "values[:-1]"), False),
    "many scattered edits": (
        answer("a.py", "result = 0", "result = 1")
        + answer("a.py", "result += value", "result -= value")
        + answer("a.py", "return result\n", "return result + 1\n")
        + answer("a.py", "/ len", "// len"),
        False,
    ),
    "right edit in the wrong file": (answer("b.py", "values[0]", "values"), False),
    "deleted function": (answer("a.py", "    result = 0\n" + LOOP + "    return result\n", "    pass\n"), False),
    "comment only": (answer("a.py", "    result = 0\n", "    result = 0  # fixed\n"), False),
    "docstring only": (answer("a.py", '"""Sums."""', '"""Right sums."""'), False),
    "white space only": (answer("a.py", "    result = 0\n", "    result = 0   \n\n"), False),
    "no-op": ("a.py\n<<<<<<< SEARCH\n    result = 0\n=======\n    result = 0\n>>>>>>> REPLACE\n", False),
    "empty patch": ("*** Empty Patch\n", False),
    "garbage": ("I think it is fine.", False),
    "empty": ("", False),
}


def scores(weights: RewardWeights) -> dict[str, float]:
    reward = Reward(weights)
    totals = {}
    for name, (text, passes) in ANSWERS.items():
        total = reward(task(), text, verdict_on(text, passes=passes)).total
        assert total is not None
        totals[name] = total
    return totals


@pytest.mark.parametrize("weights", [RewardWeights(), SHAPED], ids=["default", "shaped"])
def test_the_ends_are_fixed(weights: RewardWeights) -> None:
    totals = scores(weights)
    assert totals["oracle"] == max(totals.values()) == 1.0
    for name in ("comment only", "docstring only", "white space only", "no-op", "empty patch", "garbage", "empty"):
        assert totals[name] == 0.0, name
    passing = [totals[name] for name, (_, passes) in ANSWERS.items() if passes]
    failing = [totals[name] for name, (_, passes) in ANSWERS.items() if not passes]
    assert min(passing) > max(failing)


def test_the_default_is_1_a_tenth_or_0() -> None:
    totals = scores(RewardWeights())
    assert set(totals.values()) == {0.0, 0.1, 1.0}
    assert {name for name, total in totals.items() if total == 0.1} == {
        "right line, wrong fix",
        "many scattered edits",
        "right edit in the wrong file",
        "deleted function",
    }


def test_the_shaped_reward_tells_apart_what_the_default_does_not() -> None:
    totals = scores(SHAPED)
    assert totals["oracle"] > totals["correct but different"] > totals["right line, wrong fix"]
    assert totals["oracle"] > totals["oracle and a needless change"] > totals["right line, wrong fix"]
    for worse in ("many scattered edits", "deleted function", "right edit in the wrong file"):
        assert totals["right line, wrong fix"] > totals[worse] > totals["comment only"], worse
    for near in ("many scattered edits", "deleted function"):
        assert totals[near] > totals["right edit in the wrong file"], near


def test_tampering_gets_nothing_however_well_it_edits() -> None:
    verdict = verdict_on(ORACLE_TEXT, outcome=Outcome.TAMPERED)
    assert Reward(SHAPED)(task(), ORACLE_TEXT, verdict).total == 0.0


def test_a_lenient_answer_is_worth_less_format_than_an_exact_one() -> None:
    exact = answer("a.py", "values[1:]", "values[2:]")
    lenient = exact.replace("    for value", "for value")
    reward = Reward(RewardWeights(format=0.2))
    exact_value = reward(task(), exact, verdict_on(exact))
    lenient_value = reward(task(), lenient, verdict_on(lenient))
    assert verdict_on(lenient).tolerance == "indentation"
    assert (exact_value.terms["format"], lenient_value.terms["format"]) == (1.0, 0.8)
    assert exact_value.total is not None
    assert lenient_value.total is not None
    assert exact_value.total > lenient_value.total > 0


def test_refusals_are_graded_by_their_kind_only_where_format_has_a_weight() -> None:
    cut_off, not_found = ORACLE_TEXT[:-9], ORACLE_TEXT.replace("values[1:]", "values[7:]")
    texts = ["garbage", cut_off, not_found, ORACLE_TEXT]
    with_format = [Reward(RewardWeights(format=0.2))(task(), text, verdict_on(text)).total for text in texts]
    assert with_format == pytest.approx([0.0, 0.05, 0.1, 0.3])
    without = [Reward()(task(), text, verdict_on(text)).total for text in texts]
    assert without == [0.0, 0.0, 0.0, 0.1]


def test_breaking_the_python_is_still_a_change() -> None:
    broken = answer("a.py", "def total(values):", "def total(values:")
    assert Reward()(task(), broken, verdict_on(broken, outcome=Outcome.SYNTAX_ERROR)).total == 0.1
    assert BEFORE["a.py"].startswith('"""')
