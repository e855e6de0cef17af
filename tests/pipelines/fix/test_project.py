"""A project is copied, and its command runs in the sandbox only: with its environment, and with its lines traced."""

import errno
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.pipelines.fix import copied_project, executed_lines
from code_repair_rl.sandbox import Cause, select_backend

FILES = {
    "pkg/__init__.py": "",
    "pkg/code.py": "def sign(x):\n    if x < 0:\n        return -1\n    return 1\n",
    "test_code.py": "from pkg.code import sign\n\ndef test_sign():\n    assert sign(2) == 1\n",
    "run.sh": "#!/bin/sh\nexec python -c 'from pkg.code import sign; print(sign(-4))'\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "a project"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "run.sh").chmod(0o755)
    return folder


def test_a_command_finds_the_environment_it_is_run_from_and_the_project(root: Path) -> None:
    with copied_project(root, "pytest -q test_code.py && ./run.sh", select_backend()) as project:
        result = project.run({}, wall_seconds=60)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith(b"-1\n")


def test_changed_texts_are_laid_over_the_copy_and_touch_nothing_here(root: Path) -> None:
    with copied_project(root, "python -m pytest -q", select_backend()) as project:
        result = project.run({"pkg/code.py": "def sign(x):\n    return 0\n"}, wall_seconds=60)
        assert result.exit_code == 1
        assert project.run({}, wall_seconds=60).exit_code == 0
    assert {name: (root / name).read_text() for name in FILES} == FILES


def test_a_src_folder_is_importable(tmp_path: Path) -> None:
    (tmp_path / "src" / "mine").mkdir(parents=True)
    (tmp_path / "src" / "mine" / "__init__.py").write_text("x = 1\n")
    with copied_project(tmp_path, "python -c 'import mine; print(mine.x)'", select_backend()) as project:
        assert project.run({}, wall_seconds=60).stdout == b"1\n"


def test_the_command_cannot_write_to_the_project_or_see_the_users_environment(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "hunter2")
    command = f"env; echo spoilt > '{root}/test_code.py'; echo spoilt > test_code.py"
    with copied_project(root, command, select_backend()) as project:
        result = project.run({}, wall_seconds=60)
    assert b"hunter2" not in result.stdout
    assert {name: (root / name).read_text() for name in FILES} == FILES


def test_the_executed_lines_of_named_files_are_known_even_after_a_kill(root: Path) -> None:
    (root / "test_code.py").write_text("from pkg.code import sign\nsign(2)\nimport os\nos._exit(1)\n")
    with copied_project(root, "python test_code.py", select_backend()) as project:
        result = project.run({}, wall_seconds=60, trace=("pkg/code.py",))
    assert result.exit_code == 1
    assert executed_lines(result) == {"pkg/code.py": frozenset({1, 2, 4})}


def test_lines_executed_in_threads_and_child_processes_count(root: Path) -> None:
    program = (
        "import subprocess, sys, threading\nfrom pkg.code import sign\n"
        "worker = threading.Thread(target=sign, args=(1,))\nworker.start()\nworker.join()\n"
        "subprocess.run([sys.executable, '-c', 'from pkg.code import sign; sign(-1)'], check=True)\n"
    )
    (root / "main.py").write_text(program)
    with copied_project(root, "python main.py", select_backend()) as project:
        result = project.run({}, wall_seconds=60, trace=("pkg/code.py",))
    assert executed_lines(result) == {"pkg/code.py": frozenset({1, 2, 3, 4})}


def test_a_command_without_python_has_no_executed_lines(root: Path) -> None:
    with copied_project(root, "false", select_backend()) as project:
        assert executed_lines(project.run({}, wall_seconds=60, trace=("pkg/code.py",))) == {}


def test_an_endless_command_is_ended(root: Path) -> None:
    with copied_project(root, "python -c 'while True: pass'", select_backend()) as project:
        assert project.run({}, wall_seconds=1).cause is Cause.TIMEOUT


def test_version_control_environments_and_caches_are_not_copied(root: Path) -> None:
    for name in (
        ".git/config",
        "env/pyvenv.cfg",
        "pkg/__pycache__/x.pyc",
        "runs/demo/recipe.yaml",
        "runs/demo/environment.json",
        "data/kept.txt",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "dangling").symlink_to("nowhere")
    with copied_project(root, "find . -type f -o -type l | sort", select_backend()) as project:
        found = project.run({}, wall_seconds=60).stdout.decode().split()
    assert found == ["./dangling", "./data/kept.txt", *(f"./{name}" for name in sorted(FILES))]


def test_a_project_too_large_to_copy_for_every_run_is_refused(root: Path) -> None:
    with (root / "large.bin").open("wb") as file:
        file.truncate(300 * 2**20)  # sparse: takes no room
    with pytest.raises(BadInput, match="256 MiB"), copied_project(root, "true", select_backend()):
        pass


def test_a_folder_that_cannot_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> Iterator[Path]:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(BadInput, match="Permission denied") as caught, copied_project(root, "true", select_backend()):
        pass
    assert caught.value.where == str(root)


def test_a_file_that_cannot_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, *arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", source)

    monkeypatch.setattr(shutil, "copyfile", refuse)
    with pytest.raises(BadInput, match="Permission denied") as caught, copied_project(root, "true", select_backend()):
        pass
    assert caught.value.where in {str(root / name) for name in FILES}


def test_something_that_is_no_python_is_refused_as_the_environment(root: Path) -> None:
    with pytest.raises(BadInput, match="--python"), copied_project(root, "true", select_backend(), Path("/bin/ls")):
        pass


def test_another_python_can_be_named(root: Path) -> None:
    base = Path(getattr(sys, "_base_executable", sys.executable))
    with copied_project(root, "python -c 'import sys; print(sys.prefix)'", select_backend(), base) as project:
        assert project.run({}, wall_seconds=60).stdout.decode().strip() == sys.base_prefix
