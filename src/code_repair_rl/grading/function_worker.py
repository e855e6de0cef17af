"""One function check: two jails, a wire between them, and what came out, before anybody judges it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files
from typing import Any

from code_repair_rl.sandbox.fork_server import ChildEnd, ForkServer, ServerBroken, most_wall_seconds
from code_repair_rl.sandbox.job import Cause
from code_repair_rl.sandbox.limits import GIB, Limits
from code_repair_rl.tasks import FunctionTests

_PRELOAD = (
    "bisect", "collections", "copy", "functools", "hashlib", "heapq", "importlib.abc", "importlib.util", "itertools",
    "json", "math", "operator", "random", "re", "socket", "string", "typing",
)  # fmt: skip
"""What answers and tests import most: imported once, before the fork. Each module makes every fork dearer."""

_TRUSTED_LIMITS = {"memory_bytes": 2 * GIB, "processes": 64, "output_bytes": 1 << 20}
_GRACE_SECONDS = 2.0
"""What the trusted side may take beyond the candidate's limit."""
_LAST_WORD_SECONDS = 0.5
"""How long a candidate that hung up may take to end by itself, so that we learn how it ended."""
_MOST_RESULT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """What one check came to."""

    report: Mapping[str, Any] | None
    """What the trusted side reports; None where it ended without a report."""
    candidate: ChildEnd
    trusted: ChildEnd
    wall_seconds: float


class FunctionWorker:
    """A candidate's jail and a trusted jail, both warm. Not for several threads at once.

    Args:
        isolated: False for `unsafe_local`.
        nested: whether the fork server isolates each answer within its jail; where the machine does not allow that,
            the candidate's jail is started anew for every answer.
    """

    def __init__(self, *, isolated: bool, nested: bool) -> None:
        self._isolated = isolated
        self._nested = nested and isolated
        self._candidate: ForkServer | None = None
        self._trusted: ForkServer | None = None

    def check(
        self,
        files: Mapping[str, str],
        oracle: Mapping[str, str],
        tests: FunctionTests,
        limits: Limits,
        calls: int | None,
    ) -> Found:
        """Run `tests` against `files`.

        Args:
            files: the answer's tree; all that the candidate's jail learns, with the function's name.
            oracle: the known-good tree, whose module the tests run in.
            tests: the tests.
            limits: for the candidate.
            calls: how many calls the known-good answer makes; None while that is being found out.

        Raises:
            ServerBroken: a jail is gone; nothing is known about the answer.
        """
        with self._closed_on_failure():
            candidate, trusted = self._servers(limits)
            began = time.monotonic()
            wall_seconds = most_wall_seconds(limits) + _GRACE_SECONDS
            trusted_limits = Limits(
                wall_seconds=wall_seconds, cpu_seconds=int(limits.wall_seconds) + 1, **_TRUSTED_LIMITS
            )
            one_end, other_end = socket.socketpair()
            result, result_in = socket.socketpair()
            with result:
                with one_end, other_end, result_in:
                    known = {"path": tests.path, "entry_point": tests.entry_point}
                    candidate.start({"files": _sources(files), **known}, limits, one_end)
                    trusted.start(
                        {**_trusted_payload(oracle, tests, calls), **known}, trusted_limits, other_end, result_in
                    )
                report = read_report(result, began + trusted_limits.wall_seconds + 1.0)
            trusted_end = trusted.finish(stop_after=0.2)
            gone = report is not None and report["stopped"] == "gone"
            candidate_end = candidate.finish(stop_after=_LAST_WORD_SECONDS if gone else 0.0)
            if report is None and trusted_end.cause is Cause.CRASHED:
                raise ServerBroken(f"the trusted side was killed: {trusted_end.output[-300:]}")
            for ended in (trusted_end, candidate_end):
                if ended.cause is Cause.INFRASTRUCTURE:
                    raise ServerBroken(
                        ended.error or ended.output or "the first process of the job ended without a report"
                    )
            if self._isolated and not self._nested:
                candidate.close()
                self._candidate = None
            return Found(report, candidate_end, trusted_end, time.monotonic() - began)

    def close(self) -> None:
        """End both jails; the next check starts them again."""
        for server in (self._candidate, self._trusted):
            if server is not None:
                server.close()
        self._candidate = self._trusted = None

    @contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        """Whatever is half done in the jails when something fails must not meet the next answer."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _servers(self, limits: Limits) -> tuple[ForkServer, ForkServer]:
        if self._candidate is None:
            self._candidate = ForkServer(
                programs("wire", "tree", "candidate"),
                preload=_PRELOAD,
                isolated=self._isolated,
                nested=self._nested,
                disk_bytes=limits.disk_bytes,
            )
        if self._trusted is None:
            self._trusted = ForkServer(
                programs("wire", "tree", "trusted"), preload=_PRELOAD, isolated=self._isolated, disk_bytes=1 << 20
            )
        return self._candidate, self._trusted


def _sources(files: Mapping[str, str]) -> dict[str, str]:
    return {path: files[path] for path in files if path.endswith(".py")}


def _trusted_payload(oracle: Mapping[str, str], tests: FunctionTests, calls: int | None) -> dict[str, Any]:
    return {
        "files": _sources(oracle),
        "check": tests.check,
        "visible": [[example.call, example.expected] for example in tests.visible],
        "hidden": [[example.call, example.expected] for example in tests.hidden],
        "seed": tests.seed,
        "calls": calls,
    }


def read_report(result: socket.socket, deadline: float) -> Mapping[str, Any] | None:
    """The trusted side's report: its first message, whole; None where it hung up or the time is over."""
    data = bytearray()
    try:
        while True:
            result.settimeout(max(0.01, deadline - time.monotonic()))
            chunk = result.recv(1 << 16)
            if not chunk:
                break
            data += chunk
            if len(data) > _MOST_RESULT_BYTES:
                return None
    except OSError:
        return None
    if len(data) < 4 or len(data) != 4 + int.from_bytes(data[:4], "big"):
        return None
    found = json.loads(bytes(data[4:]))
    assert isinstance(found, dict)
    return found


@cache
def programs(*names: str) -> tuple[tuple[str, str], ...]:
    """Dotted name and source of programs that run inside."""
    package = "code_repair_rl.grading.inside"
    folder = package_files(package)
    return tuple((f"{package}.{name}", folder.joinpath(f"{name}.py").read_text(encoding="utf-8")) for name in names)
