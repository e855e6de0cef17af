"""Starting the processes of a training job on this machine, and saying what became of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from code_repair_rl.errors import BadInput, CrrlError, MachineryFailed

_STATUS_FILE = "CRRL_JOB_STATUS_FILE"
"""Environment variable of a job's processes: where the first one leaves its exit code, which the launcher does not
pass on."""


def in_a_job() -> bool:
    """Whether a launcher (torchrun, accelerate) started this process as one of several.

    Raises:
        BadInput: srun started several, none of which knows the others.
    """
    told = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    if not told and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        raise BadInput(
            f"srun started this command {os.environ['SLURM_STEP_NUM_TASKS']} times, and each would be a whole job",
            where="srun",
            mend="start one task a node with torchrun in it, as scripts/slurm/train.sbatch does",
        )
    return told


def is_first() -> bool:
    """Whether this is the process that talks: the only one, or number 0 of a job."""
    return os.environ.get("RANK", "0") == "0"


def run_job(stage: str, recipe: str, overrides: Sequence[str], folder: Path, processes: int) -> None:
    """Train with several processes of this machine, and wait for them.

    A termination signal is passed on to them. Where one dies, torchrun ends the others.

    Raises:
        BadInput: the first process refused what it was given; it has said what.
        MachineryFailed: the job did not end well otherwise; what its processes said is above.
    """
    with tempfile.TemporaryDirectory(prefix="crrl-job-") as scratch:
        status_file = Path(scratch, "status")
        status = _finished(stage, recipe, overrides, folder, processes, status_file)
        code = status_file.read_text() if status_file.is_file() else ""
    if status == 0:
        return
    kind = BadInput if code == str(BadInput.exit_code) else MachineryFailed
    raise kind(
        f"a process of the training job ended badly (the launcher's exit status is {status}), and the others were "
        "ended with it",
        where=str(folder),
        mend="read the first error above; resume=true goes on from the last checkpoint",
    )


def leave_status(error: CrrlError) -> None:
    """Of a job's processes let the first one tell its launcher what kind of error ended it."""
    place = os.environ.get(_STATUS_FILE)
    if place and is_first():
        Path(place).write_text(str(error.exit_code))


def _finished(
    stage: str, recipe: str, overrides: Sequence[str], folder: Path, processes: int, status_file: Path
) -> int:
    command = [
        sys.executable,
        *("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"),
        *("-m", "code_repair_rl", stage, f"recipe={recipe}", f"run={folder}", "resume=true"),
        *overrides,
    ]
    # One thread a process unless the user says otherwise: several share this machine's cores.
    environment = {"OMP_NUM_THREADS": "1", **os.environ, _STATUS_FILE: str(status_file)}
    job = subprocess.Popen(command, env=environment)

    def passed_on(number: int, _: FrameType | None) -> None:
        job.send_signal(number)

    before = {number: signal.signal(number, passed_on) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        return job.wait()
    except KeyboardInterrupt:
        job.wait()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
