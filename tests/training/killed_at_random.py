"""Trains a tiny model undisturbed, and again while being killed (SIGKILL) at random moments and started anew.

    python -m tests.training.killed_at_random FOLDER KILLS SEED

Leaves two finished runs, FOLDER/whole and FOLDER/killed. Everything is imported once; each attempt is a fork, so that
ten attempts take seconds. Prints one line of JSON: how many attempts were really killed, and at which recorded step.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from code_repair_rl.grading import Grader
from code_repair_rl.models import TINY_MODEL, load_model, load_tokenizer, settle_process
from code_repair_rl.recipes import GrpoSection, ModelSection
from code_repair_rl.rewards import Reward
from code_repair_rl.runs import CompositeListener, RunDir, RunRecorder
from code_repair_rl.training.collect import Collector
from code_repair_rl.training.grpo import train_grpo
from code_repair_rl.training.task_stream import TaskStream
from tests.training.conftest import task
from tests.training.scored_script import ScoredScript, answer

SETTINGS = GrpoSection(
    steps=8,
    tasks_per_step=2,
    completions_per_task=4,
    micro_batch_tokens=900,
    learning_rate=1e-3,
    warmup_steps=2,
    max_new_tokens=200,
    max_resampled_groups=1,
    kl_beta=0.05,
    kl_reference="moving",
    save_every=2,
    validation_tasks=0,
)


def train(folder: Path) -> None:
    """Start the run, or go on with it."""
    settle_process(1)
    policy = load_model(TINY_MODEL)
    run = RunDir.create(folder, {"name": "killed"}, resume=True)
    listener = CompositeListener(RunRecorder())
    with run.exclusively(), Grader(workers=1) as grader:
        listener.on_start(run, SETTINGS.steps)
        collector = Collector(
            engine=ScoredScript(policy, answer),
            grader=grader,
            reward=Reward(),
            stream=TaskStream([task(number) for number in range(1, 7)], seed=0),
            settings=SETTINGS,
            hint="exact-line",
            seed=0,
            run=run,
            listener=listener,
        )
        train_grpo(
            policy,
            load_tokenizer(TINY_MODEL),
            collector,
            settings=SETTINGS,
            model_settings=ModelSection(name=TINY_MODEL, autocast="none"),
            seed=0,
            run=run,
            listener=listener,
            validate=None,
        )


def attempt(folder: Path, kill_after_seconds: float | None) -> tuple[int, float]:
    """Fork, train, and kill the child in time; its wait status, and how long it lived."""
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            train(folder)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    while kill_after_seconds is not None and time.monotonic() - begun < kill_after_seconds:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status, time.monotonic() - begun
        time.sleep(0.01)
    if kill_after_seconds is not None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return status, time.monotonic() - begun


def main() -> None:
    """See the module."""
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    status, whole_seconds = attempt(folder / "whole", None)
    assert status == 0
    rng = random.Random(seed)
    at_steps: list[int] = []
    for _ in range(kills):
        status, _ = attempt(folder / "killed", rng.uniform(0.1, 0.9) * whole_seconds)
        if os.WIFSIGNALED(status):
            at_steps.append(len(RunDir.open(folder / "killed").rollout_steps()) if (folder / "killed").exists() else 0)
        elif status != 0:
            sys.exit(1)
    status, _ = attempt(folder / "killed", None)
    assert status == 0
    print(json.dumps({"killed_at_steps": at_steps}))


if __name__ == "__main__":
    main()
