"""Container engines: their command lines, and the launcher's way over the standard streams.

Where no engine is installed, a stand-in for its client runs what it is given after the image on this machine: the
command line's contract and the whole way back are tested, the engine's isolation is not.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.sandbox import Cause, Job, Limits
from code_repair_rl.sandbox.containers import Container, apptainer_command, docker_command

JOB = Job(argv=("true",), read_only={"/data": "/srv/data"}, limits=Limits(memory_bytes=1 << 30, processes=24))


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_the_command_line_of_docker_and_podman(engine: str) -> None:
    line = docker_command(f"/usr/bin/{engine}", "crrl-1", "python:3.11-slim", JOB)
    assert line[:3] == [f"/usr/bin/{engine}", "run", "--rm"] and line[-1] == "python:3.11-slim"
    for option in (
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--pull=never",
        "--ipc=private",
        "--interactive",
    ):
        assert option in line
    assert line[line.index("--user") + 1] == "65534:65534"
    assert line[line.index("--memory") + 1] == line[line.index("--memory-swap") + 1]
    assert "type=bind,source=/srv/data,target=/data,readonly" in line
    assert not {"--privileged", "--pid=host", "--network=host"} & set(line)


def test_the_command_line_of_apptainer() -> None:
    line = apptainer_command("/usr/bin/apptainer", "image.sif", JOB)
    assert line[:2] == ["/usr/bin/apptainer", "exec"] and line[-1] == "image.sif"
    for option in ("--containall", "--cleanenv", "--no-home", "--no-privs", "--net"):
        assert option in line
    assert line[line.index("--network") + 1] == "none" and "/srv/data:/data:ro" in line


def test_paths_that_the_command_line_cannot_carry_are_refused() -> None:
    with pytest.raises(BadInput):
        docker_command("docker", "x", "image", Job(argv=("true",), read_only={"/data": "/srv/a,readonly=false"}))


def test_an_engine_that_is_not_there_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MachineryFailed, match="not installed"):
        Container("podman").run(Job(argv=("true",)))
    assert not Container("podman").probe().works


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A client that runs what follows the image `stand-in` here, with /job replaced by a folder of this machine."""
    client = tmp_path / "docker"
    client.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"open({str(tmp_path / 'calls')!r}, 'a').write(' '.join(sys.argv[1:3]) + '\\n')\n"
        "if sys.argv[1] == 'rm': sys.exit(0)\n"
        "command = sys.argv[sys.argv.index('stand-in') + 1:]\n"
        "os.execv(sys.executable, [sys.executable, *command[1:]])\n"
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("CRRL_SANDBOX_IMAGE", "stand-in")
    monkeypatch.setattr("code_repair_rl.sandbox.containers.JOB_FOLDER", str(tmp_path / "job"))
    monkeypatch.setattr("code_repair_rl.sandbox.containers._PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    return tmp_path


def test_files_and_output_come_back_over_the_standard_streams(stand_in: Path) -> None:
    code = """import sys
print(open('in').read() + sys.stdin.read())
print('e', file=sys.stderr)
open('out', 'w').write('o')
sys.exit(3)"""
    job = Job(argv=("python", "-S", "-c", code), files={"in": "in "}, stdin="stdin", collect=("out",))
    result = Container("docker").run(job)
    assert (result.cause, result.exit_code) == (Cause.FINISHED, 3), result
    assert (result.stdout, result.stderr, dict(result.files)) == (b"in stdin\n", b"e\n", {"out": b"o"})
    assert result.isolation == "docker"
    assert [call.split()[0] for call in (stand_in / "calls").read_text().splitlines()] == ["run", "rm"]


def test_limits_hold_over_the_standard_streams(stand_in: Path) -> None:
    loud = Job(argv=("python", "-S", "-c", "print('x' * 100000)"), limits=Limits(output_bytes=1000))
    assert Container("docker").run(loud).cause is Cause.OUTPUT_LIMIT
    slow = Job(argv=("python", "-S", "-c", "import time; time.sleep(60)"), limits=Limits(wall_seconds=1))
    assert Container("docker").run(slow).cause is Cause.TIMEOUT


def test_an_engine_that_fails_is_our_failure(stand_in: Path) -> None:
    (stand_in / "docker").write_text("#!/bin/sh\necho 'no such image' >&2\nexit 125\n")
    result = Container("docker").run(Job(argv=("true",)))
    assert result.cause is Cause.INFRASTRUCTURE and "no such image" in result.error
