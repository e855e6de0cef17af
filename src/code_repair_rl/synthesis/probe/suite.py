"""The program inside the sandbox that runs a repository's own tests: under bugs, watched line by line, or shuffled.

The tree lies in `tree/`, what to do in `suite.json`; `findings.json` is written. Every run has a process of its own,
forked from one that has imported pytest and whatever else the suite needs, but nothing of the tree.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import py_compile
import random
import resource
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from .children import Send, in_child

_ARGUMENTS = (
    "-q",
    "-p",
    "no:cacheprovider",
    "--tb=no",
    "--no-header",
    "--no-summary",
    "--continue-on-collection-errors",
    "--assert=plain",  # nobody reads the messages, and rewriting costs more than most tests
)
_MOST_MEMORY_BYTES = 2 << 30
_STARTS_A_PROCESS = frozenset({"os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"})
"""Names of audit events."""
_COLLECT_SECONDS = 60.0


def main() -> None:
    """Read `suite.json`, write `findings.json`, both in the working folder.

    `suite.json` holds `source_roots`, `modules` (folders or files of tests) and `runs`, each with `files` (path to
    text, or null for a file that goes), `tests` (ids; null for all), `watch` (prefixes of source files whose executed
    lines are noted per test), `shuffle` (a seed, or null), `cpu_seconds` and `wall_seconds`.
    """
    home = Path.cwd()
    work = json.loads((home / "suite.json").read_text(encoding="utf-8"))
    root = home / "tree"
    os.chdir(root)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    roots = [os.path.normpath(root / part) for part in work["source_roots"]]
    sys.path[:0] = roots
    if len(work["runs"]) > 1:
        _compile(root)
        _import_what_others_need(root, work["modules"])
    found = [_of_run(run, root, work["modules"]) for run in work["runs"]]
    (home / "findings.json").write_text(json.dumps(found), encoding="utf-8")


def _compile(root: Path) -> None:
    """Once for all runs. Valid by content, not by time: bugs are written within one tick of the clock."""
    for path in sorted(root.rglob("*.py")):
        with contextlib.suppress(py_compile.PyCompileError, OSError, ValueError):
            py_compile.compile(
                str(path), doraise=True, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
            )


def _import_what_others_need(root: Path, modules: list[str]) -> None:
    """Import here, for all runs, what collecting the tests imports from outside the tree."""

    def collect(send: Send) -> None:
        pytest.main([*_ARGUMENTS, f"--rootdir={root}", "--collect-only", *modules])
        inside = str(root) + os.sep
        names = [name for name, module in sys.modules.items() if not _lies_in(module, inside)]
        send({"names": names})

    for name in in_child(collect, cpu_seconds=_COLLECT_SECONDS, wall_seconds=4 * _COLLECT_SECONDS).get("names", []):
        if name.partition(".")[0] not in ("__main__", "probe", "conftest"):
            with contextlib.suppress(BaseException):
                importlib.import_module(name)


def _lies_in(module: Any, folder: str) -> bool:
    places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or [])]
    return any(str(place).startswith(folder) for place in places if place)


def _of_run(run: dict[str, Any], root: Path, modules: list[str]) -> dict[str, Any]:
    """What a run found; empty where it did not end in time."""
    kept = {path: _content(root / path) for path in run["files"]}
    try:
        for path, text in run["files"].items():
            _write(root / path, None if text is None else text.encode(errors="surrogateescape"))
        tests = None if run["tests"] is None else frozenset(run["tests"])
        wanted = modules if tests is None else sorted({test.partition("::")[0] for test in tests})
        watch = tuple(str(root / prefix) for prefix in run["watch"])
        job = partial(_run, wanted, tests, root, watch, run["shuffle"])
        return in_child(job, cpu_seconds=run["cpu_seconds"], wall_seconds=run["wall_seconds"])
    finally:
        for path, content in kept.items():
            _write(root / path, content)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _write(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _run(
    modules: list[str],
    wanted: frozenset[str] | None,
    root: Path,
    watch: tuple[str, ...],
    shuffle: int | None,
    send: Send,
) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
    watcher = Watcher(wanted, root, watch, shuffle)
    pytest.main([*_ARGUMENTS, f"--rootdir={root}", *modules], plugins=[watcher])
    send(
        {
            "statuses": watcher.statuses,
            "lines": {test: _sorted(found) for test, found in watcher.lines.items()},
            "seconds": watcher.seconds,
            "uncollected": watcher.uncollected,
            "with_processes": sorted(watcher.with_processes),
        }
    )


def _ended_processes() -> tuple[int, int]:
    """Changes whenever a child has ended and been waited for, however it was started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_minflt, used.ru_nvcsw


def _sorted(found: Mapping[str, set[int]]) -> dict[str, list[int]]:
    return {path: sorted(numbers) for path, numbers in sorted(found.items())}


class Watcher:
    """A pytest plugin: picks the wanted tests, notes how each ended and which source lines it executed."""

    def __init__(
        self, wanted: frozenset[str] | None, root: Path, watch: tuple[str, ...], shuffle: int | None = None
    ) -> None:
        self.statuses: dict[str, str] = {}
        self.lines: dict[str, dict[str, set[int]]] = {}
        self.seconds: dict[str, float] = {}
        """Processor time of each test."""
        self.uncollected: list[str] = []
        """Modules that could not be imported."""
        self.with_processes: set[str] = set()
        """Tests that started a process."""
        self._running: str | None = None
        sys.addaudithook(self._note_processes)
        self._wanted = wanted
        self._root = root
        self._watch = watch
        self._shuffle = shuffle
        self._paths: dict[str, str | None] = {}
        self._current: dict[str, set[int]] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what was not asked for; shuffle where that was."""
        if self._wanted is not None:
            items[:] = [item for item in items if item.nodeid in self._wanted]
        if self._shuffle is not None:
            random.Random(self._shuffle).shuffle(items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note what cannot be imported."""
        if report.failed:
            self.uncollected.append(report.nodeid)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Watch one test."""
        self._current = {}
        self._running = item.nodeid
        ended_before = _ended_processes()
        begun = time.process_time()
        if self._watch:
            threading.settrace(self._enter)
            sys.settrace(self._enter)
        yield
        sys.settrace(None)
        threading.settrace(None)  # as documented
        self._running = None
        if _ended_processes() != ended_before:
            self.with_processes.add(item.nodeid)
        self.seconds[item.nodeid] = round(time.process_time() - begun, 4)
        if self._watch:
            self.lines[item.nodeid] = self._current

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the worst of a test's phases, as the grader does."""
        if report.failed or self.statuses.get(report.nodeid) == "failed":
            self.statuses[report.nodeid] = "failed"
        elif report.skipped or hasattr(report, "wasxfail"):
            self.statuses[report.nodeid] = "skipped"
        elif report.when == "call":
            self.statuses[report.nodeid] = "passed"

    def _note_processes(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _STARTS_A_PROCESS and self._running is not None:
            self.with_processes.add(self._running)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if name not in self._paths:
            self._paths[name] = os.path.relpath(name, self._root) if name.startswith(self._watch) else None
        path = self._paths[name]
        if path is None:
            return None

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            if event == "line":
                self._current.setdefault(path, set()).add(frame.f_lineno)
            return line

        return line
