"""What runs in a sandbox and what comes back, as plain data: a job can be sent to another machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from code_repair_rl.sandbox.limits import AGENT_COMMAND, FUNCTION, Limits

if TYPE_CHECKING:
    from threading import Event

    from code_repair_rl.sandbox.session import Session

JOB_FOLDER = "/job"
"""Where a job's files lie and its command starts, in every isolating backend."""


class Cause(StrEnum):
    """Why a job ended."""

    FINISHED = "finished"
    """The command ended by itself; `exit_code` is its own."""
    CRASHED = "crashed"
    """A signal ended the command; `exit_code` is 128 + the signal's number."""
    TIMEOUT = "timeout"
    """The wall-clock or the CPU limit ended it."""
    OUT_OF_MEMORY = "out-of-memory"
    """The memory limit of the whole process tree ended it. (One process beyond its own limit sees a `MemoryError`.)"""
    OUTPUT_LIMIT = "output-limit"
    """It wrote more than `output_bytes`."""
    INFRASTRUCTURE = "infrastructure"
    """The sandbox itself failed, or was killed; says nothing about the job. `error` says what happened."""


@dataclass(frozen=True, slots=True)
class Job:
    """One command with everything it needs.

    Paths in `files`, `trees` and `collect` are POSIX and relative to the job's folder, where the command starts.
    """

    argv: tuple[str, ...]
    """The command. `python` is the interpreter that runs this package, without its site packages."""
    files: Mapping[str, bytes | str] = field(default_factory=dict)
    """Files copied in, path to content."""
    modes: Mapping[str, int] = field(default_factory=dict)
    """Permission bits of `files`; 0o644 where it says nothing."""
    trees: Mapping[str, str] = field(default_factory=dict)
    """Folders copied in: path in the job's folder (`.` for the folder itself) to the folder on this machine.
    Symbolic links are copied as links; what is neither file, folder nor link is left out."""
    read_only: Mapping[str, str] = field(default_factory=dict)
    """Folders or files mounted read-only: absolute path in the jail to the path on this machine."""
    python_path: tuple[str, ...] = ()
    """Folders of this machine that are mounted read-only under the same path and put on `PYTHONPATH`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """The whole environment besides `PATH`, `HOME`, `LANG`, `TMPDIR`; nothing is inherited."""
    stdin: bytes | str = b""
    collect: tuple[str, ...] = ()
    """Files or folders read back after the command: regular files only, links are not followed."""
    collect_bytes: int = 16 << 20
    """Most that is read back; files beyond it are left out."""
    collect_seconds: float = 0.0
    """Time for reading back, besides the little that every job has."""
    limits: Limits = FUNCTION


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended."""

    exit_code: int
    """Of the command; 128 + n after signal n, as a shell reports it; -1 where it never ran."""
    stdout: bytes
    stderr: bytes
    wall_seconds: float
    cause: Cause
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What `collect` named and was found."""
    modes: Mapping[str, int] = field(default_factory=dict)
    """Permission bits of `files`."""
    left_out: tuple[str, ...] = ()
    """What `collect` named and is there, but was not read back: links, files with several names, what is no file,
    cannot be read or is too large."""
    error: str = ""
    """What went wrong in the sandbox itself, where `cause` is `INFRASTRUCTURE`."""
    isolation: str = ""
    """The backend's tier, `Sandbox.isolation`."""

    @property
    def ok(self) -> bool:
        """Ended by itself with exit code 0."""
        return self.cause is Cause.FINISHED and self.exit_code == 0


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a backend works on this machine."""

    name: str
    works: bool
    detail: str
    """What was found: a version, or why it does not work."""
    mend: str = ""
    """What to do about it, where it does not work."""
    wall_seconds: float = 0.0
    """How long one small job took."""


class Sandbox(Protocol):
    """A place where untrusted code runs."""

    @property
    def name(self) -> str:
        """The name it is chosen by."""
        ...

    @property
    def isolation(self) -> str:
        """The tier that every result is stamped with."""
        ...

    def probe(self) -> Probe:
        """Really run a small job, and say what came of it."""
        ...

    def run(self, job: Job, *, stop: Event | None = None) -> JobResult:
        """Run `job` to its end; always returns, exactly one result. Safe to call from several threads.

        Args:
            job: what to run.
            stop: once it is set, the job is killed, and its result is `INFRASTRUCTURE`.

        Raises:
            BadInput: the job itself is wrong (a path outside its folder, a tree that is not there).
        """
        ...

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
        ...
