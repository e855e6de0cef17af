"""Backends that start one jail per job: bubblewrap, and the unsafe local one for whoever asks for it."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path, PurePosixPath

from code_repair_rl.errors import BadInput, CrrlError
from code_repair_rl.sandbox.command_line import JailLayout, base_environment, interpreter, jail_command, slot_uid
from code_repair_rl.sandbox.job import JOB_FOLDER, Cause, Job, JobResult, Probe
from code_repair_rl.sandbox.limits import AGENT_COMMAND, Limits
from code_repair_rl.sandbox.seccomp import seccomp_filter
from code_repair_rl.sandbox.session import Session
from code_repair_rl.sandbox.supervise import Supervised, end, supervise

_GRACE_SECONDS = 3.0
"""Beyond a job's own limit: start of the jail, bringing files in and out. The limit itself is kept inside."""
_PYTHON_FLAGS = ("-I", "-S", "-B")


class _OneShot(ABC):
    """What both backends share: the request, the run, the reading of the answer."""

    name: str
    isolation: str

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

    def run(self, job: Job) -> JobResult:
        """Run `job` to its end; always returns, exactly one result. Safe to call from several threads.

        Raises:
            BadInput: the job itself is wrong (a path outside its folder, a tree that is not there).
        """
        entries, contents = _packed(job)
        began = time.monotonic()
        try:
            with self._place(job) as (command, folder, uid, descriptors):
                return self._run(job, command, folder, uid, descriptors, entries, contents, began)
        except OSError as error:
            return self._broken(f"{type(error).__name__}: {error}", began)

    def _run(
        self,
        job: Job,
        command: list[str],
        folder: str,
        uid: int | None,
        descriptors: tuple[int, ...],
        entries: list[tuple[str, str, int, int]],
        contents: list[bytes],
        began: float,
    ) -> JobResult:
        request = json.dumps(
            {
                "argv": list(job.argv),
                "folder": folder,
                "slot_uid": uid,
                "alone": uid is not None or self.name == "bubblewrap",
                "entries": entries,
                "collect": list(job.collect),
                "collect_bytes": job.collect_bytes,
                "wall_seconds": job.limits.wall_seconds,
                "output_bytes": job.limits.output_bytes,
                "stdin_bytes": len(job.stdin.encode() if isinstance(job.stdin, str) else job.stdin),
                "rlimits": rlimits(job.limits),
                "environment": self._environment(job, folder),
            }
        ).encode()
        to_launcher, request_end = os.pipe()
        answer_end, from_launcher = os.pipe()
        source = launcher_source()
        line = [*command, interpreter(), *_PYTHON_FLAGS, "-c", source, str(to_launcher), str(from_launcher)]
        try:
            process = subprocess.Popen(
                line,
                stdin=subprocess.PIPE if job.stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={},
                pass_fds=(to_launcher, from_launcher, *descriptors),
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
        write = {request_end: b"".join([request, b"\n", *contents])}
        if process.stdin is not None:
            stdin = job.stdin.encode() if isinstance(job.stdin, str) else job.stdin
            write[os.dup(process.stdin.fileno())] = stdin
            process.stdin.close()
        try:
            seen = supervise(
                process,
                write=write,
                read={out: job.limits.output_bytes, err: job.limits.output_bytes, answer_end: job.collect_bytes * 2},
                output=frozenset((out, err)),
                output_bytes=job.limits.output_bytes,
                wall_seconds=job.limits.wall_seconds + _GRACE_SECONDS,
                memory_bytes=job.limits.memory_bytes,
            )
        except BaseException:
            end(process)
            raise
        finally:
            with suppress(OSError):
                os.close(answer_end)
        if seen.cause is None:
            process.wait()
        stdout, stderr = bytes(seen.read[out]), bytes(seen.read[err])
        process.stdout.close()
        process.stderr.close()
        return self._result(
            seen, bytes(seen.read[answer_end]), stdout, stderr, process.returncode, began, job.limits.output_bytes
        )

    def _result(
        self,
        seen: Supervised,
        answer: bytes,
        stdout: bytes,
        stderr: bytes,
        own_exit: int | None,
        began: float,
        most_output_bytes: int,
    ) -> JobResult:
        wall_seconds = time.monotonic() - began
        if seen.cause is not None:
            return JobResult(137, stdout, stderr, wall_seconds, seen.cause, isolation=self.isolation)
        try:
            line, _, rest = answer.partition(b"\n")
            head = json.loads(line)
        except ValueError:
            said = stderr.decode(errors="replace")[-500:].strip()
            return self._broken(f"the jail ended with {own_exit} and no answer: {said}", began, stdout, stderr)
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
            if len(rest) > most_output_bytes and cause is Cause.FINISHED:
                stdout, stderr, cause, code = stdout[:most_output_bytes], b"", Cause.OUTPUT_LIMIT, 137
        return JobResult(code, stdout, stderr, wall_seconds, cause, read_back, modes, isolation=self.isolation)

    def _broken(self, error: str, began: float, stdout: bytes = b"", stderr: bytes = b"") -> JobResult:
        seconds = time.monotonic() - began
        return JobResult(-1, stdout, stderr, seconds, Cause.INFRASTRUCTURE, error=error, isolation=self.isolation)

    def _environment(self, job: Job, folder: str) -> dict[str, str]:
        environment = base_environment() | dict(job.environment)
        if job.python_path:
            own = environment.get("PYTHONPATH")
            environment["PYTHONPATH"] = ":".join([*job.python_path, *([own] if own else [])])
        return environment

    def _mend(self) -> str:
        return ""

    @abstractmethod
    def _place(self, job: Job) -> AbstractContextManager[tuple[list[str], str, int | None, tuple[int, ...]]]:
        """The command line that a job's launcher is appended to, the job's folder, the uid to drop to, descriptors."""


class Bubblewrap(_OneShot):
    """One jail of bubblewrap per job: own namespaces, no network, read-only system, sized tmpfs, seccomp, rlimits."""

    name = "bubblewrap"

    def __init__(self) -> None:
        self._slots: queue.LifoQueue[int] = queue.LifoQueue()
        for slot in reversed(range(128)):
            self._slots.put(slot)
        self.isolation = "bubblewrap" if os.geteuid() else "bubblewrap-root-to-slot-uid"

    @contextmanager
    def _place(self, job: Job) -> Iterator[tuple[list[str], str, int | None, tuple[int, ...]]]:
        read_only = {**{path: path for path in job.python_path}, **job.read_only}
        for inside, outside in read_only.items():
            if not inside.startswith("/") or not Path(outside).exists():
                raise BadInput(f"cannot mount it at {inside!r}", where=outside, mend="name an existing absolute path")
        slot = self._slots.get()
        seccomp = filter_descriptor(seccomp_filter())
        try:
            layout = JailLayout(folder_bytes=job.limits.disk_bytes, read_only=read_only)
            line = [*jail_command(layout, seccomp_fd=seccomp, slot=slot)]
            line.insert(1, "--die-with-parent")
            yield line, JOB_FOLDER, slot_uid(slot), (seccomp,) if seccomp is not None else ()
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


class UnsafeLocal(_OneShot):
    """No isolation at all: the job is a child process in a scratch folder. For trusted code, and only on request."""

    name = "unsafe_local"
    isolation = "unsafe-local"

    @contextmanager
    def _place(self, job: Job) -> Iterator[tuple[list[str], str, int | None, tuple[int, ...]]]:
        for inside, outside in job.read_only.items():
            if inside != outside:
                raise BadInput("unsafe_local cannot mount folders elsewhere", where=inside, mend="mount it as itself")
        folder = tempfile.mkdtemp(prefix="crrl-job-")
        try:
            yield [], folder, None, ()
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


def rlimits(limits: Limits) -> list[tuple[str, int]]:
    """Names of `resource` limits with their values."""
    return [
        ("RLIMIT_CPU", limits.cpu_seconds),
        ("RLIMIT_AS", limits.memory_bytes),
        ("RLIMIT_NPROC", limits.processes),
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


def _packed(job: Job) -> tuple[list[tuple[str, str, int, int]], list[bytes]]:
    """What the launcher brings in: (kind, path, mode, size) and the contents in the same order."""
    entries: list[tuple[str, str, int, int]] = []
    contents: list[bytes] = []
    for place, folder in job.trees.items():
        for kind, path, mode, content in _tree(place, Path(folder)):
            entries.append((kind, path, mode, len(content)))
            contents.append(content)
    for path, text in job.files.items():
        content = text.encode() if isinstance(text, str) else text
        entries.append(("file", _inside(path), job.modes.get(path, 0o644) & 0o777, len(content)))
        contents.append(content)
    for path in job.collect:
        _inside(path)
    return entries, contents


def _tree(place: str, folder: Path) -> Iterator[tuple[str, str, int, bytes]]:
    if not folder.is_dir():
        raise BadInput("the folder to copy in is not there", where=str(folder))
    base = PurePosixPath(_inside(place))
    for parent, folders, names in os.walk(folder):
        here = base / Path(parent).relative_to(folder).as_posix()
        if str(here) != ".":
            yield "folder", str(here), 0o755, b""
        for name in [*names, *(name for name in folders if (Path(parent) / name).is_symlink())]:
            path = Path(parent) / name
            if path.is_symlink():
                yield "link", str(here / name), 0o777, os.fsencode(path.readlink())
            elif path.is_file():
                yield "file", str(here / name), (path.stat().st_mode & 0o777) | 0o644, path.read_bytes()


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise BadInput("a job's paths are relative and stay inside its folder", where=path)
    return path


def machine_notes() -> Mapping[str, str]:
    """What the sandbox finds on this machine, for `crrl doctor`."""
    return {"python": interpreter(), "prefix": sys.base_prefix, "uid": str(os.geteuid())}
