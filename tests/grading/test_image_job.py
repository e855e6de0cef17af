"""Tests in an image: what its log says, test by test, whatever runner printed it.

Where no engine is installed, a stand-in for its client runs what it is given on this machine: the whole way there and
back is tested, the engine's isolation is not.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.errors import BadInput
from code_repair_rl.grading import Grader, Outcome
from code_repair_rl.grading.image_job import judge_log, statuses
from code_repair_rl.grading.verdict import TestStatus
from code_repair_rl.sandbox.job import Cause
from code_repair_rl.tasks import Environment, RepositoryTests, Task, oracle_answer
from tests.tasks.examples import addition

PASSED, FAILED, MISSING = TestStatus.PASSED, TestStatus.FAILED, TestStatus.MISSING
BEGIN, END = ">>>>> begin of the tests\n", "\n>>>>> end of the tests\n"


@pytest.mark.parametrize(
    ("line", "name", "status"),
    [
        ("PASSED tests/test_a.py::test_x", "tests/test_a.py::test_x", PASSED),
        ("PASSED tests/test_a.py::test_x[a b-1]", "tests/test_a.py::test_x[a b-1]", PASSED),
        ("FAILED tests/test_a.py::test_x - assert 1 == 2", "tests/test_a.py::test_x", FAILED),
        ("SUBFAILED(i=(1, 2)) tests/test_a.py::T::test_x - x != y", "tests/test_a.py::T::test_x", FAILED),
        ("SUBFAILED[a b] (i=0) tests/test_a.py::T::test_x", "tests/test_a.py::T::test_x", FAILED),
        ("XFAIL tests/test_a.py::test_x - known", "tests/test_a.py::test_x", PASSED),
        ("SKIPPED tests/test_a.py::test_x", "tests/test_a.py::test_x", MISSING),
        ("test_x (app.tests.T) ... ok", "test_x (app.tests.T)", PASSED),
        ("test_x (app.tests.T) ... FAIL", "test_x (app.tests.T)", FAILED),
        ("test_x (app.tests.T) ... skipped 'no db'", "test_x (app.tests.T)", MISSING),
        ("--- PASS: TestX (0.00s)", "TestX", PASSED),
        ("    --- FAIL: TestX/with_y (0.00s)", "TestX/with_y", FAILED),
        ("test shop::tests::adds ... ok", "shop::tests::adds", PASSED),
        ("test shop::tests::adds ... FAILED", "shop::tests::adds", FAILED),
        ("ok 1 - adds up", "adds up", PASSED),
        ("not ok 2 - adds up", "adds up", FAILED),
        ("  ✓ adds up (3 ms)", "adds up", PASSED),
        ("  ✕ adds up", "adds up", FAILED),
    ],
)
def test_the_lines_of_each_runner_are_read(line: str, name: str, status: TestStatus) -> None:
    assert statuses(f"noise\n{line}\nmore") == {name: status}


def test_a_test_with_two_ends_has_failed_and_words_outside_do_not_count() -> None:
    assert statuses("PASSED a::b\nFAILED a::b - x\nPASSED a::b") == {"a::b": FAILED}
    assert statuses(f"PASSED a::before\n{BEGIN}PASSED a::b{END}PASSED a::after\n") == {"a::b": PASSED}


TESTS = RepositoryTests(fail_to_pass=("t::a",), pass_to_pass=("t::b",))


@pytest.mark.parametrize(
    ("log", "cause", "outcome"),
    [
        (f"{BEGIN}PASSED t::a\nPASSED t::b{END}", Cause.FINISHED, Outcome.PASSED),
        (f"{BEGIN}PASSED t::a{END}", Cause.FINISHED, Outcome.FAILED),
        (f"{BEGIN}PASSED t::a\nFAILED t::b - no{END}", Cause.FINISHED, Outcome.FAILED),
        (f"{BEGIN}PASSED t::a\nPASSED t::b\n", Cause.FINISHED, Outcome.CRASHED),
        ("cp: no such folder", Cause.FINISHED, Outcome.CRASHED),
        (f"{BEGIN}PASSED t::a\nPASSED t::b\n", Cause.TIMEOUT, Outcome.TIMEOUT),
        (f"{BEGIN}", Cause.OUT_OF_MEMORY, Outcome.OUT_OF_MEMORY),
    ],
)
def test_only_all_tests_held_and_ended_is_a_pass(log: str, cause: Cause, outcome: Outcome) -> None:
    assert judge_log(log, TESTS, cause)[0] is outcome


@given(st.text(max_size=200))
def test_any_log_is_read(log: str) -> None:
    assert judge_log(log, TESTS, Cause.FINISHED)[0] in (Outcome.CRASHED, Outcome.FAILED)
    statuses(log)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A client that runs what follows the image here, in a folder of this machine; gives the image's repository."""
    client = tmp_path / "bin" / "docker"
    client.parent.mkdir()
    client.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "if sys.argv[1] == 'rm': sys.exit(0)\n"
        "command = sys.argv[sys.argv.index('stand-in') + 1:]\n"
        "os.execv(sys.executable, [sys.executable, *command[1:]])\n"
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}:/usr/bin:/bin")
    monkeypatch.setattr("code_repair_rl.sandbox.containers.JOB_FOLDER", str(tmp_path / "job"))
    monkeypatch.setattr("code_repair_rl.sandbox.containers._PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    repository = tmp_path / "testbed"
    repository.mkdir()
    (repository / "solution.py").write_text("def add(a, b):\n    return a - b\n")
    (repository / "test_add.py").write_text("def test_old():\n    pass\n")
    return repository


def _task(repository: Path, command: str | None = None) -> Task:
    test = "from solution import add\n\n\ndef test_new():\n    assert add(2, 2) == 4\n\n\ndef test_old():\n    pass\n"
    return addition().model_copy(
        update={
            "files": {path.name: path.read_text() for path in repository.iterdir()},
            "tests": RepositoryTests(
                fail_to_pass=("test_add.py::test_new",),
                pass_to_pass=("test_add.py::test_old",),
                test_files={"test_add.py": test},
                environment=Environment(image="stand-in", folder=str(repository), command=command),
            ),
        }
    )


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
def test_an_answer_is_tested_in_a_copy_of_the_images_repository(stand_in: Path) -> None:
    # The stand-in's client brings no packages of its own: this environment's pytest, by its path.
    task = _task(stand_in, f"{sys.executable} -m pytest -rA -p no:cacheprovider test_add.py")
    with Grader(workers=1) as grader:
        good = grader.grade(task, oracle_answer(task))
        bad = grader.grade_files(task, task.files)
    assert good.passed, good
    assert good.isolation == "docker"
    assert bad.outcome is Outcome.FAILED
    assert [test.status.value for test in bad.tests] == ["failed", "passed"]
    assert (stand_in / "solution.py").read_text().endswith("a - b\n")


def test_other_languages_run_through_their_own_command(stand_in: Path) -> None:
    task = _task(stand_in, "grep -q 'a + b' solution.py && echo 'ok 1 - adds' || echo 'not ok 1 - adds'")
    assert isinstance(task.tests, RepositoryTests)
    tests = task.tests.model_copy(update={"fail_to_pass": ("adds",), "pass_to_pass": (), "test_files": {}})
    task = task.model_copy(update={"tests": tests})
    with Grader(workers=1) as grader:
        assert grader.grade(task, oracle_answer(task)).passed
        assert grader.grade_files(task, task.files).outcome is Outcome.FAILED


def test_without_an_engine_the_mend_is_told(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        Grader(workers=1) as grader,
        pytest.raises(BadInput, match=r"needs? the image stand-in.*\n.*--environment here"),
    ):
        grader.grade_files(_task(stand_in), _task(stand_in).files)


def test_an_image_without_the_repository_gives_no_verdict(stand_in: Path) -> None:
    task = _task(stand_in, "true")
    shutil.rmtree(stand_in)
    with Grader(workers=1) as grader:
        verdict = grader.grade_files(task, task.files)
    assert verdict.outcome is Outcome.NO_VERDICT and "could not be copied" in verdict.evidence[0]


def test_an_engine_that_fails_gives_no_verdict(stand_in: Path) -> None:
    (stand_in.parent / "bin" / "docker").write_text("#!/bin/sh\necho 'no such image' >&2\nexit 125\n")
    with Grader(workers=1) as grader:
        verdict = grader.grade_files(_task(stand_in), _task(stand_in).files)
    assert verdict.outcome is Outcome.NO_VERDICT
    assert "no such image" in verdict.evidence[0]
