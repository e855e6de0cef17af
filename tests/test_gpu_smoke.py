"""`scripts/gpu_smoke.sh` on a machine that holds nothing yet; stand-ins note how they are called."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_smoke.sh"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of programs; `calls` lists what was called, each with the devices that it saw."""
    note = f'echo "${{CUDA_VISIBLE_DEVICES:-all}} $(basename "$0") $*" | tr "\\n" " " >> {tmp_path}/calls\n'
    note += f"echo >> {tmp_path}/calls\n"
    programs = {
        "nvidia-smi": "echo 'GPU 0: one'; echo 'GPU 1: two'",
        "crrl": note,
        "python": note + 'case "$*" in *deepspeed*) exit 1;; esac',
        "vllm": "exit 1",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def smoke(machine: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{machine}:{os.environ['PATH']}", "TMPDIR": str(machine), **more}
    return subprocess.run(["bash", str(SCRIPT), "some/model"], env=environment, capture_output=True, text=True)


def test_tasks_and_model_come_first_and_every_stage_asks_those_tasks(machine: Path) -> None:
    done = smoke(machine)
    assert done.returncode == 0, done.stdout + done.stderr
    calls = (machine / "calls").read_text().splitlines()
    assert "crrl tasks build humaneval-bugs" in calls[0]
    assert "load_model" in calls[1] and "some/model" in calls[1]
    built = calls[0].split("--out ")[1].strip()
    stages = [call for call in calls if " crrl sft " in call or " crrl grpo " in call]
    assert len(stages) == 4
    assert all(f"tasks.name={built}" in call for call in stages)


@pytest.mark.parametrize(("visible", "first"), [("", "0"), ("5,6", "5")])
def test_a_check_on_one_gpu_sees_one(machine: Path, visible: str, first: str) -> None:
    smoke(machine, **({"CUDA_VISIBLE_DEVICES": visible} if visible else {}))
    calls = (machine / "calls").read_text().splitlines()
    single = [call for call in calls if "/sft" in call or "/grpo" in call or "test_on_gpu" in call]
    assert len(single) == 3
    assert all(call.startswith(f"{first} ") for call in single)
    several = [call for call in calls if "launch.kind=ddp" in call]
    assert [call.split()[0] for call in several] == [visible or "all"]


def test_a_machine_without_a_gpu_is_told_so(machine: Path) -> None:
    (machine / "nvidia-smi").write_text("#!/usr/bin/env bash\nexit 9\n")
    done = smoke(machine)
    assert (done.returncode, done.stderr) == (3, "error: no GPU is here\n")


def test_nothing_else_is_tried_without_tasks(machine: Path) -> None:
    (machine / "crrl").write_text("#!/usr/bin/env bash\nexit 1\n")
    done = smoke(machine)
    assert done.returncode == 1
    assert "failed:\n  tasks were made" in done.stdout
    assert "SFT" not in done.stdout
