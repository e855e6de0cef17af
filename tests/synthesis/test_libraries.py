"""Bugs in a library, with its own suite as judge: a small library written for the test, in the real sandbox."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.grading import Grader
from code_repair_rl.packages import sha256_of
from code_repair_rl.sandbox import select_backend
from code_repair_rl.synthesis import validate
from code_repair_rl.synthesis.libraries import Library, files_in, library_bugs
from code_repair_rl.tasks import RepositoryTests, StoredTree, Task, read_tasks, write_tasks

FILES = {
    "small/__init__.py": "from small.numbers import clamp, evens\n",
    "small/numbers.py": (
        "def clamp(x, low, high):\n    if x < low:\n        return low\n"
        "    if x > high:\n        return high\n    return x\n\n\n"
        "def evens(xs):\n    return [x for x in xs if x % 2 == 0]\n\n\ndef untested(a):\n    return a + 1\n"
    ),
    "tests/test_numbers.py": (
        "import pytest\nfrom small import clamp, evens\n\n\n"
        "@pytest.mark.parametrize('x, expected', [(0, 1), (1, 1), (2, 2), (3, 3), (9, 3)])\n"
        "def test_clamp(x, expected):\n    assert clamp(x, 1, 3) == expected\n\n\n"
        "def test_evens():\n    assert evens([1, 2, 3, 4]) == [2, 4]\n\n\n"
        "def test_that_fails_anyway():\n    assert clamp(1, 2, 3) == 7\n"
    ),
    "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '--strict-markers'\n",
    "docs/index.rst": "left out\n",
    "small.egg-info/PKG-INFO": "left out\n",
}


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "packages" / "small-1.0"
    folder.mkdir(parents=True)
    archive = folder / "small-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path, text in {**FILES, "binary.dat": "\udcff"}.items():
            data = text.encode(errors="surrogateescape")
            member = tarfile.TarInfo(f"small-1.0/{path}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return Library("small", "1.0", sha256_of(archive), "MIT", "small/", ("tests",))


def built(library: Library) -> list[Task]:
    return library_bugs([library], select_backend(), seed=1, limit=None, workers=1)[0]


def test_every_bug_is_caught_by_the_suite_and_undone_by_the_oracle(library: Library, tmp_path: Path) -> None:
    tasks = built(library)
    assert len(tasks) >= 4
    with Grader(workers=1) as grader:
        kept, bad = validate(tasks, grader)
    assert (kept, bad) == (tasks, [])
    assert {task.problem for task in tasks} == {"small/small/numbers.py::clamp", "small/small/numbers.py::evens"}
    for task in tasks:
        tests = task.tests
        assert isinstance(tests, RepositoryTests)
        assert tests.fail_to_pass
        assert "tests/test_numbers.py::test_that_fails_anyway" not in tests.fail_to_pass + tests.pass_to_pass
        assert isinstance(task.files, StoredTree)
        assert list(task.files.overlay) == ["small/numbers.py"]
        assert task.files_after_oracle()["small/numbers.py"] == FILES["small/numbers.py"]
        assert "docs/index.rst" not in task.files
        for line in (*task.hints.exact_lines, *task.hints.suspicious_lines):
            assert task.files[line.path].splitlines()[line.number - 1] == line.text
    write_tasks(tmp_path / "tasks.jsonl", tasks)
    assert list(read_tasks(tmp_path / "tasks.jsonl")) == tasks
    assert [task.task_id for task in built(library)] == [task.task_id for task in tasks]


def test_what_is_no_source_distribution_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(b"no archive")
    with pytest.raises(BadInput, match=r"x\.tar\.gz: this is no source distribution"):
        files_in(path)


def test_a_source_distribution_is_read_as_text_without_documentation(library: Library, tmp_path: Path) -> None:
    files = files_in(tmp_path / "home" / "packages" / "small-1.0" / "small-1.0.tar.gz")
    assert set(files) == {"small/__init__.py", "small/numbers.py", "tests/test_numbers.py", "pyproject.toml"}
