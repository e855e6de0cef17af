"""The fork server and its isolation between jobs."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from code_repair_rl.sandbox import Cause, Limits
from code_repair_rl.sandbox.fork_server import ForkServer, ServerBroken

PROGRAM = """
import os, sys, time
def main(payload, connection):
    scope = {"connection": connection}
    exec(payload, scope)
"""
QUICK = Limits(wall_seconds=5)


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer([("program", PROGRAM)], nested=True) as server:
        yield server


def run(server: ForkServer, code: str, limits: Limits = QUICK) -> tuple[bytes, Cause | None, int, str]:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            server.start(code, limits, theirs)
        end = server.finish()
        ours.setblocking(False)
        try:
            said = ours.recv(1 << 16)
        except BlockingIOError:
            said = b""
    return said, end.cause, end.code, end.output


def test_a_job_talks_over_its_connection(server: ForkServer) -> None:
    assert run(server, "connection.sendall(b'hello')") == (b"hello", Cause.FINISHED, 0, "")


def test_jobs_leave_nothing_behind_for_the_next(server: ForkServer) -> None:
    leave = "import os\nopen('x', 'w').write('x')\nif os.fork() == 0:\n    import time; time.sleep(60)"
    assert run(server, leave)[1] is Cause.FINISHED
    look = "import os; connection.sendall(repr((os.listdir(), os.listdir('/proc'), os.getpid())).encode())"
    assert run(server, look)[0] == b"([], [], 1)"


def test_jobs_import_from_a_folder_below_tmp_though_each_has_a_tmp_of_its_own() -> None:
    with TemporaryDirectory(dir="/tmp") as folder:
        Path(folder, "mine.py").write_text("value = b'42'\n")
        Path(folder).chmod(0o755)
        with ForkServer([("program", PROGRAM)], nested=True, python_path=(folder,)) as server:
            assert run(server, "import mine; connection.sendall(mine.value)")[0] == b"42"


def test_a_job_has_no_privilege_and_no_descriptor_but_its_own(server: ForkServer) -> None:
    code = """
import ctypes, os
def is_open(fd):
    try: os.fstat(fd)
    except OSError: return False
    return True
libc = ctypes.CDLL(None)
refused = libc.unshare(0x10000000), libc.mount(b'a', b'/tmp', b'tmpfs', 0, b'')
connection.sendall(repr((os.getuid(), [fd for fd in range(300) if is_open(fd)], *refused)).encode())
"""
    assert run(server, code)[0] == b"(65534, [0, 1, 2, 3], -1, -1)"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import os; os._exit(7)", Cause.FINISHED),
        ("raise ValueError('x')", Cause.FINISHED),
        ("import ctypes; ctypes.string_at(0)", Cause.CRASHED),
        ("while True: print('x' * 10000)", Cause.OUTPUT_LIMIT),
        ("import time; time.sleep(60)", Cause.TIMEOUT),
        ("while True: pass", Cause.TIMEOUT),
    ],
)
def test_the_cause_of_the_end_is_known(server: ForkServer, code: str, cause: Cause) -> None:
    assert run(server, code, Limits(wall_seconds=2, cpu_seconds=1))[1] is cause


def test_the_memory_of_all_processes_is_watched(server: ForkServer) -> None:
    code = "import os, time\nfor _ in range(4):\n    if os.fork() == 0: break\nx = bytearray(60 << 20)\ntime.sleep(9)"
    assert run(server, code, Limits(memory_bytes=150 << 20))[1] is Cause.OUT_OF_MEMORY


def test_the_host_can_stop_a_job(server: ForkServer) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server.start("import time; time.sleep(60)", QUICK, theirs)
        end = server.finish(stop_after=0.1)
    assert end.cause is None and end.wall_seconds < 3
    assert run(server, "connection.sendall(b'next')")[0] == b"next"


def test_a_stop_that_comes_too_late_hits_nobody(server: ForkServer) -> None:
    for _ in range(10):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            server.start("pass", QUICK, theirs)
            server.finish(stop_after=0.0)
        assert run(server, "connection.sendall(b'x')")[0] == b"x"


def test_a_job_that_the_machine_killed_is_not_its_own_doing(server: ForkServer) -> None:
    """A job cannot kill itself: it is the first process of its namespace."""
    assert run(server, "import os\nos.kill(os.getpid(), 9)\nconnection.sendall(b'still here')")[0] == b"still here"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server.start("connection.sendall(b'x')\nimport time; time.sleep(60)", QUICK, theirs)
        ours.recv(1)
        psutil.Process(server.pid).children(recursive=True)[-1].kill()
        end = server.finish()
    assert end.cause is Cause.INFRASTRUCTURE and end.error == "killed from outside"


def test_a_job_does_not_see_what_is_hidden_from_it() -> None:
    with TemporaryDirectory(dir="/tmp") as folder:
        for name in ("kept.py", "package/inside.py", "module.py"):
            place = Path(folder, name)
            place.parent.mkdir(exist_ok=True)
            place.write_text("answer = 42\n")
        for place in (Path(folder), Path(folder, "package")):
            place.chmod(0o755)
        look = (
            "for name in ('kept', 'module', 'package.inside'):\n    try: print(__import__(name, fromlist=['x']).answer)"
        )
        look += "\n    except Exception as error: print(type(error).__name__)"
        ours, theirs = socket.socketpair()
        with ours, theirs, ForkServer([("program", PROGRAM)], nested=True, python_path=(folder,)) as server:
            hidden = [f"{folder}/package", f"{folder}/module.py"]
            server.start(look, QUICK, theirs, hidden=hidden)
            assert server.finish().output.split() == ["42", "ModuleNotFoundError", "ModuleNotFoundError"]
            server.start(look, QUICK, theirs)
            assert server.finish().output.split() == ["42", "42", "42"]


def test_a_server_that_was_killed_says_so() -> None:
    with ForkServer([("program", PROGRAM)], nested=True) as server:
        for process in psutil.Process(server.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # the end of the first is the end of the others
                process.kill()
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(ServerBroken):
            server.start("pass", QUICK, theirs)
            server.finish()


def test_a_server_ends_with_its_host_even_where_bubblewrap_was_killed() -> None:
    server = ForkServer([("program", PROGRAM)], nested=True)
    inside = psutil.Process(server.pid).children(recursive=True)
    os.kill(server.pid, signal.SIGKILL)
    server.close()
    assert inside and not psutil.wait_procs(inside, timeout=10)[1]
