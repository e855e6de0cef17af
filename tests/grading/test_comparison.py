"""Without tests, only the known-good answer passes; everything else is untested, unchanged or refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from code_repair_rl.edits import diff
from code_repair_rl.grading import Grader, Outcome
from code_repair_rl.tasks import Kind, Origin, Split, Task, oracle_answer

FILES = {"a.py": "def f(x):\n    # MASKED\n    pass\n", "b.txt": "one\n"}
GOOD = {"a.py": "def f(x):\n    return x\n", "b.txt": "two\n"}


def _task(files: Mapping[str, str] = FILES, oracle: Mapping[str, str | None] = GOOD) -> Task:
    return Task(
        task_id="t",
        kind=Kind.IMPLEMENT,
        files=files,
        description="",
        oracle=oracle,
        split=Split.TRAIN,
        problem="t",
        origin=Origin(source="test"),
        licence="CC0-1.0",
    )


def _outcome(after: Mapping[str, str]) -> Outcome:
    with Grader(workers=1) as grader:
        return grader.grade(_task(), str(diff(FILES, after))).outcome


def test_the_known_good_answer_passes_and_doing_nothing_does_not() -> None:
    with Grader(workers=1) as grader:
        verdict = grader.grade(_task(), oracle_answer(_task()))
        assert verdict.passed
        assert verdict.isolation == "none"
        assert grader.grade(_task(), "*** Empty Patch\n").outcome is Outcome.UNCHANGED
        assert grader.grade(_task(), "I do not know").outcome is Outcome.EDIT_REJECTED
        assert grader.grade_files(_task(), FILES).outcome is Outcome.UNCHANGED


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({"a.py": "def f(x):  # it\n\n    return (x)\n"}, Outcome.PASSED),
        ({"a.py": "def f(y):\n    return y\n"}, Outcome.UNTESTED),
        ({"a.py": "def f(x:\n"}, Outcome.UNTESTED),
        ({"b.txt": "two \n"}, Outcome.UNTESTED),
        ({"c.py": "x = 1\n"}, Outcome.UNTESTED),
    ],
)
def test_python_is_compared_by_syntax_and_everything_else_by_text(changed: dict[str, str], outcome: Outcome) -> None:
    assert _outcome({**GOOD, **changed}) is outcome


def test_a_deleted_file_has_to_be_deleted() -> None:
    task = _task(oracle={"b.txt": None})
    with Grader(workers=1) as grader:
        assert grader.grade(task, str(diff(FILES, {"a.py": FILES["a.py"]}))).passed
        kept = grader.grade(task, str(diff(FILES, {**FILES, "b.txt": ""})))
        assert kept.outcome is Outcome.UNTESTED
        assert kept.score == 0.0
