"""Who started a command, and as one of how many."""

import pytest

from code_repair_rl.cli.processes import in_a_job
from code_repair_rl.errors import BadInput


def test_a_launcher_tells_each_process_its_number_and_srun_alone_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    assert not in_a_job()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert not in_a_job()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    with pytest.raises(BadInput, match="8 times"):
        in_a_job()
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert in_a_job()
