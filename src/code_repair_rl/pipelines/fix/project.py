"""A user's project in the sandbox: a copy of its folder, in which a test command runs for one version of some files."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.sandbox import PYTEST, Cause, Job, JobResult, Limits

if TYPE_CHECKING:
    from code_repair_rl.sandbox import Sandbox

_LEFT_OUT = {".git", ".hg", ".svn", "node_modules", "__pycache__", ".tox", ".nox", ".mypy_cache", ".ruff_cache"}
_LEFT_OUT |= {".pytest_cache", ".hypothesis", ".crrl"}
_MOST_BYTES = 256 * 2**20
"""Half of what the sandbox gives a job to write into."""
_TRACE_FOLDER = ".crrl"
_TRACER = '''\
"""Writes down which lines of some files are executed; removed with the jail."""
import os, sys, threading
_folder, _paths = os.path.dirname(os.path.abspath(__file__)), set({paths!r})
_root = os.path.dirname(_folder)
_out = os.open(os.path.join(_folder, "lines-%d" % os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
_seen, _local = set(), {{}}
def _lines_of(path):
    def trace(frame, event, argument):
        if event == "line" and (path, frame.f_lineno) not in _seen:
            _seen.add((path, frame.f_lineno))
            os.write(_out, ("%d %s\\n" % (frame.f_lineno, path)).encode())
        return trace
    return trace
def _trace(frame, event, argument):
    name = frame.f_code.co_filename
    if name not in _local:
        path = os.path.relpath(os.path.abspath(name), _root)
        _local[name] = _lines_of(path) if path in _paths else None
    return _local[name]
sys.settrace(_trace)
threading.settrace(_trace)
'''


@dataclass(frozen=True, slots=True)
class Project:
    """A copy of a project's folder and the way to run a command in it. Make one with `copied_project`."""

    folder: str
    """The copy, on this machine."""
    command: str
    """Run by `sh -c`, in the project's folder."""
    sandbox: Sandbox
    mounts: Mapping[str, str]
    """Python installations that the command needs, path in the jail to path here."""
    bin_folders: tuple[str, ...]
    """Put in front of `PATH`."""

    def run(self, changed: Mapping[str, str], *, wall_seconds: float, trace: tuple[str, ...] = ()) -> JobResult:
        """Run the command on the copy with `changed` (path to text) laid over it.

        Args:
            changed: whole new texts; nothing of this machine is touched.
            wall_seconds: after which the command is ended.
            trace: paths of Python files whose executed lines are to be written down; see `executed_lines`.

        Raises:
            MachineryFailed: the sandbox itself failed, twice.
        """
        files: dict[str, bytes | str] = dict(changed)
        roots = ["$PWD", "$PWD/src"]
        if trace:
            files[f"{_TRACE_FOLDER}/sitecustomize.py"] = _TRACER.format(paths=trace)
            roots.insert(0, f"$PWD/{_TRACE_FOLDER}")
        folders = "".join(f"{folder}:" for folder in self.bin_folders)
        settings = f'export PATH="{folders}$PATH" PYTHONPATH="{":".join(roots)}"'
        job = Job(
            argv=("/bin/sh", "-c", f"{settings}\n{self.command}"),
            files=files,
            trees={".": self.folder},
            read_only=self.mounts,
            collect=(_TRACE_FOLDER,) if trace else (),
            limits=_limits(wall_seconds),
        )
        result = self.sandbox.run(job)
        if result.cause is Cause.INFRASTRUCTURE:
            result = self.sandbox.run(job)
        if result.cause is Cause.INFRASTRUCTURE:
            raise MachineryFailed(
                f"the sandbox could not run the test command ({result.error})",
                where=self.command,
                mend="run `crrl doctor`: it tries the sandbox on its own",
            )
        return result


def executed_lines(result: JobResult) -> dict[str, frozenset[int]]:
    """Lines that a traced run executed, per path; empty where nothing could be traced (no Python, say)."""
    lines: dict[str, set[int]] = {}
    for name, content in result.files.items():
        if not name.startswith(f"{_TRACE_FOLDER}/lines-"):
            continue
        for row in content.decode(errors="replace").splitlines():
            number, _, path = row.partition(" ")
            if number.isdigit():
                lines.setdefault(path, set()).add(int(number))
    return {path: frozenset(numbers) for path, numbers in lines.items()}


@contextmanager
def copied_project(root: Path, command: str, sandbox: Sandbox, python: Path | None = None) -> Iterator[Project]:
    """Copy `root` without what tests do not need (version control, virtual environments, caches) for the block's time.

    Args:
        root: the project's folder.
        command: what decides whether it works.
        sandbox: where to run it.
        python: the interpreter whose environment the command is to find; by default this one.

    Raises:
        BadInput: no such folder, too large, not to be read, or not a Python interpreter.
    """
    if not root.is_dir():
        raise BadInput("no such folder", where=str(root), mend="name the project's folder with --root")
    try:
        _require_small(root)
    except OSError as error:
        raise _unreadable(error.filename or root, error.strerror) from error
    mounts, folders = _python_environment(python or Path(sys.executable))
    with TemporaryDirectory(prefix="crrl-fix-") as scratch:
        copy = Path(scratch) / "project"
        try:
            shutil.copytree(root, copy, symlinks=True, ignore=_left_out, ignore_dangling_symlinks=True)
        except shutil.Error as error:
            source, _, why = error.args[0][0]
            raise _unreadable(source, why) from error
        yield Project(str(copy), command, sandbox, mounts, folders)


def _unreadable(path: Path | str, why: str | None) -> BadInput:
    mend = "make it readable, or name a folder without it with --root"
    return BadInput(f"the project cannot be copied ({why})", where=str(path), mend=mend)


def _limits(wall_seconds: float) -> Limits:
    return dataclasses.replace(PYTEST, wall_seconds=wall_seconds, cpu_seconds=max(1, round(wall_seconds) * 2))


def _left_out(folder: str, names: list[str]) -> set[str]:
    """Names in a folder that are not copied; what is neither file, folder nor link cannot be."""
    out = set()
    for name in names:
        path = Path(folder, name)
        environment = path.is_dir() and (path / "pyvenv.cfg").is_file()
        run = path.is_dir() and all((path / part).is_file() for part in ("recipe.yaml", "environment.json"))
        special = not (path.is_symlink() or path.is_dir() or path.is_file())
        if name in _LEFT_OUT or environment or run or special:
            out.add(name)
    return out


def _require_small(root: Path) -> None:
    total = 0
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        entries = {path.name: path for path in folder.iterdir()}
        for name in set(entries) - _left_out(str(folder), list(entries)):
            path = entries[name]
            if path.is_symlink():
                continue
            if path.is_dir():
                waiting.append(path)
            else:
                total += path.stat().st_size
        if total > _MOST_BYTES:
            raise BadInput(
                f"the project's folder holds more than {_MOST_BYTES // 2**20} MiB, and it is copied for every test run",
                where=str(root),
                mend="name a smaller folder that still holds the files and their tests with --root",
            )


_ASK_PYTHON = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, sys.executable]))"


def _python_environment(python: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """What to mount so that a Python installation, a virtual environment included, works in the jail as here."""
    try:
        # Isolated and without site: nothing of the project is imported outside of the sandbox to find this out.
        asked = subprocess.run([str(python), "-I", "-c", _ASK_PYTHON], capture_output=True, text=True, timeout=60)
        prefix, base, executable = (str(part) for part in json.loads(asked.stdout))
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise BadInput(
            f"this is not a Python that runs ({error})", where=str(python), mend="name one with --python"
        ) from error
    mounts = {path: path for path in (prefix, base) if not path.startswith("/usr") and path != "/"}
    return mounts, tuple(dict.fromkeys((str(Path(prefix) / "bin"), str(Path(executable).parent))))
