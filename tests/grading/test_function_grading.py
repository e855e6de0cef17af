"""Function tasks through the two jails."""

from __future__ import annotations

import pytest

from code_repair_rl.grading import Grader, Outcome, TestStatus
from code_repair_rl.tasks import Example
from tests.grading.sample import BAD, GOOD, answer, function_task

TASK = function_task()


def test_the_known_good_answer_passes_and_every_assertion_is_a_test(grader: Grader) -> None:
    verdict = grader.grade(TASK, answer(GOOD))
    assert verdict.outcome is Outcome.PASSED and verdict.score == 1.0
    assert [test.name for test in verdict.tests] == ["visible[0]", "hidden[0]", "check:6", "check:6#2", "check:7"]
    assert [test.visible for test in verdict.tests] == [True, False, False, False, False]
    assert verdict.isolation == grader.isolation and verdict.tolerance == "exact"


def test_a_wrong_answer_fails_test_by_test(grader: Grader) -> None:
    verdict = grader.grade(TASK, answer("def mean(numbers):\n    return sum(numbers) // len(numbers)\n"))
    assert verdict.outcome is Outcome.FAILED and verdict.score == 0.0
    statuses = {test.name: test.status for test in verdict.tests}
    assert statuses["visible[0]"] is TestStatus.PASSED and statuses["check:7"] is TestStatus.FAILED
    assert "gave 1.0, expected 1.6666666667" in verdict.tests[1].detail


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("", Outcome.FAILED),
        ("def mean(numbers:\n", Outcome.SYNTAX_ERROR),
        ("def mean(numbers):\n\treturn 1\n        return 2\n", Outcome.SYNTAX_ERROR),
        ("1 / 0\n", Outcome.CRASHED),
        ("mean = 3\n", Outcome.FAILED),
        ("import no_such_module\n", Outcome.CRASHED),
        ("def mean(numbers):\n    raise ValueError\n", Outcome.FAILED),
        ("def mean(numbers, more):\n    return 0\n", Outcome.FAILED),
        ("def mean(numbers):\n    import os; os.abort()\n", Outcome.CRASHED),
    ],
)
def test_what_went_wrong_is_named(grader: Grader, text: str, outcome: Outcome) -> None:
    verdict = grader.grade(TASK, answer(text))
    assert verdict.outcome is outcome, verdict
    assert verdict.score == 0.0 and verdict.evidence
    assert {test.name for test in verdict.tests} >= {"visible[0]", "check:7"}


@pytest.mark.parametrize("text", ["", "I would not change anything.", "mean.py\n<<<<<<< SEARCH\n"])
def test_an_answer_without_an_edit_did_not_work(grader: Grader, text: str) -> None:
    verdict = grader.grade(TASK, text)
    assert verdict.outcome is Outcome.EDIT_REJECTED and verdict.score == 0.0 and verdict.edit_error


def test_an_edit_that_changes_nothing_is_told_apart(grader: Grader) -> None:
    assert grader.grade(TASK, answer(BAD)).outcome is Outcome.UNCHANGED


def test_an_unchanged_tree_is_still_tested(grader: Grader) -> None:
    assert grader.grade_files(TASK, TASK.files).outcome is Outcome.FAILED


def test_tests_may_use_the_helpers_of_the_known_good_module(grader: Grader) -> None:
    good = "def double(x):\n    return 2 * x\ndef mean(numbers):\n    return double(sum(numbers)) / 2 / len(numbers)\n"
    check = "def check(candidate):\n    assert double(candidate([1, 3])) == 4\n"
    task = function_task(check=check).model_copy(update={"oracle": {"mean.py": good}})
    assert grader.grade_files(task, {"mean.py": good}).passed
    cheat = "def double(x):\n    return 4\ndef mean(numbers):\n    return 2 if numbers == [1, 2, 3] else 5 / 3\n"
    assert grader.grade_files(task, {"mean.py": cheat}).outcome is Outcome.FAILED


def test_arguments_that_are_changed_in_place_come_back(grader: Grader) -> None:
    good = "def mean(numbers):\n    numbers.sort()\n    return numbers[0]\n"
    check = (
        "def check(candidate):\n    numbers = [3, 1, 2]\n"
        "    assert candidate(numbers) == 1\n    assert numbers == [1, 2, 3]\n"
    )
    task = function_task(check=check, visible=(), hidden=()).model_copy(update={"oracle": {"mean.py": good}})
    assert grader.grade_files(task, {"mean.py": good}).passed
    verdict = grader.grade_files(task, {"mean.py": "def mean(numbers):\n    return min(numbers)\n"})
    assert verdict.outcome is Outcome.FAILED, "an assertion about the same call belongs to its test"


def test_expected_exceptions_are_raised_and_unexpected_ones_fail(grader: Grader) -> None:
    good = "def mean(numbers):\n    if not numbers:\n        raise ValueError('empty')\n    return 1\n"
    check = """
def check(candidate):
    try:
        candidate([])
    except ValueError as error:
        assert str(error) == 'empty'
    else:
        assert False
    assert candidate([1]) == 1
"""
    task = function_task(check=check, visible=(), hidden=()).model_copy(update={"oracle": {"mean.py": good}})
    assert grader.grade_files(task, {"mean.py": good}).passed
    for raised in ("SystemExit(0)", "AssertionError", "KeyboardInterrupt", "TypeError('empty')"):
        text = good.replace("ValueError('empty')", raised)
        assert grader.grade_files(task, {"mean.py": text}).outcome is Outcome.FAILED, raised


def test_fewer_calls_than_the_known_good_answer_needs_are_no_pass(grader: Grader) -> None:
    good = "def mean(numbers):\n    return len(numbers) < 3\n"
    check = "def check(candidate):\n    numbers = []\n    while candidate(numbers):\n        numbers.append(1)\n"
    task = function_task(check=check, visible=(), hidden=()).model_copy(update={"oracle": {"mean.py": good}})
    assert grader.grade_files(task, {"mean.py": good}).passed
    for text in ("def mean(numbers):\n    return False\n", "def mean(numbers):\n    return True\n"):
        assert grader.grade_files(task, {"mean.py": text}).outcome is Outcome.FAILED


def test_random_tests_are_the_same_every_time(grader: Grader) -> None:
    check = (
        "import random\ndef check(candidate):\n    n = [random.random() for _ in range(3)]\n"
        "    assert candidate(n) == sum(n) / 3\n    assert candidate([n[0]]) == n[0]\n"
    )
    task = function_task(check=check, seed=7)
    verdicts = [grader.grade_files(task, {"mean.py": GOOD + "#" * k}) for k in range(3)]
    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASSED] * 3


def test_modules_of_the_tree_can_be_imported(grader: Grader) -> None:
    files = {
        "src/shop/__init__.py": "",
        "src/shop/rates.py": "RATE = 2\n",
        "src/shop/price.py": "from .rates import RATE\nfrom shop import rates\ndef price(x): return x * rates.RATE\n",
    }
    tests = {
        "path": "src/shop/price.py",
        "entry_point": "price",
        "check": "",
        "visible": (),
        "hidden": (Example(call="price(3)", expected="6"),),
    }
    task = function_task(**tests).model_copy(update={"files": files, "oracle": {"src/shop/rates.py": "RATE = 2\n"}})
    assert grader.grade_files(task, files).passed
    assert grader.grade_files(task, {**files, "src/shop/rates.py": "RATE = 3\n"}).outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"hidden": (Example(call="mean([1])", expected="7"),)}, "hidden\\[0\\] fails"),
        ({"check": "def check(candidate):\n    undefined\n"}, "NameError"),
        ({"check": "", "visible": (), "hidden": ()}, "never call"),
        ({"check": "def check(candidate):\n    assert candidate(print)\n"}, "CannotCross"),
    ],
)
def test_a_task_whose_own_answer_does_not_pass_gives_no_verdict(
    grader: Grader, change: dict[str, object], why: str
) -> None:
    import re

    task = function_task(**change)
    verdict = grader.grade(task, answer(GOOD.replace("numbers", "values")))
    assert verdict.outcome is Outcome.NO_VERDICT and verdict.score is None
    assert "known-good answer" in verdict.evidence[0] and re.search(why, verdict.evidence[0]), verdict
    assert not grader.grade_files(task, {"mean.py": GOOD}).passed


def test_many_answers_come_back_in_order_exactly_once(grader: Grader) -> None:
    texts = [answer(GOOD), "", answer("def mean(n): return 0\n"), answer(GOOD + "# 1\n"), answer(GOOD)] * 8
    seen: list[int] = []
    verdicts = grader.grade_many([(TASK, text) for text in texts], progress=seen.append)
    expected = [Outcome.PASSED, Outcome.EDIT_REJECTED, Outcome.FAILED, Outcome.PASSED, Outcome.PASSED] * 8
    assert [verdict.outcome for verdict in verdicts] == expected
    assert sorted(seen) == list(range(1, 41))
    assert grader.grade_many([]) == []


def test_the_unsafe_backend_grades_too_and_is_stamped() -> None:
    with Grader(backend="unsafe_local", workers=1) as unsafe:
        verdicts = [unsafe.grade(TASK, answer(text)) for text in (GOOD, "def mean(numbers):\n    return 0\n")]
    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASSED, Outcome.FAILED]
    assert {verdict.isolation for verdict in verdicts} == {"unsafe-local"}
