"""The rule that every reward keeps, for any task, answer and honest weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from code_repair_rl.edits import EditError, diff, parse
from code_repair_rl.errors import BadInput
from code_repair_rl.grading.comparison import compare_with_oracle
from code_repair_rl.grading.verdict import Outcome, TestResult, TestStatus, Verdict
from code_repair_rl.rewards import Reward, RewardWeights
from code_repair_rl.rewards.weights import LEAST_GAP
from tests.edits.trees import CODE
from tests.rewards.cases import task

NAMES = ("applied", "format", "gain", "files", "lines", "style", "visible", "habits", "turns", "economy", "length")


@st.composite
def weights(draw: st.DrawFn) -> RewardWeights:
    """Any weights that are not a study's: shares of what the rule leaves."""
    shares = draw(st.lists(st.floats(0, 1), min_size=len(NAMES), max_size=len(NAMES)))
    together = max(1.0, sum(shares))
    return RewardWeights(
        **{name: share / together * (1 - LEAST_GAP) for name, share in zip(NAMES, shares, strict=True)}
    )


LINE = st.sampled_from(["x = 1", "y = 2", "    return x", "def f():", "# note", "", "z", "if x:"])
PYTHON = st.lists(LINE, max_size=8).map(lambda lines: "".join(f"{line}\n" for line in lines))
TREES = st.dictionaries(st.sampled_from(["a.py", "b.py", "c.txt"]), st.one_of(PYTHON, CODE), min_size=1, max_size=3)
FAILURES = st.sampled_from(
    [outcome for outcome in Outcome if outcome not in (Outcome.PASSED, Outcome.NO_VERDICT, Outcome.UNCHANGED)]
)
LENGTHS = st.one_of(st.none(), st.integers(1, 64))
ATTEMPTS = st.fixed_dictionaries({}, optional={"turns": st.floats(0, 1), "habits": st.floats(0, 1)})


def graded(text: str, files: dict[str, str], outcome: Outcome) -> Verdict:
    try:
        applied = parse(text).apply_with(files)
    except EditError as error:
        return Verdict(Outcome.EDIT_REJECTED, edit_error=error.kind.value)
    if not applied.changed:
        return Verdict(Outcome.UNCHANGED, tolerance=applied.rung.value)
    status = TestStatus.PASSED if outcome is Outcome.PASSED or len(text) % 2 else TestStatus.FAILED
    return Verdict(outcome, tolerance=applied.rung.value, tests=(TestResult("visible[0]", status, True),))


@settings(max_examples=150)
@given(weights(), TREES, TREES, TREES, TREES, FAILURES, LENGTHS, LENGTHS, ATTEMPTS)
def test_no_failing_answer_comes_near_a_passing_one_and_the_oracle_is_the_maximum(
    chosen: RewardWeights,
    files: dict[str, str],
    goal: dict[str, str],
    passing: dict[str, str],
    failing: dict[str, str],
    failure: Outcome,
    one_length: int | None,
    other_length: int | None,
    attempt: dict[str, float],
) -> None:
    assume(goal != files)
    assume(passing != files)
    oracle: dict[str, str | None] = {path: goal.get(path) for path in files.keys() | goal.keys()}
    question = task(files, oracle)
    reward = Reward(chosen, all_terms=True)
    texts = [str(diff(files, tree)) for tree in (goal, passing, failing)]
    assume(failure is not Outcome.EDIT_REJECTED or "Empty" in texts[2])
    outcomes = [Outcome.PASSED, Outcome.PASSED, failure]
    lengths = [one_length, other_length, one_length]
    attempts = [{"turns": 1.0, "habits": 1.0}, attempt, attempt]
    values = [
        reward(question, text, graded(text, files, outcome), completion_tokens=length, max_new_tokens=64, attempt=made)
        for text, outcome, length, made in zip(texts, outcomes, lengths, attempts, strict=True)
    ]
    best, passed, failed = [value.total for value in values]
    assert best is not None
    assert passed is not None
    assert failed is not None
    assert best == 1.0
    assert passed <= 1.0
    assert 0.0 <= failed <= passed - LEAST_GAP + 1e-6
    for value in values:
        assert all(0.0 <= term <= 1.0 for term in value.terms.values()), value.terms
        assert not value.study


@settings(max_examples=100)
@given(weights(), TREES, TREES, st.one_of(st.text(), CODE))
def test_doing_nothing_and_garbage_get_the_minimum(
    chosen: RewardWeights, files: dict[str, str], goal: dict[str, str], garbage: str
) -> None:
    question = task(files, {path: goal.get(path) for path in files.keys() | goal.keys()})
    reward = Reward(chosen)
    assert reward(question, "*** Empty Patch\n", graded("*** Empty Patch\n", files, Outcome.FAILED)).total == 0.0
    verdict = graded(garbage, files, Outcome.FAILED)
    if verdict.edit_error == "unreadable" or verdict.outcome is Outcome.UNCHANGED:
        assert reward(question, garbage, verdict).total == 0.0


@given(weights())
def test_no_verdict_is_no_number(chosen: RewardWeights) -> None:
    value = Reward(chosen)(task(), "anything", Verdict(Outcome.NO_VERDICT))
    assert value.total is None
    assert not value.terms


@given(weights(), st.sampled_from(list(Outcome)))
def test_labels_are_right_or_worth_nothing_but_their_format(chosen: RewardWeights, outcome: Outcome) -> None:
    value = Reward(chosen)(task(oracle="vulnerable"), "label: safe", Verdict(outcome))
    expected = {Outcome.PASSED: 1.0, Outcome.NO_VERDICT: None}.get(outcome, 0.0)
    assert value.total == expected


def test_the_same_answer_gets_the_same_reward() -> None:
    text = str(diff({"a.py": "x = 1\n"}, {"a.py": "x = 2\n"}))
    question = task({"a.py": "x = 1\n"}, {"a.py": "x = 3\n"})
    verdict = graded(text, {"a.py": "x = 1\n"}, Outcome.FAILED)
    reward = Reward(RewardWeights(gain=0.3), all_terms=True)
    assert reward(question, text, verdict) == reward(question, text, verdict)


def test_an_attempts_turns_cost_and_its_habits_pay_as_far_as_the_rule_allows() -> None:
    before, after, other = ({"a.py": f"x = {number}\n"} for number in (1, 3, 2))
    question = task(before, dict(after))
    reward = Reward(RewardWeights(applied=0.1, habits=0.2, visible=0.1, turns=0.3))

    def worth(files: dict[str, str], outcome: Outcome, turns: float, habits: float) -> float | None:
        text = str(diff(before, files))
        verdict = Verdict(outcome, tolerance="exact", tests=(TestResult("v", TestStatus.PASSED, True),))
        return reward(question, text, verdict, attempt={"turns": turns, "habits": habits}).total

    assert worth(after, Outcome.PASSED, 1.0, 0.0) == 1.0
    assert worth(after, Outcome.PASSED, 0.5, 1.0) == pytest.approx(0.85)
    assert worth(other, Outcome.FAILED, 0.0, 0.5) == pytest.approx(0.1 + 0.1 + 0.1)
    assert worth(before, Outcome.UNCHANGED, 1.0, 1.0) == 0.0
    with pytest.raises(BadInput, match="together"):
        RewardWeights(turns=0.5, habits=0.5)


@settings(max_examples=100)
@given(weights(), TREES, TREES, TREES)
def test_without_tests_only_the_oracle_gets_all_and_the_order_holds(
    chosen: RewardWeights, files: dict[str, str], goal: dict[str, str], other: dict[str, str]
) -> None:
    assume(goal != files)
    question = task(files, {path: goal.get(path) for path in files.keys() | goal.keys()})
    reward = Reward(chosen)
    values = []
    for tree in (goal, other, files):
        verdict = replace(compare_with_oracle(question, tree), tolerance="exact")
        values.append((verdict.passed, reward(question, str(diff(files, tree)), verdict).total))
    (_, best), (passes, answered), (_, nothing) = values
    assert best == 1.0
    assert nothing == 0.0
    assert answered is not None
    # An answer that says the same with other comments passes, and may be larger than need be.
    assert (answered > 1 - LEAST_GAP - chosen.economy - chosen.length - 1e-6) if passes else answered <= 1 - LEAST_GAP
