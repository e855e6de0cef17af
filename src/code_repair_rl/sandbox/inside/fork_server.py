"""A fork server: imports once, then forks one isolated child per job.

Runs inside a jail as the interpreter's `-c` text, standard library only. Descriptor 0 is a stream socket to the host.
A frame is 8 bytes of length and that much JSON; a job's frame carries the sockets that its process gets.
A frame that holds `null` sent while a job runs means: end it now; between two jobs it came too late and is dropped.

With `nested` each job gets, besides a process of its own: new user, pid and mount namespaces, a sized private /tmp,
no /proc, no capabilities, rlimits and the strict seccomp filter. The job is pid 1 of its namespace, so its end is the
end of everything it started, and how it ended is read with `wait`, which it cannot forge.
"""

from __future__ import annotations

import array
import ctypes
import gc
import importlib
import json
import os
import platform
import resource
import select
import signal
import socket
import sys
import time
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 1 << 12, 1 << 14, 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_WATCH_SECONDS = 0.1
_KEPT_OUTPUT = 2000
_SCENE_NOT_SET = 213
"""Exit status of a job whose limits or namespaces could not be set up. (A job that imitates it gains a retry.)"""

_libc = ctypes.CDLL(None, use_errno=True)


def serve(control: socket.socket) -> None:
    """Serve jobs until the host hangs up."""
    setup, _ = receive(control)
    if setup["slot_uid"] is not None:
        os.setgroups([])
        os.setresgid(setup["slot_uid"], setup["slot_uid"], setup["slot_uid"])
        os.setresuid(setup["slot_uid"], setup["slot_uid"], setup["slot_uid"])
    setup["ids"] = (os.getuid(), os.getgid())  # inside a new user namespace they read as nobody's
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    for name in setup["preload"]:
        importlib.import_module(name)
    program = _programs(setup["programs"])
    gc.collect()
    gc.freeze()
    send(control, {"ready": True})
    while True:
        job, descriptors = receive(control)
        if job is None:
            continue
        send(control, _run(control, setup, program, job, descriptors))


def receive(control: socket.socket) -> tuple[Any, list[int]]:
    """One frame with its descriptors; the host's hanging up ends this process, and with it the jail."""
    descriptors = array.array("i")
    head, ancillary, _, _ = control.recvmsg(8, socket.CMSG_SPACE(4 * descriptors.itemsize))
    for _level, _kind, data in ancillary:
        descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    head += _exactly(control, 8 - len(head)) if head else b""
    if not head:
        os._exit(0)
    return json.loads(_exactly(control, int.from_bytes(head, "big"))), list(descriptors)


def _exactly(control: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = control.recv(size - len(data))
        if not chunk:
            os._exit(0)
        data += chunk
    return bytes(data)


def send(control: socket.socket, message: Any) -> None:
    """One frame."""
    data = json.dumps(message).encode()
    control.sendall(len(data).to_bytes(8, "big") + data)


def _programs(sources: list[list[str]]) -> types.ModuleType:
    """The programs under their own dotted names; the last one has the `main` that jobs run."""
    module = types.ModuleType("none")
    for name, source in sources:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            package = ".".join(parts[:depth])
            if package not in sys.modules:
                sys.modules[package] = types.ModuleType(package)
                sys.modules[package].__path__ = []
        module = types.ModuleType(name)
        sys.modules[name] = module
        if len(parts) > 1:
            setattr(sys.modules[".".join(parts[:-1])], parts[-1], module)
        exec(compile(source, f"<{name}>", "exec"), module.__dict__)
    return module


def _run(control: socket.socket, setup: Any, program: Any, job: Any, connections: list[int]) -> dict[str, Any]:
    began = time.monotonic()
    if hasattr(program, "warm"):
        program.warm(job["payload"])
    output_out, output_in = os.pipe()
    try:
        pid = _clone(setup["nested"])
    except OSError as error:
        for descriptor in (output_out, output_in, *connections):
            os.close(descriptor)
        return {
            "cause": "infrastructure",
            "code": -1,
            "error": f"cannot fork: {error}",
            "output": "",
            "wall_seconds": 0,
        }
    if pid == 0:
        _job(setup, program, job, connections, output_in)
    for descriptor in (output_in, *connections):
        os.close(descriptor)
    ended = os.pidfd_open(pid)
    try:
        return _watch(control, job["limits"], pid, ended, output_out, began, setup["nested"])
    finally:
        os.close(ended)
        os.close(output_out)


def _clone(nested: bool) -> int:
    """Fork, into new namespaces where `nested`."""
    if not nested:
        return os.fork()
    flags = _CLONE_NEWUSER | _CLONE_NEWPID | _CLONE_NEWNS | signal.SIGCHLD
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = int(ctypes.pythonapi.syscall(_CLONE[platform.machine()], flags, 0, 0, 0, 0))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError("new namespaces are not allowed here")
    return pid


def _watch(
    control: socket.socket, limits: Any, pid: int, ended: int, output: int, began: float, nested: bool
) -> dict[str, Any]:
    deadline = began + limits["wall_seconds"]
    next_look = began + _WATCH_SECONDS
    tail = bytearray()
    written = 0
    cause = ""
    poll = select.poll()
    for descriptor in (ended, output, control.fileno()):
        poll.register(descriptor, select.POLLIN)
    while not cause:
        now = time.monotonic()
        if now >= deadline:
            waited = min(_waited_for_a_processor(pid), limits["most_wall_seconds"] - limits["wall_seconds"])
            if began + limits["wall_seconds"] + waited > now + 0.01:
                deadline = began + limits["wall_seconds"] + waited
                continue
            cause = "timeout"
            break
        if now >= next_look:
            resident, cpu_seconds = _used_below(pid)
            if resident > limits["memory_bytes"]:
                cause = "out-of-memory"
                break
            if cpu_seconds > limits["cpu_seconds"] + 1:
                cause = "timeout"  # many processes, each below its own limit
                break
            next_look = now + _WATCH_SECONDS
        ready = {descriptor for descriptor, _ in poll.poll(max(1, (min(deadline, next_look) - now) * 1000))}
        if output in ready:
            data = os.read(output, 1 << 16)
            written += len(data)
            tail = (tail + data)[-_KEPT_OUTPUT:]
            if not data:
                poll.unregister(output)
            if written > limits["output_bytes"]:
                cause = "output-limit"
                break
        if ended in ready:
            cause = "ended"
        elif control.fileno() in ready:
            receive(control)
            cause = "stopped"
    for end in (os.killpg, os.kill):
        try:
            end(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    _, status, used = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if cause == "ended":
        cause = _ending(code, used.ru_utime + used.ru_stime, limits["cpu_seconds"], nested)
    text = tail.decode(errors="replace")
    error = "killed from outside" if cause == "infrastructure" and code < 0 else ""
    return {"cause": cause, "code": code, "error": error, "output": text, "wall_seconds": time.monotonic() - began}


def _ending(code: int, cpu_seconds: float, most_cpu_seconds: float, nested: bool) -> str:
    if code == _SCENE_NOT_SET:
        return "infrastructure"
    if code >= 0:
        return "finished"
    out_of_time = -code == signal.SIGXCPU or (-code == signal.SIGKILL and cpu_seconds > most_cpu_seconds - 0.5)
    if out_of_time:
        return "timeout"
    # The first process of a namespace cannot kill itself, and nothing in there can: the machine ran out of memory.
    return "infrastructure" if nested and -code == signal.SIGKILL else "crashed"


def _waited_for_a_processor(pid: int) -> float:
    """Seconds that the job was ready to run and had to wait its turn; 0 where the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _used_below(top: int) -> tuple[int, float]:
    """Resident bytes and seconds of processor time of `top` and all processes below it."""
    parents: dict[int, int] = {}
    used: dict[int, tuple[int, int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        parents[int(name)] = int(fields[1])
        used[int(name)] = int(fields[21]), sum(int(field) for field in fields[11:15])
    resident = ticks = 0
    for pid, (pages, its_ticks) in used.items():
        ancestor = pid
        while ancestor not in (0, top):
            ancestor = parents.get(ancestor, 0)
        if ancestor == top:
            resident += pages
            ticks += its_ticks
    return resident * resource.getpagesize(), ticks / os.sysconf("SC_CLK_TCK")


def _private_namespaces(limits: Any, ids: tuple[int, int], scratch: str, hidden: list[str]) -> None:
    uid, gid = ids
    _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # an undumpable process may not write its own maps
    for name, text in (("setgroups", "deny"), ("uid_map", f"65534 {uid} 1"), ("gid_map", f"65534 {gid} 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, text.encode())
        os.close(descriptor)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE, "")
    _mount("tmpfs", scratch, "tmpfs", _MS_NOSUID | _MS_NODEV, f"size={limits['disk_bytes']},mode=1777")
    for place in ("/dev/shm", "/proc", *hidden):
        if os.path.isdir(place):
            _mount("tmpfs", place, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_RDONLY, "size=4k")
        elif os.path.exists(place):
            _mount("/dev/null", place, None, _MS_BIND, "")
    os.environ.update(TMPDIR=scratch, HOME=scratch)
    os.chdir(scratch)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str) -> None:
    encoded = (None if text is None else text.encode() for text in (source, target, kind))
    if _libc.mount(*encoded, ctypes.c_ulong(flags), data.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")


def _job(setup: Any, program: Any, job: Any, connections: list[int], output: int) -> None:
    """The process that runs what was asked for. Never returns."""
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.setsid()
        # Out of the way first, so that no dup2 overwrites what a later one needs.
        given = (os.open("/dev/null", os.O_RDONLY), output, output, *connections)
        high = [os.dup2(descriptor, 200 + index) for index, descriptor in enumerate(given)]
        for index, descriptor in enumerate(high):
            os.dup2(descriptor, index)
        os.closerange(len(high), 256)
        if setup["nested"]:
            _private_namespaces(job["limits"], setup["ids"], setup["scratch"], job["hidden"])
        for name, value in job["rlimits"]:
            limit = getattr(resource, name)
            ceiling = resource.getrlimit(limit)[1]
            if ceiling != resource.RLIM_INFINITY:
                value = min(value, ceiling)
            resource.setrlimit(limit, (value, value))
        _give_up_everything(bytes.fromhex(setup["seccomp"]))
    except BaseException as error:
        os.write(output, f"fork server: {error!r}\n".encode())
        os._exit(_SCENE_NOT_SET)
    try:
        program.main(job["payload"], *(socket.socket(fileno=index) for index in range(3, len(high))))
        sys.stdout.flush()
    except SystemExit as error:
        os._exit(error.code if isinstance(error.code, int) else 1)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {str(error)[:500]}\n".encode(errors="replace"))
        os._exit(1)
    os._exit(0)


def _give_up_everything(seccomp: bytes) -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _libc.capset(header, nothing) != 0 or _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot give up privileges")
    if not seccomp:
        return

    class _Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    program = _Program(len(seccomp) // 8, seccomp)
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot install the seccomp filter")


if __name__ == "__main__":
    _control = socket.socket(fileno=os.dup(0))
    try:
        serve(_control)
    except (BrokenPipeError, ConnectionError):
        os._exit(0)
