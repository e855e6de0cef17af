"""One process of a small training job: `python -m tests.training.distributed_program STAGE FOLDER RECIPE-JSON`.

Trains the tiny model on the tasks of the tests with scripted answers and real grading: single answers or, with `agent`
in the JSON, those of the repair-loop; with `copy_dtype` the model samples by itself. `model` names a folder to load it
from; how many weights a process holds after loading is then written beside the run. `die_at` kills the last process
with SIGKILL when that step begins; `max_minutes` gives processes, by number, a time budget.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from code_repair_rl.grading import Grader
from code_repair_rl.models import TINY_MODEL, load_model, load_tokenizer
from code_repair_rl.recipes import GrpoSection, LaunchSection, LoraSection, ModelSection, SftSection
from code_repair_rl.rewards import Reward
from code_repair_rl.rollouts.local import LocalEngine
from code_repair_rl.rollouts.repair_loop import RepairLoop
from code_repair_rl.runs import CompositeListener, RunDir, RunRecorder
from code_repair_rl.training import grpo, launch, sft, together
from code_repair_rl.training.collect import Collector
from code_repair_rl.training.task_stream import TaskStream
from tests.training.conftest import task
from tests.training.scored_script import ScoredScript, answer, answer_when_told


class _Dies(TrainerCallback):  # type: ignore[misc]
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step and together.place() == together.processes() - 1:
            os.kill(os.getpid(), signal.SIGKILL)


def pieces(model: torch.nn.Module) -> list[int]:
    """The numbers of weights in this process's pieces of the parameters that are in pieces."""
    return [one.ds_tensor.numel() for one in model.parameters() if hasattr(one, "ds_tensor")]


def main() -> None:
    """Train one stage and leave its run in the folder."""
    stage, folder, asked = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(1)
    section = LaunchSection(**asked.get("launch", {}))
    launch.join(section)
    if die_at := asked.get("die_at"):
        silence = grpo.silence

        def with_death(trainer: Any) -> None:
            silence(trainer)
            trainer.add_callback(_Dies(die_at))

        grpo.silence = sft.silence = with_death  # type: ignore[attr-defined]
    lora = LoraSection(rank=4) if asked.get("lora") else None
    model_settings = ModelSection(name=TINY_MODEL, autocast=asked.get("autocast", "none"), lora=lora)
    run = together.on_first(lambda: RunDir.create(folder, {"name": "test"}, resume=True))
    listener = RunRecorder() if together.is_first() else CompositeListener()
    with launch.loading(section, model_settings):
        policy, tokenizer = load_model(asked.get("model", TINY_MODEL)), load_tokenizer(TINY_MODEL)
    if "model" in asked:
        here = [sum(one.numel() for one in policy.parameters()), sum(pieces(policy))]
        (folder / f"loaded-{together.place()}.json").write_text(json.dumps(here))
    engine: Any = ScoredScript(policy, answer_when_told if asked.get("agent") else answer)
    if "copy_dtype" in asked:
        engine = LocalEngine(policy, tokenizer, copy_dtype=asked["copy_dtype"])
    tasks = [task(number) for number in range(1, 9)]
    steps = asked.get("steps", 3)
    listener.on_start(run, steps)
    common: dict[str, Any] = {
        "model_settings": model_settings,
        "seed": 0,
        "run": run,
        "listener": listener,
        "validate": (lambda step: 0.1 * step) if asked.get("validated") else None,
        "launch": section,
    }
    minutes = asked.get("max_minutes", {}).get(str(together.place()))
    if stage == "sft":
        found = sft.examples(tasks, engine.encode, tokenizer, "exact-line")
        settings = SftSection(
            steps=steps,
            batch_size=4,
            learning_rate=1e-3,
            warmup_steps=0,
            save_every=2,
            kl_beta=asked.get("kl_beta", 0.0),
            max_minutes=minutes,
        )
        sft.train_sft(policy, tokenizer, found, settings=settings, **common)
        return
    grpo_settings = GrpoSection(
        steps=steps,
        tasks_per_step=3,
        completions_per_task=4,
        micro_batch_tokens=asked.get("micro_batch_tokens", 700),
        learning_rate=1e-3,
        warmup_steps=0,
        max_new_tokens=200,
        max_resampled_groups=0,
        save_every=2,
        validation_tasks=0,
        kl_beta=asked.get("kl_beta", 0.0),
        loss=asked.get("loss", "dr_grpo"),
        max_minutes=minutes,
    )
    with Grader() as grader:
        collector = Collector(
            engine=engine,
            grader=grader,
            reward=Reward(),
            stream=TaskStream(tasks, seed=0),
            settings=grpo_settings,
            hint="exact-line",
            seed=0,
            run=run,
            listener=listener,
            agent=RepairLoop() if asked.get("agent") else None,
        )
        grpo.train_grpo(policy, tokenizer, collector, settings=grpo_settings, **common)


if __name__ == "__main__":
    main()
