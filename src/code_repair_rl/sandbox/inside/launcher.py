"""The first process of a one-shot job: brings the files in, runs the command under limits, sends files out.

Runs inside the jail as the interpreter's `-c` text: standard library only, and as few imports as possible, because
each costs every job time. Two descriptors are named on its command line: the first brings the job (a JSON line,
then the contents of the files, one after the other), the second takes the result (a JSON line, then the contents of
the files read back). Where they are standard input and output (a container hands in no others), what the command
reads and writes goes through unlinked files, and comes with the answer. The command sees neither descriptor: both are
closed on exec, and the launcher makes itself undumpable, so that `/proc/<pid>/fd` is shut too.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOST_LEFT_OUT = 10_000
_REQUEST, _ANSWER = int(sys.argv[1]), int(sys.argv[2])


def main() -> None:
    """Serve one job, then end; ending ends every process of the jail."""
    source = os.fdopen(_REQUEST, "rb", closefd=True)
    job = json.loads(source.readline())
    _drop_to(job["slot_uid"])
    _guard_itself()
    root = job["folder"]
    os.makedirs(root, exist_ok=True)
    _bring_in(root, job["entries"], source)
    captured = _capture(source.read(job["stdin_bytes"])) if _REQUEST == 0 else []
    source.close()
    os.chdir(root)
    try:
        status = _run(job, captured)
        if job["alone"]:
            _end_everyone_else()
    except OSError as error:
        _answer({"launch_error": str(error)}, [])
        return
    names, modes, contents, left_out = _collect(root, job["collect"], job["collect_bytes"])
    files = [[name, len(data), mode] for name, data, mode in zip(names, contents, modes, strict=True)]
    written = [_written(descriptor, job["output_bytes"] + 1) for descriptor in captured[1:]]
    sizes = [len(data) for data in written]
    head = {"status": status, "files": files, "left_out": left_out, "captured": sizes}
    _answer(head, [*contents, *written])


def _capture(stdin: bytes) -> list[int]:
    """Descriptors of three files without names, for the command's standard input, output and error."""
    descriptors = []
    for number, content in enumerate((stdin, b"", b"")):
        path = f"/tmp/.captured-{os.getpid()}-{number}"
        descriptors.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.unlink(path)
        os.write(descriptors[-1], content)
        os.lseek(descriptors[-1], 0, os.SEEK_SET)
    return descriptors


def _written(descriptor: int, most_bytes: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(most_bytes)


def _drop_to(uid: int | None) -> None:
    if uid is None:
        return
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _guard_itself() -> None:
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
    if os.getpid() == 1:
        prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG, which the change of user has cleared


def _bring_in(root: str, entries: list[list[Any]], source: Any) -> None:
    for kind, name, mode, size in entries:
        path = os.path.join(root, name)
        if kind == "folder":
            os.makedirs(path, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        content = source.read(size)
        if os.path.lexists(path) and not os.path.isdir(path):
            os.unlink(path)
        if kind == "link":
            os.symlink(os.fsdecode(content), path)
            continue
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)


def _run(job: dict[str, Any], captured: list[int]) -> int | None:
    """The wait status of the command; None where the wall-clock limit ended it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    deadline = time.monotonic() + job["wall_seconds"]
    pid = os.fork()
    if pid:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return None
            signal.sigtimedwait({signal.SIGCHLD}, left)
            status = _reaped(pid)
            if status is not None:
                return status
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        os.setpgid(0, 0)
        for number, descriptor in enumerate(captured):
            os.dup2(descriptor, number)
        for name, value in job["rlimits"]:
            limit = getattr(resource, name)
            ceiling = resource.getrlimit(limit)[1]
            hard = value + 1 if name == "RLIMIT_CPU" else value
            if ceiling != resource.RLIM_INFINITY:
                value, hard = min(value, ceiling), min(hard, ceiling)
            resource.setrlimit(limit, (value, hard))
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(job["argv"][0], job["argv"], job["environment"])
    except OSError as error:
        os.write(2, f"{job['argv'][0]}: {error.strerror}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)
    except BaseException as error:
        os.write(2, f"launcher: {error!r}\n".encode())
        os._exit(126)


def _reaped(pid: int) -> int | None:
    """The wait status of `pid` if it has ended; the first process of a jail has all orphans of it to bury as well."""
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended in (0, pid):
            return status if ended else None


def _end_everyone_else() -> None:
    """Nobody may change a file while it is read back."""
    while True:
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            break
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            if not _others():
                break


def _others() -> bool:
    known = {"1", str(os.getpid())}
    return any(name.isdigit() and name not in known for name in os.listdir("/proc"))


def _collect(root: str, wanted: list[str], most_bytes: int) -> tuple[list[str], list[int], list[bytes], list[str]]:
    """Names, modes and contents of the files that can be read back, and the names of what is there but cannot."""
    names: list[str] = []
    left_out: list[str] = []
    modes: list[int] = []
    contents: list[bytes] = []
    left = most_bytes
    for start in wanted:
        for name in _walk(root, start):
            found = _read(os.path.join(root, name), left)
            if found is None:
                if os.path.lexists(os.path.join(root, name)) and len(left_out) < _MOST_LEFT_OUT:
                    left_out.append(name)
                continue
            left -= len(found[1])
            names.append(name)
            modes.append(found[0])
            contents.append(found[1])
    return names, modes, contents, left_out


def _walk(root: str, start: str) -> list[str]:
    """Paths of files under `start`, relative to `root`, sorted; links are not followed."""
    top = os.path.normpath(os.path.join(root, start))
    if os.path.realpath(top) != os.path.normpath(os.path.join(os.path.realpath(root), start)):
        return []
    if os.path.islink(top) or not os.path.isdir(top):
        return [start]
    found = []
    for folder, folders, files in os.walk(top):
        folders.sort()
        files += [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found += [os.path.relpath(os.path.join(folder, file), root) for file in sorted(files)]
        if len(found) > 100_000:
            break
    return found


def _read(path: str, most_bytes: int) -> tuple[int, bytes] | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or found.st_size > most_bytes:
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return stat.S_IMODE(found.st_mode), file.read(most_bytes)
    finally:
        os.close(descriptor)


def _answer(head: dict[str, Any], contents: list[bytes]) -> None:
    with os.fdopen(_ANSWER, "wb") as out:
        out.write(json.dumps(head).encode() + b"\n")
        for content in contents:
            out.write(content)


if __name__ == "__main__":
    if _REQUEST != 0:
        for _descriptor in (_REQUEST, _ANSWER):
            os.set_inheritable(_descriptor, False)
    try:
        main()
    except BaseException as _error:
        try:
            _answer({"launch_error": f"{type(_error).__name__}: {_error}"}, [])
        except OSError:
            pass
        sys.exit(70)
