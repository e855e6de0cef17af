"""The host's end of a fork server: start it in its jail, hand it jobs, read how they ended."""

from __future__ import annotations

import array
import itertools
import json
import os
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from types import TracebackType
from typing import Any

from code_repair_rl.errors import MachineryFailed
from code_repair_rl.sandbox.command_line import (
    JailLayout,
    base_environment,
    interpreter,
    interpreter_folder,
    jail_command,
    slot_uid,
)
from code_repair_rl.sandbox.job import Cause
from code_repair_rl.sandbox.limits import Limits
from code_repair_rl.sandbox.one_shot import filter_descriptor, processes_are_counted_per_jail, rlimits
from code_repair_rl.sandbox.seccomp import seccomp_filter
from code_repair_rl.sandbox.supervise import end

_START_SECONDS = 30.0
_GRACE_SECONDS = 5.0
"""Beyond a job's limit, until the server itself counts as broken."""
_MOST_TIMES_THE_LIMIT = 2.0
_PYTHON_FLAGS = ("-s", "-S", "-B", "-P")
"""As `-I`, but `PYTHONHASHSEED` is heeded: the order of sets must not decide a verdict."""
_NESTING_CALLS = ("mount", "umount2", "clone", "unshare")

_slots = itertools.count(128)


def most_wall_seconds(limits: Limits) -> float:
    """How long a job may last on a machine that is so busy that it mostly waits for its turn: that is not its fault."""
    return limits.wall_seconds * _MOST_TIMES_THE_LIMIT


class ServerBroken(Exception):  # noqa: N818 - reads as what it is
    """The fork server died or fell silent; nothing is known about the job."""


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a forked job ended."""

    cause: Cause | None
    """None: it was stopped because its host had what it wanted."""
    code: int
    output: str
    """The last of what it wrote to standard output and error."""
    error: str
    wall_seconds: float


class ForkServer:
    """One fork server in one jail. Not for several threads at once.

    Args:
        programs: (dotted name, source) of the modules to load, in order; the last has `main(payload, *connections)`,
            which each job runs in a process of its own, and may have `warm(payload)`, which the server itself runs
            before each job to prepare what jobs of one payload share.
        preload: modules of the standard library to import once.
        isolated: False runs it without any jail (`unsafe_local`).
        nested: whether each job gets namespaces of its own within the jail.
        disk_bytes: of the writable /tmp, where jobs are not `nested` and so share it.
        python_path: folders of this machine, mounted read-only, that modules are imported from.
    """

    def __init__(
        self,
        programs: Sequence[tuple[str, str]],
        *,
        preload: Sequence[str] = (),
        isolated: bool = True,
        nested: bool = False,
        disk_bytes: int = 0,
        python_path: Sequence[str] = (),
    ) -> None:
        self._slot = next(_slots)
        self._isolated = isolated
        hidden = interpreter_folder().startswith("/tmp/")  # a private /tmp would hide it
        self.scratch = ("/job" if hidden else "/tmp") if isolated else tempfile.mkdtemp(prefix="crrl-jobs-")
        """The folder that jobs may write to; private to each job where they are nested."""
        ours, theirs = socket.socketpair()
        self._control = ours
        filter_fd = filter_descriptor(seccomp_filter(allow=_NESTING_CALLS if nested else ())) if isolated else None
        command: list[str] = []
        inside = _visible_inside(python_path) if nested and isolated else {path: path for path in python_path}
        self._inside = inside
        if isolated:
            layout = JailLayout(
                folder_bytes=0 if nested else disk_bytes or 1 << 20,
                nested=nested,
                read_only=inside,
            )
            command = jail_command(layout, seccomp_fd=filter_fd, slot=self._slot)
        own = {"PYTHONHASHSEED": "0"} | ({"PYTHONPATH": ":".join(inside)} if inside else {})
        for name, value in own.items() if isolated else ():
            command[-1:-1] = ["--setenv", name, value]
        environment = {} if isolated else base_environment() | own
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [*command, interpreter(), *_PYTHON_FLAGS, "-c", _server_source()],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                pass_fds=(filter_fd,) if filter_fd is not None else (),
                start_new_session=True,
            )
        finally:
            theirs.close()
            if filter_fd is not None:
                os.close(filter_fd)
        try:
            self._send(
                {
                    "slot_uid": slot_uid(self._slot) if isolated else None,
                    "nested": nested and isolated,
                    "scratch": self.scratch,
                    "preload": list(preload),
                    "programs": [list(program) for program in programs],
                    "seccomp": (seccomp_filter() if isolated else b"").hex(),
                }
            )
            self._receive(_START_SECONDS)
        except ServerBroken as error:
            self._control.close()
            end(self._process)
            said = self._process.stderr.read().decode(errors="replace")[-1000:].strip() if self._process.stderr else ""
            raise MachineryFailed(
                f"the fork server did not start: {said or error}",
                where="sandbox",
                mend="run `crrl doctor` to see what this machine's sandbox lacks",
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the process that holds the jail."""
        return self._process.pid

    def start(self, payload: Any, limits: Limits, *connections: socket.socket, hidden: Sequence[str] = ()) -> None:
        """Begin one job; `finish` must follow. The connections are passed on and may be closed here afterwards.

        Args:
            payload: JSON-ready, for `main`.
            limits: of the job.
            connections: for `main`.
            hidden: files and folders of this machine that a nested job sees empty.

        Raises:
            ServerBroken: the server is gone.
        """
        self._deadline = time.monotonic() + most_wall_seconds(limits) + _GRACE_SECONDS
        message = {
            "payload": payload,
            "hidden": [self._seen_as(path) for path in hidden],
            "rlimits": rlimits(limits, count_processes=self._isolated and processes_are_counted_per_jail()),
            "limits": {
                "wall_seconds": limits.wall_seconds,
                "most_wall_seconds": most_wall_seconds(limits),
                "cpu_seconds": limits.cpu_seconds,
                "memory_bytes": limits.memory_bytes,
                "output_bytes": limits.output_bytes,
                "disk_bytes": limits.disk_bytes,
            },
        }
        self._send(message, *connections)

    def _seen_as(self, path: str) -> str:
        """A path of this machine as jobs see it."""
        for within, here in self._inside.items():
            if Path(path).is_relative_to(here):
                return str(Path(within, Path(path).relative_to(here)))
        return path

    def finish(self, *, stop_after: float | None = None) -> ChildEnd:
        """Wait for the end of the job begun last.

        Args:
            stop_after: end the job by force if it has not ended by itself after that many seconds; None leaves it
                to its limits.

        Raises:
            ServerBroken: the server is gone.
        """
        if stop_after is not None and not self._readable(stop_after):
            with suppress(OSError):
                self._control.sendall((4).to_bytes(8, "big") + b"null")
        found = self._receive(max(0.1, self._deadline - time.monotonic()))
        cause = None if found["cause"] == "stopped" else Cause(found["cause"])
        return ChildEnd(cause, found.get("code", -1), found["output"], found["error"], found["wall_seconds"])

    def close(self) -> None:
        """End the server and everything in its jail."""
        self._control.close()
        end(self._process)
        if self._process.stderr is not None:
            self._process.stderr.close()
        if not self._isolated:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, message: Any, *connections: socket.socket) -> None:
        data = json.dumps(message).encode()
        head = len(data).to_bytes(8, "big")
        try:
            self._control.settimeout(_START_SECONDS)
            if not connections:
                self._control.sendall(head)
            else:
                rights = array.array("i", [connection.fileno() for connection in connections])
                self._control.sendmsg([head], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            self._control.sendall(data)
        except OSError as error:
            raise ServerBroken(f"cannot reach the fork server: {error}") from error

    def _readable(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _receive(self, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        head = self._exactly(8, deadline)
        return json.loads(self._exactly(int.from_bytes(head, "big"), deadline))

    def _exactly(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                self._control.settimeout(max(0.01, deadline - time.monotonic()))
                chunk = self._control.recv(size - len(data))
            except OSError as error:
                raise ServerBroken(f"the fork server fell silent: {error}") from error
            if not chunk:
                raise ServerBroken(f"the fork server ended with {self._process.poll()}")
            data += chunk
        return bytes(data)


@cache
def _server_source() -> str:
    return package_files("code_repair_rl.sandbox.inside").joinpath("fork_server.py").read_text(encoding="utf-8")


def _visible_inside(python_path: Sequence[str]) -> dict[str, str]:
    """Path in the jail to path here. What lies below /tmp goes elsewhere: jobs mount a /tmp of their own over it."""
    return {
        f"/python-path/{number}" if Path(path).is_relative_to("/tmp") else path: path
        for number, path in enumerate(python_path)
    }
