"""Weights from recipes: what is refused, what a study may, and what the deductions do."""

from __future__ import annotations

import pytest

from code_repair_rl.edits import diff
from code_repair_rl.errors import BadInput
from code_repair_rl.rewards import Reward, RewardWeights, changes_code
from tests.rewards.cases import BEFORE, ORACLE, ORACLE_TEXT, answer, task, verdict_on


def test_a_recipe_names_what_differs_from_the_default() -> None:
    assert RewardWeights.from_recipe({}) == RewardWeights()
    assert RewardWeights.from_recipe({"gain": 0.3, "applied": 0}) == RewardWeights(gain=0.3, applied=0)


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"gian": 0.3}, "reward"),
        ({"gain": -0.1}, "reward.gain"),
        ({"gain": "much"}, "reward.gain"),
        ({"gain": True}, "reward.gain"),
        ({"gain": float("nan")}, "reward.gain"),
        ({"gain": float("inf")}, "reward.gain"),
        ({"study": 1}, "reward.study"),
        ({"gain": 0.5, "format": 0.3, "economy": 0.1}, "reward"),
        ({"passed": 0.5}, "reward.passed"),
        ({"similarity": 0.5}, "reward.similarity"),
    ],
)
def test_weights_that_would_break_the_rule_are_refused_with_their_key(values: dict[str, object], where: str) -> None:
    with pytest.raises(BadInput) as caught:
        RewardWeights.from_recipe(values)
    assert caught.value.where == where
    assert caught.value.mend or where == "reward.study"


def test_a_study_may_pay_for_similarity_and_is_stamped() -> None:
    weights = RewardWeights(study=True, passed=0.0, applied=0.0, similarity=1.0)
    for reward in (Reward(weights), Reward.study(weights)):
        oracle = reward(task(), ORACLE_TEXT, verdict_on(ORACLE_TEXT, passes=True))
        nothing = reward(task(), "*** Empty Patch\n", verdict_on("*** Empty Patch\n"))
        assert oracle.study
        assert nothing.study
        assert oracle.total == 1.0
        assert nothing.total is not None
        assert nothing.total > 0.5  # what is wrong with it
    assert Reward.study(RewardWeights()).weights.study


def test_only_terms_with_a_weight_are_worked_out_unless_all_are_asked_for() -> None:
    text = answer("a.py", "values[1:]", "values[:-1]")
    verdict = verdict_on(text)
    assert set(Reward()(task(), text, verdict).terms) == {"passed", "format", "applied"}
    everything = Reward(all_terms=True)(task(), text, verdict, completion_tokens=9, max_new_tokens=64)
    assert set(everything.terms) == {
        *("passed", "format", "applied", "gain", "files", "lines", "style", "similarity", "economy", "length")
    }
    assert everything.total == Reward()(task(), text, verdict).total
    with pytest.raises(TypeError):
        everything.terms["passed"] = 1.0  # type: ignore[index]


def test_economy_prefers_the_smaller_of_two_passing_edits() -> None:
    small, large = ORACLE_TEXT, ORACLE_TEXT + answer("b.py", "values[0]", "list(values)[0]")
    reward = Reward(RewardWeights(economy=0.3))
    totals = [reward(task(), text, verdict_on(text, passes=True)).total for text in (small, large)]
    assert totals[0] == 1.0
    assert totals[1] is not None
    assert 0.7 <= totals[1] < 1.0


def test_length_counts_from_the_oracle_on() -> None:
    reward = Reward(RewardWeights(length=0.3))
    chatty = "Let me think about that for a long while. " * 20 + "\n" + ORACLE_TEXT

    def total(text: str, tokens: int) -> float | None:
        verdict = verdict_on(text, passes=True)
        return reward(task(), text, verdict, completion_tokens=tokens, max_new_tokens=200).total

    assert total(ORACLE_TEXT, 50) == 1.0
    assert total(ORACLE_TEXT, 200) == 1.0
    long, longest = total(chatty, 150), total(chatty, 200)
    assert long is not None
    assert longest is not None
    assert 1.0 > long > longest >= 0.7
    assert reward(task(), chatty, verdict_on(chatty, passes=True)).total == 1.0  # no lengths given


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("x = 1\n", "x = 1  # one\n", False),
        ("x = 1\n", "x   =  1\n\n", False),
        ("def f():\n    return 1\n", 'def f():\n    """One."""\n    return 1\n', False),
        ("x = 1\n", "x = 2\n", True),
        ("if x:\n    a()\n    b()\n", "if x:\n    a()\nb()\n", True),
        ("x = 1\n", "x = (\n", True),
        ("x = (\n", "x = ( # still broken\n", True),
        ("x = (\n", "x  = (\n", False),
    ],
)
def test_comments_docstrings_and_white_space_are_no_code(old: str, new: str, changes: bool) -> None:
    assert changes_code({"a.py": old}, {"a.py": new}) is changes


def test_files_that_come_or_go_are_code() -> None:
    assert changes_code({}, {"a.py": ""})
    assert changes_code({"a.py": ""}, {})
    assert not changes_code({"a.txt": "a b\n"}, {"a.txt": "a  b\n"})


def test_hostile_python_is_compared_without_falling_over() -> None:
    deep = "(" * 5000 + ")" * 5000
    assert changes_code({"a.py": "x = 1\n"}, {"a.py": deep})


def test_a_text_that_is_not_the_graded_one_earns_no_edit_terms() -> None:
    text = str(diff(BEFORE, {**BEFORE, **ORACLE}))
    assert Reward()(task(), "something else", verdict_on(text)).total == 0.0
