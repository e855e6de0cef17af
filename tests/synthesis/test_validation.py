"""Validation: what is found is kept, what is flaky is found, and a named test that ends otherwise is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from code_repair_rl.grading import Grader
from code_repair_rl.synthesis import validate
from code_repair_rl.synthesis.journal import Journal
from code_repair_rl.tasks import Kind, Origin, RepositoryTests, Split, Task

WHOLE = "def double(x):\n    return 2 * x\n"
FAULTY = "def double(x):\n    return 3 * x\n"
TESTS = (
    "from code import double\nimport os\nimport pytest\n\nseen = []\n\n\n"
    "def test_one():\n    seen.append(1)\n    assert double(1) == 2\n\n\n"
    "def test_zero():\n    assert double(0) == 0\n\n\n"
    "def test_that_needs_the_first():\n    assert seen\n\n\n"
    "@pytest.mark.skip\ndef test_that_never_runs():\n    assert False\n\n\n"
    "def test_of_its_luck():\n    assert double(1) == 2 or os.urandom(1)[0] < 128\n"
)
ONE, ZERO = "tests/test_code.py::test_one", "tests/test_code.py::test_zero"


def repair(name: str, fail_to_pass: tuple[str, ...], pass_to_pass: tuple[str, ...] = ()) -> Task:
    # Not called code.py: the standard library has one.
    files = {"small.py": FAULTY, "tests/test_code.py": TESTS.replace("from code", "from small")}
    return Task(
        task_id=name,
        kind=Kind.REPAIR,
        files=files,
        description="double",
        oracle={"small.py": WHOLE},
        tests=RepositoryTests(fail_to_pass=fail_to_pass, pass_to_pass=pass_to_pass),
        split=Split.TRAIN,
        problem=name,
        origin=Origin(source="a test"),
        licence="MIT",
    )


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1) as one:
        yield one


def reasons(tasks: list[Task], grader: Grader, **options: object) -> dict[str, str]:
    return {item.task.task_id: item.reason for item in validate(tasks, grader, **options)[1]}  # type: ignore[arg-type]


def test_a_task_holds_only_if_just_the_named_tests_fail(grader: Grader) -> None:
    found = reasons(
        [
            repair("good", (ONE,), (ZERO,)),
            repair("one too many", (ONE, ZERO)),
            repair("the other way round", (ZERO,), (ONE,)),
        ],
        grader,
    )
    assert found == {
        "one too many": f"a fail-to-pass test ends otherwise on the unchanged code ({ZERO})",
        "the other way round": f"a fail-to-pass test ends otherwise on the unchanged code ({ZERO})",
    }


def test_repeating_finds_what_depends_on_luck_and_on_order(grader: Grader) -> None:
    luck = repair("luck", (ONE, "tests/test_code.py::test_of_its_luck"))
    order = repair("order", (ONE,), ("tests/test_code.py::test_that_needs_the_first",))
    found = reasons([luck, order, repair("good", (ONE,), (ZERO,))], grader, repeat=12)
    assert set(found) == {"luck", "order"}


def test_what_the_journal_holds_is_not_graded_again(
    grader: Grader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [repair("good", (ONE,)), repair("bad", (ZERO,))]
    journal = Journal(tmp_path / "journal.jsonl")
    first = reasons(tasks, grader, journal=journal)
    assert set(first) == {"bad"}
    monkeypatch.setattr(Grader, "grade_files", lambda *_: pytest.fail("graded again"))
    assert reasons(tasks, grader, journal=Journal(journal.path)) == first


def test_a_test_that_never_runs_where_answers_are_graded_is_found_all_the_same(grader: Grader) -> None:
    one = repair("never", (ONE, "tests/test_code.py::test_that_never_runs"))
    assert "known-good answer does not pass" in reasons([one], grader)["never"]
