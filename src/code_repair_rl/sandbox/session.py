"""A work copy that shell commands run in, one after the other: one jail per command.

Between commands nothing runs. Files, the current folder and exported variables carry over; background processes, empty
folders and links do not. A command that the outside had to end leaves the work copy as it was before it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from code_repair_rl.errors import BadInput
from code_repair_rl.sandbox.job import Cause, Job, JobResult

if TYPE_CHECKING:
    from code_repair_rl.sandbox.job import Sandbox
    from code_repair_rl.sandbox.limits import Limits

_WORK, _STATE = "work", ".session"
_SHELL = """
root=$PWD
mkdir -p "$root/work" "$root/.session"
[ -f "$root/.session/environment" ] && . "$root/.session/environment"
cd "$root/$(cat "$root/.session/folder" 2>/dev/null || echo work)" 2>/dev/null || cd "$root/work"
crrl_save() {
    status=$?
    case "$PWD" in "$root"/*) printf %s "${PWD#"$root"/}" > "$root/.session/folder" ;; esac
    export -p > "$root/.session/environment"
    exit $status
}
trap crrl_save EXIT
eval "$1"
"""


class Session:
    """Shell commands over one work copy. Safe to call from several threads; commands run one at a time."""

    def __init__(
        self,
        sandbox: Sandbox,
        files: Mapping[str, bytes | str],
        trees: Mapping[str, str],
        read_only: Mapping[str, str],
        environment: Mapping[str, str],
        limits: Limits,
    ) -> None:
        self._sandbox = sandbox
        self._state: dict[str, bytes | str] = {f"{_WORK}/{path}": content for path, content in files.items()}
        self._modes: dict[str, int] = {}
        self._trees = {f"{_WORK}/{path}": folder for path, folder in trees.items()}
        self._read_only = dict(read_only)
        self._environment = dict(environment)
        self._limits = limits
        self._closed = False
        self._lock = threading.Lock()
        if self._trees:
            self._copy_in()

    def run(self, command: str, *, limits: Limits | None = None) -> JobResult:
        """Run a shell command; `files` of the result stays empty, see `files`.

        Raises:
            BadInput: the session is closed.
        """
        with self._lock:
            return self._run(command, limits or self._limits)

    def files(self) -> dict[str, bytes]:
        """The work copy as it is now."""
        prefix = f"{_WORK}/"
        with self._lock:
            inside = {path: content for path, content in self._state.items() if path.startswith(prefix)}
        return {
            path.removeprefix(prefix): content.encode() if isinstance(content, str) else content
            for path, content in inside.items()
        }

    def write(self, path: str, content: bytes | str) -> None:
        """Put a file into the work copy."""
        with self._lock:
            self._state[f"{_WORK}/{path}"] = content

    def close(self) -> None:
        """Forget the work copy; nothing else is to be cleaned up."""
        with self._lock:
            self._closed = True
            self._state.clear()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _copy_in(self) -> None:
        first = self._run(":", self._limits)
        if not first.ok:
            raise BadInput(
                f"the work copy cannot be made: {first.error or first.stderr.decode(errors='replace')[-300:]}",
                where=", ".join(self._trees.values()),
                mend="copy in less, or raise `disk_bytes`",
            )
        self._trees = {}

    def _run(self, command: str, limits: Limits) -> JobResult:
        if self._closed:
            raise BadInput("the session is closed", where=command[:80])
        job = Job(
            argv=("/bin/bash", "-c", _SHELL, "bash", command),
            files=self._state,
            modes=self._modes,
            trees=self._trees,
            read_only=self._read_only,
            environment=self._environment,
            collect=(_WORK, _STATE),
            collect_bytes=limits.disk_bytes,
            limits=limits,
        )
        result = self._sandbox.run(job)
        if result.cause in (Cause.FINISHED, Cause.CRASHED) or result.files:
            self._state = dict(result.files)
            self._modes = dict(result.modes)
        return replace(result, files={}, modes={})
