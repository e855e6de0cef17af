"""Jobs in the real sandbox."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.sandbox import MIB, Cause, Job, JobResult, Limits, Sandbox, select_backend


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return select_backend()


def python(sandbox: Sandbox, code: str, **more: object) -> JobResult:
    return sandbox.run(Job(argv=("python", "-S", "-c", code), **more))  # type: ignore[arg-type]


def test_output_and_exit_code_come_back(sandbox: Sandbox) -> None:
    result = python(sandbox, "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (result.cause, result.exit_code, result.stdout, result.stderr) == (Cause.FINISHED, 3, b"out\n", b"err\n")
    assert result.isolation == sandbox.isolation and not result.ok


def test_files_and_standard_input_go_in_and_files_come_out(sandbox: Sandbox) -> None:
    code = "import sys; open('b/out.txt', 'w').write(open('a/in.txt').read() + sys.stdin.read())"
    files = {"a/in.txt": "in ", "b/bytes": b"\xff\x00"}
    result = python(sandbox, code, files=files, stdin="and stdin", collect=("b",))
    assert result.ok, result
    assert dict(result.files) == {"b/out.txt": b"in and stdin", "b/bytes": b"\xff\x00"}


def test_large_input_and_output_do_not_block(sandbox: Sandbox) -> None:
    data = os.urandom(3 * MIB)
    result = python(sandbox, "import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, open('x', 'wb'))", stdin=data,
                    collect=("x",))  # fmt: skip
    assert result.files["x"] == data


def test_a_tree_is_copied_in_and_the_original_stays_as_it_was(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "m.py").write_text("value = 1\n")
    (tmp_path / "package" / "m.py").chmod(0o600)
    (tmp_path / "link").symlink_to("package/m.py")
    code = "import package.m as m; print(m.value, open('link').read()); open('package/m.py', 'w').write('x')"
    result = python(sandbox, "import sys; sys.path.insert(0, '.'); " + code, trees={".": str(tmp_path)})
    assert result.stdout == b"1 value = 1\n\n", result
    assert (tmp_path / "package" / "m.py").read_text() == "value = 1\n"


def test_folders_are_mounted_read_only(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("data")
    tmp_path.chmod(0o755)
    code = "print(open('/data/data.txt').read()); open('/data/new', 'w')"
    result = python(sandbox, code, read_only={"/data": str(tmp_path)})
    assert result.stdout == b"data\n" and b"Read-only" in result.stderr


def test_packages_are_found_on_the_python_path(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("value = 42\n")
    tmp_path.chmod(0o755)
    assert python(sandbox, "import mine; print(mine.value)", python_path=(str(tmp_path),)).stdout == b"42\n"


def test_nothing_of_this_process_environment_is_inherited(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRRL_TEST_SECRET", "secret")
    result = python(sandbox, "import os; print(sorted(os.environ))", environment={"MINE": "1"})
    assert b"CRRL_TEST_SECRET" not in result.stdout and b"MINE" in result.stdout


def test_the_wall_clock_ends_the_whole_tree(sandbox: Sandbox) -> None:
    code = "import os, time\nif os.fork() == 0: os.setsid()\nprint('began', flush=True)\ntime.sleep(60)"
    result = python(sandbox, code, limits=Limits(wall_seconds=4))
    assert result.cause is Cause.TIMEOUT and result.wall_seconds < 9
    assert b"began" in result.stdout


def test_processor_time_is_limited(sandbox: Sandbox) -> None:
    result = python(sandbox, "while True: pass", limits=Limits(cpu_seconds=1, wall_seconds=60))
    assert (result.cause, result.exit_code) == (Cause.TIMEOUT, 152)


def test_the_memory_of_one_process_is_limited(sandbox: Sandbox) -> None:
    result = python(sandbox, "bytearray(1 << 40)")
    assert result.exit_code == 1 and b"MemoryError" in result.stderr


def test_the_memory_of_all_processes_together_is_limited(sandbox: Sandbox) -> None:
    code = "import os, time\nfor _ in range(4):\n    if os.fork() == 0: break\nx = bytearray(60 << 20)\ntime.sleep(9)"
    result = python(sandbox, code, limits=Limits(memory_bytes=150 * MIB))
    assert result.cause is Cause.OUT_OF_MEMORY


def test_output_is_capped(sandbox: Sandbox) -> None:
    result = python(sandbox, "while True: print('x' * 1000)", limits=Limits(output_bytes=10_000))
    assert result.cause is Cause.OUTPUT_LIMIT and len(result.stdout) <= 10_000


def test_the_disk_is_small(sandbox: Sandbox) -> None:
    code = "open('x', 'wb').write(bytes(9 << 20))"
    result = python(sandbox, code, limits=Limits(disk_bytes=4 * MIB))
    assert b"No space left" in result.stderr


@pytest.mark.parametrize(("code", "status"), [("os.abort()", 134), ("os.kill(os.getpid(), 9)", 137)])
def test_signals_are_told_as_a_shell_tells_them(sandbox: Sandbox, code: str, status: int) -> None:
    result = python(sandbox, f"import os; {code}")
    assert (result.cause, result.exit_code) == (Cause.CRASHED, status)


@pytest.mark.parametrize("whom", ["-1", "os.getppid()"])
def test_a_job_cannot_end_the_process_that_reports_on_it(sandbox: Sandbox, whom: str) -> None:
    code = f"""import os, signal
open('x', 'w').write('kept')
try:
    os.kill({whom}, signal.SIGKILL)
except ProcessLookupError:  # nobody else who could be killed
    pass
os._exit(5)"""
    result = python(sandbox, code, collect=("x",))
    assert (result.cause, result.exit_code, dict(result.files)) == (Cause.FINISHED, 5, {"x": b"kept"})


def test_orphans_of_a_job_are_buried(sandbox: Sandbox) -> None:
    code = """if True:
        import os
        for _ in range(200):
            held, holds = os.pipe()
            if os.fork() == 0:
                if os.fork() == 0:
                    while os.getppid() != 1:
                        pass
                os._exit(0)
            os.wait()
            os.close(holds)
            os.read(held, 1)  # nothing, once the orphan is gone
            os.close(held)
        print("done")
    """
    result = python(sandbox, code, limits=Limits(processes=40))
    assert result.stdout == b"done\n", result


def test_a_jail_ends_with_the_process_that_made_it(sandbox: Sandbox, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    pipe.chmod(0o666)
    job = "out = open('/seen/pipe', 'wb', 0); out.write(b'up'); import time; time.sleep(600)"
    program = (
        "from code_repair_rl.sandbox import Job, select_backend\n"
        f"select_backend().run(Job(argv=('python', '-S', '-c', {job!r}), read_only={{'/seen': {str(tmp_path)!r}}}))"
    )
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with subprocess.Popen([sys.executable, "-c", program]) as maker:
        assert select.select([reading], [], [], 60)[0] and os.read(reading, 2) == b"up"
        maker.kill()
    assert select.select([reading], [], [], 20)[0] and os.read(reading, 1) == b""
    os.close(reading)


def test_an_unknown_command_is_told_as_a_shell_tells_it(sandbox: Sandbox) -> None:
    assert sandbox.run(Job(argv=("no-such-command",))).exit_code == 127


def test_only_regular_files_are_read_back(sandbox: Sandbox) -> None:
    code = """import os
open('kept', 'w').write('x')
os.symlink('/etc/hostname', 'link'); os.symlink('/usr', 'folder_link'); os.mkfifo('pipe'); os.link('kept', 'hard')
open('other', 'w').write('y')"""
    assert dict(python(sandbox, code, collect=(".", "link", "folder_link/bin", "pipe")).files) == {"other": b"y"}


def test_there_is_no_network_and_no_privilege(sandbox: Sandbox) -> None:
    code = """import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
print(os.getuid() != 0, libc.unshare(0x10000000), libc.ptrace(16, 1, 0, 0), os.path.exists('/sys'))
try: socket.create_connection(('1.1.1.1', 53), 1)
except OSError as error: print(error.strerror)
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
print(int(status['CapEff'], 16), int(status['CapPrm'], 16), status['NoNewPrivs'].strip(), status['Seccomp'].strip())"""
    assert python(sandbox, code).stdout.decode().splitlines() == [
        "True -1 -1 False",
        "Network is unreachable",
        "0 0 1 2",
    ]


@pytest.mark.parametrize(
    "job",
    [
        Job(argv=("true",), files={"../x": ""}),
        Job(argv=("true",), files={"/x": ""}),
        Job(argv=("true",), collect=("a/../../x",)),
        Job(argv=("true",), trees={".": "/no/such/folder"}),
        Job(argv=("true",), read_only={"/x": "/no/such/folder"}),
    ],
)
def test_a_job_that_is_wrong_is_refused(sandbox: Sandbox, job: Job) -> None:
    with pytest.raises(BadInput):
        sandbox.run(job)


def test_jobs_run_side_by_side_from_threads(sandbox: Sandbox) -> None:
    results: dict[int, bytes] = {}

    def run(number: int) -> None:
        results[number] = python(sandbox, f"print({number})").stdout

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n".encode() for number in range(6)}


def test_no_descriptors_are_left_open(sandbox: Sandbox) -> None:
    python(sandbox, "pass")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        python(sandbox, "print(1)", stdin="x", collect=("x",))
        python(sandbox, "while True: print('x' * 1000)", limits=Limits(output_bytes=1000))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
