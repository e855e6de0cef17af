"""Repository tasks through pytest in a jail."""

from __future__ import annotations

import pytest

from code_repair_rl.edits import diff
from code_repair_rl.errors import MachineryFailed
from code_repair_rl.grading import Grader, Outcome, TestStatus, Verdict
from code_repair_rl.grading.repository import RepositoryWorker
from code_repair_rl.tasks import Kind, Origin, RepositoryTests, Split, Task

SUITE = """import subprocess
import sys
import unittest

import pytest
from shop.cart import total


@pytest.fixture
def numbers(start):
    return [start, 1, 2]


def test_total(numbers):
    assert total(numbers) == 13


@pytest.mark.parametrize("n", [0, 1])
def test_each(n):
    assert total([n]) == n


@pytest.fixture
def not_here(request):
    request.applymarker(pytest.mark.xfail(reason="elsewhere only"))


def test_expected_by_a_fixture(not_here):
    assert total([1]) == "one"


def test_starts_another_python():
    code = "from shop.cart import total; print(total([2, 3]))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "5\\n"


@pytest.mark.xfail(reason="not yet")
def test_hoped_for():
    assert total(["1"]) == 1


@pytest.mark.skipif(True, reason="elsewhere")
def test_skipped():
    assert True


def test_known_to_fail():
    assert total([1]) == "one"


def test_writes(tmp_path):
    (tmp_path / "x").write_text("x")
    assert (tmp_path / "x").read_text() == "x"


class Hoped(unittest.TestCase):
    @unittest.expectedFailure
    def test_of_a_case(self):
        self.assertEqual(total([1]), "one")


class Pairs(unittest.TestCase):
    def test_pairs(self):
        for numbers in ([0, 0], [2, 3]):
            with self.subTest(numbers=numbers):
                self.assertEqual(total(numbers), sum(numbers))
"""
FILES = {
    "src/shop/__init__.py": "",
    "src/shop/cart.py": "def total(numbers):\n    return 0\n",
    "tests/conftest.py": "import pytest\n\n\n@pytest.fixture\ndef start():\n    return 10\n",
    "tests/test_cart.py": SUITE,
    "setup.cfg": "[tool:pytest]\naddopts = --strict-markers\n",
}
GOOD = "def total(numbers):\n    return sum(numbers)\n"


def task(fail_to_pass: tuple[str, ...], pass_to_pass: tuple[str, ...] = ()) -> Task:
    in_suite = [tuple(f"tests/test_cart.py::{name}" for name in names) for names in (fail_to_pass, pass_to_pass)]
    tests = RepositoryTests(fail_to_pass=in_suite[0], pass_to_pass=in_suite[1], source_roots=("src",))
    return Task(
        task_id="cart", kind=Kind.REPAIR, files=FILES, description="", oracle={"src/shop/cart.py": GOOD}, tests=tests,
        split=Split.TRAIN, problem="cart", origin=Origin(source="tests"), licence="Apache-2.0",
    )  # fmt: skip


def grade(grader: Grader, task: Task, text: str) -> Verdict:
    return grader.grade_files(task, {**FILES, "src/shop/cart.py": text})


def test_the_known_good_answer_passes_though_the_suite_has_known_failures(grader: Grader) -> None:
    expected_to_fail = ("test_hoped_for", "Hoped::test_of_a_case", "test_expected_by_a_fixture")
    one = task(
        ("test_total", "test_each[1]", "test_starts_another_python"), ("test_each[0]", "test_writes", *expected_to_fail)
    )
    verdict = grade(grader, one, GOOD)
    assert verdict.outcome is Outcome.PASSED, verdict
    assert len(verdict.tests) == 8
    assert grade(grader, one, FILES["src/shop/cart.py"]).outcome is Outcome.FAILED


def test_a_unified_diff_is_an_answer_too(grader: Grader) -> None:
    text = (
        "--- a/src/shop/cart.py\n+++ b/src/shop/cart.py\n@@ -1,2 +1,2 @@\n"
        " def total(numbers):\n-    return 0\n+    return sum(numbers)\n"
    )
    assert grader.grade(task(("test_total",)), text).passed
    assert str(diff(FILES, {**FILES, "src/shop/cart.py": GOOD}))


@pytest.mark.parametrize("name", ["test_skipped", "test_absent", "test_each[7]"])
def test_skipped_and_missing_are_not_passed(grader: Grader, name: str) -> None:
    verdict = grade(grader, task(("test_total", name)), GOOD)
    assert verdict.outcome is Outcome.FAILED, verdict
    assert [test.status for test in verdict.tests] == [TestStatus.PASSED, TestStatus.MISSING]


def test_a_case_fails_with_any_of_its_subtests(grader: Grader) -> None:
    one = task(("Pairs::test_pairs",))
    assert grade(grader, one, GOOD).passed
    unchanged = grade(grader, one, FILES["src/shop/cart.py"])
    assert [test.status for test in unchanged.tests] == [TestStatus.FAILED]


def test_breaking_what_worked_is_no_pass(grader: Grader) -> None:
    text = "def total(numbers):\n    return sum(numbers) if len(numbers) > 2 else -1\n"
    verdict = grade(grader, task(("test_total",), ("test_each[0]",)), text)
    assert verdict.outcome is Outcome.FAILED
    assert [test.status for test in verdict.tests] == [TestStatus.PASSED, TestStatus.FAILED]


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("def total(", Outcome.SYNTAX_ERROR),
        ("1 / 0\n", Outcome.FAILED),
        ("import os\nos._exit(0)\n", Outcome.CRASHED),
        ("def total(numbers):\n    import os; os._exit(0)\n", Outcome.CRASHED),
    ],
)
def test_what_went_wrong_is_named(grader: Grader, text: str, outcome: Outcome) -> None:
    verdict = grade(grader, task(("test_total",)), text)
    assert verdict.outcome is outcome, verdict


def test_the_answers_own_tests_and_configuration_do_not_count(grader: Grader) -> None:
    tree = {**FILES, "tests/test_cart.py": "def test_total(): pass\n", "setup.cfg": "[tool:pytest]\naddopts = --co\n"}
    verdict = grader.grade_files(task(("test_total",)), tree)
    assert verdict.outcome is Outcome.FAILED and len(verdict.evidence) >= 2


def test_source_cannot_call_a_test_off(grader: Grader) -> None:
    text = "import sys\n\n\ndef total(numbers):\n    sys.modules['pytest'].xfail('fine')\n"
    verdict = grade(grader, task(("test_total",), ("test_each[0]", "test_hoped_for")), text)
    assert verdict.outcome is Outcome.FAILED
    assert [test.status for test in verdict.tests] == [TestStatus.FAILED, TestStatus.FAILED, TestStatus.PASSED]
    assert "called off by pytest.xfail" in verdict.tests[0].detail


def test_where_no_test_can_run_the_task_is_broken_and_not_the_answer(grader: Grader) -> None:
    files = {**FILES, "setup.cfg": "[tool:pytest]\naddopts = --of-a-plugin-that-is-not-there\n"}
    one = task(("test_total",)).model_copy(update={"files": files})
    verdict = grader.grade_files(one, {**files, "src/shop/cart.py": GOOD + "# said otherwise\n"})
    assert verdict.outcome is Outcome.NO_VERDICT and "known-good answer" in verdict.evidence[0]
    needs = {**FILES, "tests/test_cart.py": f"import nowhere_installed\n{SUITE}"}
    missing = task(("test_total",)).model_copy(update={"files": needs})
    assert grader.grade_files(missing, {**needs, "src/shop/cart.py": "def total(): ...\n"}).score is None
    stops = {**FILES, "src/shop/cart.py": "import os\nos._exit(4)\n"}
    assert grader.grade_files(task(("test_total",)), stops).outcome is Outcome.CRASHED, "there tests can run"


def test_a_jail_for_repositories_that_breaks_gives_no_verdict(grader: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise MachineryFailed("pytest cannot be imported there")

    with monkeypatch.context() as patch:
        patch.setattr(RepositoryWorker, "run", broken)
        verdict = grade(grader, task(("test_total",)), GOOD + "# in a broken jail\n")
    assert verdict.outcome is Outcome.NO_VERDICT, "function tests still work, and say nothing of it"
    assert grade(grader, task(("test_total",)), GOOD + "# in a broken jail\n").passed


def test_the_unsafe_backend_grades_too_and_is_stamped() -> None:
    with Grader(backend="unsafe_local", workers=1) as unsafe:
        one = task(("test_total",), ("test_writes",))
        verdicts = [grade(unsafe, one, text) for text in (GOOD, FILES["src/shop/cart.py"], GOOD + "# again\n")]
    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASSED, Outcome.FAILED, Outcome.PASSED], verdicts
    assert {verdict.isolation for verdict in verdicts} == {"unsafe-local"}
