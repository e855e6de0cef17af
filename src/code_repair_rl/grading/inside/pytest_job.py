"""A repository's tests in a jail: one process that watches, one that runs pytest.

The watcher lays out the tree, forks the runner, and alone holds the connection to the host. The runner shares its
process with the code under test, so what it reports can be forged: that is met by detection (canaries, integrity of
the runner's own functions, an exact set of tests), and the docs say so.
"""

from __future__ import annotations

import _imp
import ast
import builtins
import contextlib
import json
import os
import random
import resource
import signal
import sys
import time

import _pytest.assertion.rewrite
import _pytest.python
import _pytest.reports
import _pytest.runner
import _pytest.unittest
import pytest

from code_repair_rl.grading.inside import landlock, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

_MOST_REPORT_BYTES = 16 << 20
_MOST_REWRITTEN = 64

_rewritten: dict[str, Any] = {}
"""Text of a test module to its code with rewritten assertions: filled in the server, used in the jobs it forks."""


def warm(payload: dict[str, Any]) -> None:
    """Rewrite the assertions of the task's own test modules, which is half of the time that a short run takes.

    Only text that no answer can touch comes here: nothing of it is run, and a job can change its own copy only.
    """
    for path in payload["pristine"]:
        text = payload["files"][path]
        if text in _rewritten:
            continue
        while len(_rewritten) >= _MOST_REWRITTEN:
            del _rewritten[next(iter(_rewritten))]
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, AttributeError, TypeError):
            source = text.encode()
            tree = ast.parse(source, filename=path)
            _pytest.assertion.rewrite.rewrite_asserts(tree, source, path, None)
            _rewritten[text] = compile(tree, path, "exec", dont_inherit=True)


def _use_rewritten() -> None:
    """Let pytest take what `warm` has made; where this pytest is built otherwise, it goes its own way."""
    module: Any = _pytest.assertion.rewrite
    rewrite = getattr(module, "_rewrite_test", None)
    if rewrite is None:
        return

    def known(path: Any, config: Any) -> Any:
        code = _rewritten.get(path.read_bytes().decode(errors="replace"))
        if code is None:
            return rewrite(path, config)
        _imp._fix_co_filename(code, str(path))  # type: ignore[attr-defined]  # as importlib does
        return None, code  # the first would go into a cached file, and none is written

    if sys.dont_write_bytecode:
        module._rewrite_test = known


def main(payload: dict[str, Any], result: socket.socket) -> None:
    """Run the tests, report once."""
    found: dict[str, Any] = {"syntax": "", "tests": {}, "errors": [], "tampered": "", "done": False, "read_only": False}
    found["killed"] = False
    root, scratch = payload["root"], payload["scratch"]
    found["syntax"] = _syntax_error(payload)
    if not found["syntax"]:
        _lay_out(root, payload["files"])
        os.makedirs(scratch, exist_ok=True)
        _run(payload, root, scratch, result, found)
    wire.send(result, found)


def _syntax_error(payload: dict[str, Any]) -> str:
    for path in payload["changed"]:
        try:
            compile(payload["files"].get(path, ""), path, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
            return f"{type(error).__name__}: {error}"[:500]
    return ""


def _lay_out(root: str, files: dict[str, str]) -> None:
    for path, text in files.items():
        place = os.path.join(root, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w", encoding="utf-8", newline="", errors="surrogateescape") as file:
            file.write(text)


def _run(payload: dict[str, Any], root: str, scratch: str, result: socket.socket, found: dict[str, Any]) -> None:
    reports_out, reports_in = os.pipe()
    told_out, told_in = os.pipe()
    runner = os.fork()
    if runner == 0:
        result.close()
        os.close(reports_out)
        os.close(told_out)
        # A session of its own for whatever it starts; writing is confined to the scratch folder.
        confined = landlock.confine_writes([scratch, "/dev"]) if payload["confine"] else False
        os.write(told_in, b"1" if confined else b"0")
        os.close(told_in)
        _pytest_process(payload, root, scratch, reports_in)
    os.close(reports_in)
    os.close(told_in)
    found["read_only"] = os.read(told_out, 1) == b"1"
    os.close(told_out)
    data = bytearray()
    while len(data) < _MOST_REPORT_BYTES:
        chunk = os.read(reports_out, 1 << 16)
        if not chunk:
            break
        data += chunk
    _take_in(bytes(data), found)
    _, status, used = os.wait4(runner, 0)
    # The kernel ends with the same signal what has used up its processor time.
    most = resource.getrlimit(resource.RLIMIT_CPU)[0]
    in_time = most == resource.RLIM_INFINITY or used.ru_utime + used.ru_stime < most - 1
    found["killed"] = os.waitstatus_to_exitcode(status) == -signal.SIGKILL and in_time


def _take_in(data: bytes, found: dict[str, Any]) -> None:
    for line in data.split(b"\n"):
        try:
            message = json.loads(line) if line else {}
        except ValueError:
            found["tampered"] = found["tampered"] or "the runner's report is damaged"
            continue
        if type(message) is not dict or found["done"]:
            found["tampered"] = found["tampered"] or ("something was reported after the end" if message else "")
            continue
        if "test" in message:
            name, status = str(message["test"]), str(message["status"])
            if name in found["tests"]:
                found["tampered"] = found["tampered"] or f"{name} was reported twice"
            found["tests"][name] = [status, str(message.get("detail", ""))[:600]]
        if "error" in message:
            found["errors"].append(str(message["error"])[:600])
        if "tampered" in message:
            found["tampered"] = found["tampered"] or str(message["tampered"])[:300]
        if "done" in message:
            found["done"] = True


def _pytest_process(payload: dict[str, Any], root: str, scratch: str, reports: int) -> None:
    """Never returns."""
    os.chdir(root)
    os.environ.update(TMPDIR=scratch, HOME=scratch, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    roots = [os.path.normpath(os.path.join(root, part)) for part in payload["source_roots"]]
    # What tests start finds the tree's own modules, too.
    os.environ["PYTHONPATH"] = os.pathsep.join([*roots, *filter(None, [os.environ.get("PYTHONPATH")])])
    sys.path[:0] = roots
    _forget_modules_of(roots)
    watch = Integrity()
    plugin = Reporter(payload["wanted"], reports, watch, payload["shuffle"])
    arguments = ["-q", "-p", "no:cacheprovider", f"--rootdir={root}", "--tb=short", "--no-header", "--no-summary"]
    arguments.append("--continue-on-collection-errors")
    _use_rewritten()
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    try:
        pytest.main([*arguments, *payload["modules"]], plugins=[plugin])
        plugin.end()
    except BaseException as error:
        plugin.tell({"error": f"{type(error).__name__}: {error}"})
    os._exit(0)


def _forget_modules_of(roots: list[str]) -> None:
    """The tree's own version of a module wins over one that the server has imported already."""
    for folder in roots:
        for name in os.listdir(folder):
            top = name.removesuffix(".py")
            if top in sys.stdlib_module_names or top in ("pytest", "_pytest", "pluggy", "code_repair_rl"):
                continue
            for loaded in [known for known in sys.modules if known == top or known.startswith(f"{top}.")]:
                del sys.modules[loaded]


def _is_expected_to_fail(item: Any) -> bool:
    of_unittest = (getattr(one, "obj", None) for one in (item, item.parent))
    return bool(item.get_closest_marker("xfail")) or any(
        getattr(one, "__unittest_expecting_failure__", False) for one in of_unittest
    )


class Integrity:
    """The functions that decide a verdict inside this process, as they were before foreign code came in."""

    def __init__(self) -> None:
        self._places: list[tuple[Any, str]] = []
        owners = (
            _pytest.runner, _pytest.reports, _pytest.reports.TestReport, _pytest.reports.BaseReport, _pytest.python,
            _pytest.python.Function, _pytest.unittest, _pytest.unittest.TestCaseFunction, Reporter, Integrity,
            pytest, builtins, json, json.JSONEncoder, os, __import__("unittest").TestCase,
        )  # fmt: skip
        for owner in owners:
            self._places += [(owner, name) for name, value in vars(owner).items() if callable(value)]
            self._places += [(owner, name) for name, value in vars(owner).items() if type(value).__name__ == "property"]
        self._before = [self._seen(owner, name) for owner, name in self._places]

    def _seen(self, owner: Any, name: str) -> tuple[int, int]:
        value = vars(owner).get(name)
        return id(value), id(getattr(value, "__code__", None))

    def broken(self) -> str:
        """The first function that is not what it was."""
        for (owner, name), before in zip(self._places, self._before, strict=True):
            if self._seen(owner, name) != before:
                return f"{owner.__name__}.{name} was replaced"
        return ""


class Reporter:
    """Runs exactly the wanted tests, shuffled where a seed is given, and tells how each ended."""

    def __init__(self, wanted: list[str], reports: int, watch: Integrity, shuffle: int | None = None) -> None:
        self._wanted = frozenset(wanted)
        self._reports = reports
        self._watch = watch
        self._shuffle = shuffle
        self._expected_to_fail: set[str] = set()
        self._status: dict[str, str] = {}
        self._detail: dict[str, str] = {}
        self._pid = os.getpid()
        self._told = False

    def tell(self, message: dict[str, Any]) -> None:
        """One line to the watcher."""
        if os.getpid() == self._pid:  # a test that forks must not report twice
            os.write(self._reports, json.dumps(message).encode() + b"\n")

    def end(self) -> None:
        """The last line."""
        if not self._told:
            self._told = True
            self.tell({"done": time.time()})

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any], config: Any) -> None:
        """Leave out what was not asked for."""
        unwanted = [item for item in items if item.nodeid not in self._wanted]
        items[:] = [item for item in items if item.nodeid in self._wanted]
        if self._shuffle is not None:
            random.Random(self._shuffle).shuffle(items)
        config.hook.pytest_deselected(items=unwanted)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: Any) -> None:
        """Which tests are marked as failing, by then by their fixtures as well: source that calls `pytest.xfail` calls
        nothing off."""
        if _is_expected_to_fail(item):
            self._expected_to_fail.add(item.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        """A module that cannot be imported."""
        if report.failed:
            self.tell({"error": f"{report.nodeid}: {str(report.longrepr)[-500:]}"})

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        """Setup, call and teardown of one test, one after the other; told after the last.

        What has failed stays failed: a `unittest` case whose subtests fail is reported as passed after them.
        """
        status = self._status.get(report.nodeid, "missing")
        if report.failed or status == "failed":
            status = "failed"
            if report.failed:
                self._detail[report.nodeid] = str(report.longrepr)[-500:]
        elif report.when == "call" and report.passed:
            status = "passed"
        elif report.skipped and hasattr(report, "wasxfail"):
            status = "xfailed" if report.nodeid in self._expected_to_fail else "failed"
            self._detail[report.nodeid] = f"called off by pytest.xfail: {report.wasxfail}"[-500:]
        elif report.skipped:
            status = "skipped"
        self._status[report.nodeid] = status
        if report.when == "teardown":
            changed = self._watch.broken()
            if changed:
                self.tell({"tampered": changed})
            self.tell({"test": report.nodeid, "status": status, "detail": self._detail.get(report.nodeid, "")})
