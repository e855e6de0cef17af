"""Fixes of a release taken back one by one: two releases of a small library, in the real sandbox."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from code_repair_rl.grading import Grader
from code_repair_rl.packages import sha256_of
from code_repair_rl.sandbox import select_backend
from code_repair_rl.synthesis import validate
from code_repair_rl.synthesis.library import Library
from code_repair_rl.synthesis.release_pins import CHAINS
from code_repair_rl.synthesis.releases import chain, release_tasks, with_common_problems
from code_repair_rl.tasks import RepositoryTests, StoredTree, Task

OLD = {
    "small.py": (
        "def clamp(x, low, high):\n    return min(x, high)\n\n\n"
        "def join(words):\n    return ''.join(words)\n\n\n"
        "def spread(n):\n    return _wide(n)\n\n\ndef _wide(n):\n    return n\n\n\n"
        "def kept(x):\n    return x\n\n\n"
        "def endless():\n    while True:\n        pass\n"
    ),
    "tests/test_small.py": "from small import kept\n\n\ndef test_kept():\n    assert kept(1) == 1\n",
}
NEW = {
    "small.py": (
        "def clamp(x, low, high):\n    return max(low, min(x, high))\n\n\n"
        "def join(words):\n    return ' '.join(words)\n\n\n"
        "def spread(n):\n    return _wide(n, 2)\n\n\ndef _wide(n, times):\n    return n * times\n\n\n"
        "def kept(x):\n    y = x\n    return y\n\n\n"
        "def endless():\n    return 1\n"
    ),
    "tests/test_small.py": (
        "from small import clamp, join, kept, spread\n\n\ndef test_kept():\n    assert kept(1) == 1\n\n\n"
        "def test_clamp():\n    assert clamp(0, 1, 3) == 1\n\n\n"
        "def test_clamp_above():\n    assert clamp(9, 1, 3) == 3\n\n\n"
        "def test_join():\n    assert join(['a', 'b']) == 'a b'\n\n\ndef test_spread():\n    assert spread(2) == 4\n"
    ),
    "tests/test_endless.py": "from small import endless\n\n\ndef test_endless():\n    assert endless() == 1\n",
    "CHANGELOG.md": "# Log\n\n## 1.1\n\n- `join` puts spaces between words\n\n## 1.0\n\n- first\n",
}


def archive_of(home: Path, version: str, files: Mapping[str, str]) -> str:
    folder = home / "packages" / f"small-{version}"
    folder.mkdir(parents=True)
    archive = folder / f"small-{version}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path, text in files.items():
            member = tarfile.TarInfo(f"small-{version}/{path}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return sha256_of(archive)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Task]]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("CRRL_HOME", str(home))
        template = Library("small", "", "", "MIT", "small.py", ("tests",))
        releases = [("1.0", archive_of(home, "1.0", OLD)), ("1.1", archive_of(home, "1.1", NEW))]
        patch.setattr("code_repair_rl.synthesis.releases._MODULE_SECONDS", 1.0)
        patch.setattr("code_repair_rl.synthesis.releases._RUN_SECONDS", 1.0)
        yield release_tasks([chain(template, releases)], select_backend(), limit=None, workers=1)[0]


def test_every_fix_of_its_own_makes_a_task_that_holds(tasks: list[Task]) -> None:
    units = {task.problem: task for task in tasks}
    assert set(units) == {
        "small/small.py::clamp",
        "small/small.py::join",
        "small/small.py::spread+small/small.py::_wide",
    }
    with Grader(workers=1) as grader:
        assert validate(tasks, grader, repeat=2) == (tasks, [])
    for task in tasks:
        tests = task.tests
        assert isinstance(tests, RepositoryTests)
        assert len(tests.fail_to_pass) == 1
        assert "tests/test_small.py::test_kept" in tests.pass_to_pass
        assert task.oracle == {"small.py": NEW["small.py"]}
        assert isinstance(task.files, StoredTree)
        assert task.files["small.py"] not in (OLD["small.py"], NEW["small.py"])


def test_the_change_log_is_told_where_it_names_the_function_and_is_not_in_the_tree(tasks: list[Task]) -> None:
    told = {task.problem.rpartition("::")[2]: task.description for task in tasks}
    assert told["join"].startswith("From the change log of small: `join` puts spaces between words\n\nThese tests")
    assert told["clamp"].startswith("These tests of small fail:\n- tests/test_small.py::test_clamp")
    assert all("CHANGELOG.md" not in task.files for task in tasks)


def test_what_one_task_asks_for_does_not_stand_in_the_code_of_another_split(tasks: list[Task]) -> None:
    """A function that is mended in two releases, once together with others."""
    clamp, join, spread = sorted(tasks, key=lambda task: task.problem)
    both = [unit for task in (join, spread) for unit in task.origin.detail["units"]]
    later = spread.model_copy(
        update={"task_id": "later", "origin": spread.origin.model_copy(update={"detail": {"units": both}})}
    )
    found = with_common_problems([clamp, later, spread, join])
    assert [task.problem for task in found] == [clamp.problem, *[join.problem] * 3]
    assert [task.split for task in found] == [clamp.split, *[join.split] * 3]
    assert with_common_problems(tasks) == tasks


def test_pinned_chains_are_of_one_library_each() -> None:
    assert len(CHAINS) >= 4
    for releases in CHAINS:
        assert len(releases) >= 2
        assert len({release.name for release in releases}) == 1
        assert len({release.sha256 for release in releases}) == len(releases)
        assert all(len(release.sha256) == 64 for release in releases)
