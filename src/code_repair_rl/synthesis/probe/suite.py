"""The program inside the sandbox that runs a repository's own tests: once watched line by line, or under each mutant.

The tree lies in `tree/`, what to do in `suite.json`; `findings.json` is written.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
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
)


def main() -> None:
    """Read `suite.json`, write `findings.json`, both in the working folder.

    `suite.json` holds `source_roots`, `modules` (the test modules), `wall_seconds`, and either `watch` (prefixes of
    source files whose executed lines are noted per test) or `mutants` (each with `path`, `text`, `tests`).
    """
    home = Path.cwd()
    work = json.loads((home / "suite.json").read_text(encoding="utf-8"))
    root = home / "tree"
    os.chdir(root)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.path[:0] = [os.path.normpath(root / part) for part in work["source_roots"]]
    seconds = float(work["wall_seconds"])
    if "mutants" in work:
        found: Any = [_of_mutant(mutant, root, seconds) for mutant in work["mutants"]]
    else:
        watch = tuple(str(root / prefix) for prefix in work["watch"])
        job = partial(_run, work["modules"], None, root, watch)
        found = in_child(job, cpu_seconds=seconds, wall_seconds=2 * seconds)
    (home / "findings.json").write_text(json.dumps(found), encoding="utf-8")


def _of_mutant(mutant: dict[str, Any], root: Path, seconds: float) -> dict[str, Any]:
    """The statuses of a mutant's tests; empty where it did not end in time."""
    path = root / mutant["path"]
    whole = path.read_bytes()
    try:
        path.write_bytes(mutant["text"].encode())
        modules = sorted({test.partition("::")[0] for test in mutant["tests"]})
        job = partial(_run, modules, frozenset(mutant["tests"]), root, ())
        return in_child(job, cpu_seconds=seconds, wall_seconds=4 * seconds)
    finally:
        path.write_bytes(whole)


def _run(modules: list[str], wanted: frozenset[str] | None, root: Path, watch: tuple[str, ...], send: Send) -> None:
    watcher = Watcher(wanted, root, watch)
    begun = time.monotonic()
    pytest.main([*_ARGUMENTS, f"--rootdir={root}", *modules], plugins=[watcher])
    lines = {test: sorted(found) for test, found in watcher.lines.items()}
    send({"statuses": watcher.statuses, "lines": lines, "seconds": time.monotonic() - begun})


class Watcher:
    """A pytest plugin: picks the wanted tests, notes how each ended and which source lines it executed."""

    def __init__(self, wanted: frozenset[str] | None, root: Path, watch: tuple[str, ...]) -> None:
        self.statuses: dict[str, str] = {}
        self.lines: dict[str, set[tuple[str, int]]] = {}
        self._wanted = wanted
        self._root = root
        self._watch = watch
        self._paths: dict[str, str | None] = {}
        self._current: set[tuple[str, int]] = set()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what was not asked for."""
        if self._wanted is not None:
            items[:] = [item for item in items if item.nodeid in self._wanted]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Watch one test."""
        self._current = set()
        if self._watch:
            sys.settrace(self._enter)
        yield
        sys.settrace(None)
        if self._watch:
            self.lines[item.nodeid] = self._current

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the worst of a test's phases."""
        if report.failed:
            self.statuses[report.nodeid] = "failed"
        elif report.skipped or hasattr(report, "wasxfail"):
            self.statuses.setdefault(report.nodeid, "skipped")
        elif report.when == "call":
            self.statuses.setdefault(report.nodeid, "passed")

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if name not in self._paths:
            self._paths[name] = os.path.relpath(name, self._root) if name.startswith(self._watch) else None
        path = self._paths[name]
        if path is None:
            return None

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            if event == "line":
                self._current.add((path, frame.f_lineno))
            return line

        return line
