"""Killed at random moments, a run ends as if nothing had been; and three hundred steps leave nothing behind."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from code_repair_rl.grading import Grader
from code_repair_rl.models import load_model
from code_repair_rl.recipes import GrpoSection
from code_repair_rl.runs import RunDir, RunListener
from code_repair_rl.tasks import Task
from tests.training.test_grpo import SETTINGS, Trained

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("kills", "seed"), [(2, 0), pytest.param(10, 1, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments_changes_nothing(kills: int, seed: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.training.killed_at_random", str(tmp_path), str(kills), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["killed_at_steps"], "at least one attempt was cut"
    whole, killed = RunDir.open(tmp_path / "whole"), RunDir.open(tmp_path / "killed")
    weights = load_model(killed.path / "model").state_dict()
    assert all(torch.equal(one, weights[name]) for name, one in load_model(whole.path / "model").state_dict().items())
    for name in ("train/loss", "train/kl", "train/entropy", "reward/total", "pass_rate"):
        assert [row.values[name] for row in killed.metrics()] == [row.values[name] for row in whole.metrics()]
    for step in whole.rollout_steps():
        ours, theirs = killed.rollouts(step), whole.rollouts(step)
        assert [(row.task_id, row.token_ids, row.logprobs, row.advantage) for row in ours] == [
            (row.task_id, row.token_ids, row.logprobs, row.advantage) for row in theirs
        ]
    assert not list(killed.path.glob(".checkpoint.*")), "what was half written is gone"


class Watch(RunListener):
    """Notes what the process holds, now and then."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.held: dict[int, tuple[int, int, int]] = {}
        """Step to resident bytes, threads, open files."""

    def on_phase(self, step: int, phase: str) -> None:
        if phase == "train" and step % self.every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident = pages * os.sysconf("SC_PAGE_SIZE")
            self.held[step] = (resident, threading.active_count(), len(list(Path("/proc/self/fd").iterdir())))


@pytest.mark.slow
def test_three_hundred_steps_hold_no_more_at_the_end_than_at_the_start(tasks: list[Task], tmp_path: Path) -> None:
    watch = Watch(every=50)
    settings: GrpoSection = SETTINGS.model_copy(update={"steps": 300, "save_every": 100})
    with Grader() as grader:
        Trained(tasks, tmp_path / "run", grader, settings, watching=watch)
    first, last = watch.held[100], watch.held[300]
    assert last[0] <= first[0] + 32 * 2**20
    assert last[1:] == first[1:]
    children = [
        stat
        for stat in Path("/proc").glob("[0-9]*/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[1] == str(os.getpid())
    ]
    assert not [stat for stat in children if "defunct" not in stat.read_text()], "the grader's workers have ended"
