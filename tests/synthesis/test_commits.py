"""Fixes are mined from a repository's commits: only those whose own tests tell the old code from the new."""

from __future__ import annotations

from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.grading import Grader
from code_repair_rl.sandbox import select_backend
from code_repair_rl.synthesis.commits import candidate, commit_tasks
from code_repair_rl.synthesis.sourced import SourceOptions, build_from
from code_repair_rl.tasks import RepositoryTests, load_tasks, oracle_answer
from tests.tasks.repositories_for_tests import AFTER, BEFORE, commit, git

TESTS = AFTER["tests/test_price.py"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of one useful fix among commits of every other sort."""
    folder = tmp_path_factory.mktemp("repositories") / "shop"
    commit(folder, BEFORE, "Sell")
    commit(folder, {"README.md": "A shop.\n", "tests/data.txt": "1\n"}, "Tell about it")
    commit(folder, AFTER, "Charge for the bag\n\nIt was given away.\n\nSigned-off-by: A <a@example.org>")
    commit(
        folder,
        {
            "tests/test_price.py": TESTS + "\n\ndef test_name_again():\n    assert name()\n",
            "shop/price.py": AFTER["shop/price.py"].replace("'shop'", '"shop"'),
        },
        "Quote",
    )
    many = {f"shop/m{number}.py": "x = 1\n" for number in range(6)}
    commit(folder, {**many, "tests/test_price.py": TESTS}, "Add much")
    commit(
        folder, {"shop/needs.py": "import absent_everywhere\n", "tests/test_needs.py": "import shop.needs\n"}, "Need"
    )
    commit(folder, {"tests/test_needs.py": None, "shop/needs.py": None}, "Need nothing")
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "home"))


def test_the_fix_becomes_a_task_that_grading_agrees_with(shop: Path, tmp_path: Path) -> None:
    report = build_from("commits", str(shop), SourceOptions())
    (task,) = load_tasks("commits")
    reasons = set(report.unusable.values())
    assert reasons == {
        "it only takes tests away",
        "none of its tests passes with the fix: is what it needs installed?",
        "it changes many source files",
        "its tests pass without the fix",
    }
    assert report.quarantined == {}
    assert isinstance(task.tests, RepositoryTests)
    assert task.tests.fail_to_pass == ("tests/test_price.py::test_price",)
    assert task.tests.pass_to_pass == ("tests/test_price.py::test_name",)
    assert task.oracle == {"shop/price.py": AFTER["shop/price.py"]}
    assert task.licence == "MIT"
    assert task.description == (
        "Charge for the bag\n\nIt was given away.\n\nThese tests fail:\n- tests/test_price.py::test_price"
    )
    assert task.files["tests/test_price.py"] == BEFORE["tests/test_price.py"]
    assert not any(path.startswith(".git") for path in task.files)
    assert [line.text for line in task.hints.exact_lines] == ["    return count * 3 - 1"]
    # The old module cannot even be imported by the new tests here: what fails executes the faulty line.
    assert task.hints.exact_lines[0] in task.hints.suspicious_lines
    with Grader(workers=1) as grader:
        assert grader.grade(task, oracle_answer(task)).passed
        assert not grader.grade_files(task, task.files).passed


def test_what_was_run_is_not_run_again(shop: Path) -> None:
    sandbox = select_backend("auto")
    first, _ = commit_tasks(shop, sandbox, limit=1)

    class Refusing:
        name, isolation = sandbox.name, sandbox.isolation

        def run(self, job: object) -> object:
            raise AssertionError("it was run before")

    again, _ = commit_tasks(shop, Refusing(), limit=1)  # type: ignore[arg-type]
    assert again == first


def test_large_changes_are_no_candidates(tmp_path: Path) -> None:
    folder = tmp_path / "large"
    first = commit(folder, BEFORE, "Sell")
    text = "".join(f"x{number} = {number}\n" for number in range(300))
    large = commit(folder, {"shop/price.py": text, "tests/test_price.py": TESTS}, "Rewrite")
    assert candidate(folder, large, first) == "it changes many lines of source"
    only_source = commit(folder, {"shop/price.py": "x = 1\n"}, "Shorten")
    assert candidate(folder, only_source, large) is None
    modules = {f"tests/test_{number}.py": "def test(): pass\n" for number in range(9)}
    assert candidate(folder, commit(folder, {**modules, "shop/price.py": "x = 2\n"}, "Test"), only_source) == (
        "it changes many test modules"
    )


def test_what_is_no_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="this is no git repository"):
        commit_tasks(tmp_path, select_backend("auto"))
    git(tmp_path, "init", "--quiet")
    with pytest.raises(BadInput, match="git rev-list"):
        commit_tasks(tmp_path, select_backend("auto"))
