"""Backends that start one jail per job: bubblewrap, and the unsafe local one for whoever asks for it."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from threading import Event

from code_repair_rl.errors import BadInput, CrrlError
from code_repair_rl.sandbox.command_line import JailLayout, base_environment, interpreter, jail_command, slot_uid
from code_repair_rl.sandbox.job import JOB_FOLDER, Cause, Job, JobResult, Probe
from code_repair_rl.sandbox.limits import AGENT_COMMAND, Limits
from code_repair_rl.sandbox.packing import packed
from code_repair_rl.sandbox.seccomp import seccomp_filter
from code_repair_rl.sandbox.session import Session
from code_repair_rl.sandbox.supervise import Supervised, end, supervise

_GRACE_SECONDS = 3.0
_ANSWER_HEAD_BYTES = 16 << 20
_PYTHON_FLAGS = ("-I", "-S", "-B")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one job's launcher runs."""

    command: Sequence[str]
    """What the launcher's own command line is appended to."""
    folder: str
    """The job's."""
    slot_uid: int | None = None
    """What the launcher drops to, where it begins as root."""
    descriptors: tuple[int, ...] = ()
    """Passed on to `command`."""
    alone: bool = False
    """Whether all processes that the launcher can see are the job's."""
    counts_processes: bool = False
    """Whether the kernel's limit on processes counts those of the job only."""
    pipes: bool = True
    """Whether descriptors besides the standard ones arrive."""
    interpreter: str = field(default_factory=interpreter)
    environment: Mapping[str, str] = field(default_factory=base_environment)
    """The job's, before its own."""
    client_environment: Mapping[str, str] = field(default_factory=dict)
    """That of `command` itself."""


class OneShot(ABC):
    """What backends with a jail per job share: the request, the run, the reading of the answer."""

    name: str
    isolation: str
    grace_seconds = _GRACE_SECONDS
    """Beyond a job's own limit: start of the jail, bringing files in and out. The limit itself is kept inside."""

    def open_session(
        self,
        *,
        files: Mapping[str, bytes | str] | None = None,
        trees: Mapping[str, str] | None = None,
        read_only: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        limits: Limits = AGENT_COMMAND,
    ) -> Session:
        """A work copy that shell commands run in, one after the other; arguments as of `Job`."""
        return Session(self, files or {}, trees or {}, read_only or {}, environment or {}, limits)

    def probe(self) -> Probe:
        """Really run a small job, and say what came of it."""
        began = time.monotonic()
        job = Job(
            argv=("python", "-I", "-S", "-c", "print(open('in').read())"),
            files={"in": "crrl"},
            limits=Limits(wall_seconds=20),
        )
        try:
            result = self.run(job)
        except (CrrlError, OSError) as error:
            return Probe(self.name, False, str(error), mend=self._mend())
        seconds = time.monotonic() - began
        if result.ok and result.stdout == b"crrl\n":
            return Probe(self.name, True, self.isolation, wall_seconds=seconds)
        detail = result.error or result.stderr.decode(errors="replace")[-300:] or result.cause.value
        return Probe(self.name, False, detail.strip(), mend=self._mend(), wall_seconds=seconds)

    def run(self, job: Job, *, stop: Event | None = None) -> JobResult:
        """Run `job` to its end; always returns, exactly one result. Safe to call from several threads.

        Args:
            job: what to run.
            stop: once it is set, the job is killed, and its result is `INFRASTRUCTURE`.

        Raises:
            BadInput: the job itself is wrong (a path outside its folder, a tree that is not there).
            MachineryFailed: the backend is not there.
        """
        entries, contents = packed(job)
        began = time.monotonic()
        try:
            with self._place(job) as place:
                request = self._request(job, place, entries) + b"".join(contents)
                return (
                    self._over_pipes(job, place, request, began, stop)
                    if place.pipes
                    else self._over_standard_streams(job, place, request, began, stop)
                )
        except OSError as error:
            return self._broken(f"{type(error).__name__}: {error}", began)

    def _request(self, job: Job, place: Place, entries: list[tuple[str, str, int, int]]) -> bytes:
        line = json.dumps(
            {
                "argv": list(job.argv),
                "folder": place.folder,
                "slot_uid": place.slot_uid,
                "alone": place.alone,
                "entries": entries,
                "collect": list(job.collect),
                "collect_bytes": job.collect_bytes,
                "wall_seconds": job.limits.wall_seconds,
                "output_bytes": job.limits.output_bytes,
                "stdin_bytes": len(_stdin(job)),
                "rlimits": rlimits(job.limits, count_processes=place.counts_processes),
                "environment": _environment(job, place),
            }
        )
        return line.encode() + b"\n"

    def _over_pipes(self, job: Job, place: Place, request: bytes, began: float, stop: Event | None) -> JobResult:
        """The launcher has two pipes of its own, and the command the standard streams."""
        to_launcher, request_end = os.pipe()
        answer_end, from_launcher = os.pipe()
        line = [*place.command, place.interpreter, *_PYTHON_FLAGS, "-c", launcher_source()]
        try:
            process = subprocess.Popen(
                [*line, str(to_launcher), str(from_launcher)],
                stdin=subprocess.PIPE if job.stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={},
                pass_fds=(to_launcher, from_launcher, *place.descriptors),
                start_new_session=True,
            )
        except BaseException:
            for descriptor in (request_end, answer_end):
                os.close(descriptor)
            raise
        finally:
            os.close(to_launcher)
            os.close(from_launcher)
        assert process.stdout is not None and process.stderr is not None
        out, err = process.stdout.fileno(), process.stderr.fileno()
        write = {request_end: request}
        if process.stdin is not None:
            write[os.dup(process.stdin.fileno())] = _stdin(job)
            process.stdin.close()
        most = job.limits.output_bytes
        read = {out: most, err: most, answer_end: job.collect_bytes * 2 + _ANSWER_HEAD_BYTES}
        try:
            seen = self._supervised(process, job, write, read, frozenset((out, err)), stop)
        finally:
            with suppress(OSError):
                os.close(answer_end)
            process.stdout.close()
            process.stderr.close()
        return self._result(job, seen, seen.read[answer_end], seen.read[out], seen.read[err], process, began)

    def _over_standard_streams(
        self, job: Job, place: Place, request: bytes, began: float, stop: Event | None
    ) -> JobResult:
        """The launcher has the standard streams, and tells at the end what the command wrote."""
        process = subprocess.Popen(
            [*place.command, place.interpreter, *_PYTHON_FLAGS, "-c", launcher_source(), "0", "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(place.client_environment),
            start_new_session=True,
        )
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        out, err = process.stdout.fileno(), process.stderr.fileno()
        write = {os.dup(process.stdin.fileno()): request + _stdin(job)}
        process.stdin.close()
        most = job.collect_bytes * 2 + job.limits.output_bytes * 2 + _ANSWER_HEAD_BYTES
        try:
            seen = self._supervised(process, job, write, {out: most, err: 1 << 16}, frozenset(), stop)
        finally:
            process.stdout.close()
            process.stderr.close()
        return self._result(job, seen, seen.read[out], bytearray(), seen.read[err], process, began)

    def _supervised(
        self,
        process: subprocess.Popen[bytes],
        job: Job,
        write: dict[int, bytes],
        read: dict[int, int],
        output: frozenset[int],
        stop: Event | None,
    ) -> Supervised:
        try:
            seen = supervise(
                process,
                write=write,
                read=read,
                output=output,
                output_bytes=job.limits.output_bytes,
                wall_seconds=job.limits.wall_seconds + self.grace_seconds + job.collect_seconds,
                memory_bytes=job.limits.memory_bytes,
                stop=stop,
            )
        except BaseException:
            end(process)
            raise
        if seen.cause is None:
            process.wait()
        return seen

    def _result(
        self,
        job: Job,
        seen: Supervised,
        answer: bytearray,
        out: bytearray,
        err: bytearray,
        process: subprocess.Popen[bytes],
        began: float,
    ) -> JobResult:
        stdout, stderr = bytes(out), bytes(err)
        wall_seconds = time.monotonic() - began
        if seen.cause is Cause.INFRASTRUCTURE:
            return self._broken("it was stopped", began, stdout, stderr)
        if seen.cause is not None:
            return JobResult(137, stdout, stderr, wall_seconds, seen.cause, isolation=self.isolation)
        try:
            line, _, rest = bytes(answer).partition(b"\n")
            head = json.loads(line)
        except ValueError:
            said = stderr.decode(errors="replace")[-500:].strip()
            return self._broken(
                f"the jail ended with {process.returncode} and no answer: {said}", began, stdout, stderr
            )
        if "launch_error" in head:
            return self._broken(head["launch_error"], began, stdout, stderr)
        read_back: dict[str, bytes] = {}
        for name, size, _ in head["files"]:
            read_back[name], rest = rest[:size], rest[size:]
        modes = {name: mode for name, _, mode in head["files"]}
        cause, code = _cause(head["status"])
        if head["captured"]:
            size = head["captured"][0]
            stdout, stderr = rest[:size], rest[size:]
            if len(rest) > job.limits.output_bytes and cause is Cause.FINISHED:
                stdout, stderr, cause, code = stdout[: job.limits.output_bytes], b"", Cause.OUTPUT_LIMIT, 137
        left_out = tuple(head["left_out"])
        return JobResult(
            code, stdout, stderr, wall_seconds, cause, read_back, modes, left_out, isolation=self.isolation
        )

    def _broken(self, error: str, began: float, stdout: bytes = b"", stderr: bytes = b"") -> JobResult:
        seconds = time.monotonic() - began
        return JobResult(-1, stdout, stderr, seconds, Cause.INFRASTRUCTURE, error=error, isolation=self.isolation)

    def _mend(self) -> str:
        return ""

    @abstractmethod
    def _place(self, job: Job) -> AbstractContextManager[Place]:
        """Where the job's launcher runs."""


class Bubblewrap(OneShot):
    """One jail of bubblewrap per job: own namespaces, no network, read-only system, sized tmpfs, seccomp, rlimits."""

    name = "bubblewrap"

    def __init__(self) -> None:
        self._slots: queue.LifoQueue[int] = queue.LifoQueue()
        for slot in reversed(range(128)):
            self._slots.put(slot)
        self.isolation = "bubblewrap" if os.geteuid() else "bubblewrap-root-to-slot-uid"

    @contextmanager
    def _place(self, job: Job) -> Iterator[Place]:
        read_only = {**{path: path for path in job.python_path}, **job.read_only}
        for inside, outside in read_only.items():
            if not inside.startswith("/") or not Path(outside).exists():
                raise BadInput(f"cannot mount it at {inside!r}", where=outside, mend="name an existing absolute path")
        slot = self._slots.get()
        seccomp = filter_descriptor(seccomp_filter())
        try:
            layout = JailLayout(folder_bytes=job.limits.disk_bytes, read_only=read_only)
            line = [*jail_command(layout, seccomp_fd=seccomp, slot=slot)]
            # The kernel shields the first process from all others of its jail: no `kill -9 -1` ends the launcher.
            line[1:1] = ["--die-with-parent", "--as-pid-1"]
            yield Place(
                line,
                JOB_FOLDER,
                slot_uid=slot_uid(slot),
                descriptors=(seccomp,) if seccomp is not None else (),
                alone=True,
                counts_processes=processes_are_counted_per_jail(),
            )
        finally:
            if seccomp is not None:
                os.close(seccomp)
            self._slots.put(slot)

    def _mend(self) -> str:
        return (
            "allow unprivileged user namespaces (`sysctl kernel.unprivileged_userns_clone=1`, or on Ubuntu "
            "`kernel.apparmor_restrict_unprivileged_userns=0`); in a container, run it with `--privileged` or with "
            "seccomp=unconfined and SYS_ADMIN; or ask for `unsafe_local` where you trust the code"
        )


class UnsafeLocal(OneShot):
    """No isolation at all: the job is a child process in a scratch folder. For trusted code, and only on request."""

    name = "unsafe_local"
    isolation = "unsafe-local"

    @contextmanager
    def _place(self, job: Job) -> Iterator[Place]:
        for inside, outside in job.read_only.items():
            if inside != outside:
                raise BadInput("unsafe_local cannot mount folders elsewhere", where=inside, mend="mount it as itself")
        folder = tempfile.mkdtemp(prefix="crrl-job-")
        try:
            yield Place([], folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@cache
def launcher_source() -> str:
    """The program that runs inside."""
    return package_files("code_repair_rl.sandbox.inside").joinpath("launcher.py").read_text(encoding="utf-8")


def filter_descriptor(program: bytes) -> int | None:
    """A readable descriptor that yields `program`; None where it is empty."""
    if not program:
        return None
    readable, writable = os.pipe()
    os.write(writable, program)
    os.close(writable)
    return readable


def processes_are_counted_per_jail() -> bool:
    """Whether `RLIMIT_NPROC` counts a jail's processes only: root's slots have a uid each, user namespaces do it
    since Linux 5.14."""
    if os.geteuid() == 0:
        return True
    major, minor = (int(part) for part in os.uname().release.split(".")[:2])
    return (major, minor) >= (5, 14)


def rlimits(limits: Limits, *, count_processes: bool) -> list[tuple[str, int]]:
    """Names of `resource` limits with their values."""
    return [
        *([("RLIMIT_NPROC", limits.processes)] if count_processes else []),
        ("RLIMIT_CPU", limits.cpu_seconds),
        ("RLIMIT_AS", limits.memory_bytes),
        ("RLIMIT_FSIZE", limits.file_bytes),
        ("RLIMIT_NOFILE", limits.open_files),
        ("RLIMIT_CORE", 0),
    ]


def _cause(status: int | None) -> tuple[Cause, int]:
    if status is None:
        return Cause.TIMEOUT, 128 + signal.SIGKILL
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return Cause.FINISHED, code
    return (Cause.TIMEOUT if -code == signal.SIGXCPU else Cause.CRASHED), 128 - code


def _stdin(job: Job) -> bytes:
    return job.stdin.encode() if isinstance(job.stdin, str) else job.stdin


def _environment(job: Job, place: Place) -> dict[str, str]:
    environment = {**place.environment, **job.environment}
    if job.python_path:
        own = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = ":".join([*job.python_path, *([own] if own else [])])
    return environment
