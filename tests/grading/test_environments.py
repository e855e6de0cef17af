"""What a lock file pins is installed once, and repository tests then see it; nothing is fetched while grading."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.grading import Grader
from code_repair_rl.grading.environments import install_locked, locked_packages
from code_repair_rl.tasks import Environment, RepositoryTests, Task, oracle_answer
from tests.tasks.examples import addition


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "home"))


@pytest.fixture
def lock(tmp_path: Path) -> str:
    """A lock file that pins one package, written for the test."""
    wheel = tmp_path / "forty_two-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("forty_two.py", "VALUE = 42\n")
        packed.writestr("forty_two-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: forty-two\nVersion: 1.0\n")
        packed.writestr("forty_two-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        packed.writestr("forty_two-1.0.dist-info/RECORD", "")
    return f"forty-two @ {wheel.as_uri()}\n"


def _task(lock: str) -> Task:
    test = "import forty_two\nfrom solution import add\n\n\ndef test_add():\n    assert add(40, 2) == forty_two.VALUE\n"
    tests = RepositoryTests(
        fail_to_pass=("test_add.py::test_add",),
        test_files={"test_add.py": test},
        environment=Environment(lock=lock),
    )
    return addition().model_copy(update={"tests": tests})


def test_tests_see_what_is_pinned_once_it_is_installed(lock: str) -> None:
    task = _task(lock)
    with Grader(workers=1) as grader:
        with pytest.raises(BadInput, match=r"addition/0: .*not installed on this machine"):
            grader.grade_files(task, task.files)
        folder = install_locked(lock)
        assert install_locked(lock) == folder
        assert (Path(locked_packages(lock, "here")) / "forty_two.py").is_file()
        good = grader.grade(task, oracle_answer(task))
        assert good.passed, good
        assert not grader.grade_files(task, task.files).passed


def test_what_cannot_be_installed_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MachineryFailed, match="pip could not install"):
        install_locked(f"absent @ {(tmp_path / 'absent-1.0-py3-none-any.whl').as_uri()}\n")
    assert not list((tmp_path / "home" / "environments").iterdir())
