"""One whole GRPO step against TRL's own GRPOTrainer: sampling, forward and backward, optimiser; rewards are given.

The same weights, prompts, completion lengths and group size, in turn in one process; TRL runs its own `generate`,
loss, backward and optimiser through its own trainer, ours through the trainer that `crrl grpo` uses. Phases are timed
apart: prefill (sampling one token), decode (the rest of the sampling), forward and backward, optimiser (clipping,
AdamW). Long cases time a part of the step (some groups' sampling, some rows' backward) and count the equal rest;
`details` names the parts. Both train fp32 weights, and compute in what this machine is fast in (as with
`model.autocast=auto`): fp32, or bf16 by autocast. `--compute` names one. For TRL, weights held in bf16 altogether are
tried as well (`--all-precisions`) and the faster is taken.

Memory is the resident peak of a phase above what was resident before the two ways began, from the kernel (Linux); on a
GPU it is what torch had allocated at most. There, nothing is counted as equal: all of a step is timed.

The second table (`--table`) is the cost of a step's forward and backward per answer, ours and TRL's, over group sizes
and prompt lengths.

    python benchmarks/grpo_step.py [--quick] [--json] [--threads N] [--processor-time] [--case 200/40] [--table]
                                   [--compute float32]
    python benchmarks/grpo_step.py --gpu [--model FOLDER] [--group-size 16]
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from trl import GRPOConfig, GRPOTrainer

from code_repair_rl.models import fetch_embedded_model, load_model, load_tokenizer, release_memory, tiny_model
from code_repair_rl.models.precision import faster_dtype
from code_repair_rl.models.tiny import tiny_tokenizer
from code_repair_rl.rollouts import Sampling
from code_repair_rl.rollouts.local import LocalEngine
from code_repair_rl.runs import RolloutRow
from code_repair_rl.training.batches import drawn_tokens, micro_batches
from code_repair_rl.training.grpo import RepairGRPOTrainer
from code_repair_rl.training.together import parts_of_step


@dataclass(frozen=True)
class Case:
    prompt: int
    completion: int
    sampled_groups: int
    """Groups whose sampling is timed; the rest of the step's is counted as equal."""
    trl_rows: int
    """Rows whose forward and backward TRL is timed on; ours is timed on a whole group."""
    groups: int = 6
    size: int = 8

    @property
    def name(self) -> str:
        return f"{self.prompt}/{self.completion}"


CASES = (Case(200, 40, 6, 8), Case(800, 64, 2, 4), Case(2000, 64, 1, 2))
WANTED = {"200/40": 2.2, "800/64": 3.5, "2000/64": 5.0}
"""Whole step, at least this many times as fast."""
_CPU_TOKENS = (1536, 2000)
"""Ours and TRL's micro-batch: at most so many tokens (TRL's padded), so that both need about the same memory."""
_GPU_TOKENS = (16_384, 16_384)


@dataclass(frozen=True)
class Step:
    """Seconds of a whole step, by phase, and MiB."""

    prefill: float
    decode: float
    forward_backward: float
    optimiser: float
    peak_mib: float

    @property
    def whole(self) -> float:
        return self.prefill + self.decode + self.forward_backward + self.optimiser


clock: Callable[[], float] = time.perf_counter


def seconds(call: Callable[[], object]) -> float:
    finish_gpu()
    begun = clock()
    call()
    finish_gpu()
    return clock() - begun


def finish_gpu() -> None:
    """Wait for what the GPU was given, so that clocks read what it took."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def resident_mib(field: str) -> float:
    """`VmRSS` now or `VmHWM`, the highest since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0.0


def forget_peak() -> None:
    """Start the kernel's memory of the peak anew."""
    release_memory()
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


@dataclass(frozen=True)
class Machine:
    """What both ways run on, and with which weights."""

    model: str
    tiny: bool
    gpu: bool
    tokens: tuple[int, int]
    compute: str
    """`bfloat16`, by autocast, or `float32`."""


class Ways:
    """Both trainers around models of the same weights."""

    def __init__(self, case: Case, folder: str, machine: Machine, trl_weights: str) -> None:
        self.case = case
        self.machine = machine
        self.device = torch.device("cuda" if machine.gpu else "cpu")
        self.tokenizer = tiny_tokenizer() if machine.tiny else load_tokenizer(machine.model)
        release_memory()
        self.base_mib = torch.cuda.memory_allocated() / 2**20 if machine.gpu else resident_mib("VmRSS")
        self.folder = folder
        self.trl_weights = trl_weights
        generator = torch.Generator().manual_seed(0)
        vocabulary = 259 if machine.tiny else 49152

        def tokens(count: int) -> list[int]:
            return torch.randint(3, vocabulary, (count,), generator=generator).tolist()

        self.prompts = [tokens(case.prompt) for _ in range(case.groups)]
        self.answers = [[tokens(case.completion) for _ in range(case.size)] for _ in range(case.groups)]
        self.advantages = torch.linspace(-1.0, 1.0, case.size).tolist()

    def model(self, dtype: str) -> Any:
        loaded: Any = tiny_model(dtype=dtype) if self.machine.tiny else load_model(self.machine.model, dtype=dtype)
        loaded.to(self.device)
        loaded.generation_config.eos_token_id = None  # every row to its full length, in both ways
        return loaded.requires_grad_(True).train()

    def trainer(self, kind: type[GRPOTrainer], model: Any, **more: Any) -> Any:
        config = GRPOConfig(
            output_dir=self.folder,
            use_cpu=not self.machine.gpu,
            bf16=self.machine.compute == "bfloat16",
            report_to="none",
            per_device_train_batch_size=1,
            gradient_accumulation_steps=self.case.groups * self.case.size,
            num_generations=self.case.size,
            max_completion_length=self.case.completion,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            beta=0.0,
            loss_type="dr_grpo",
            scale_rewards="none",
            activation_checkpointing=False,
            learning_rate=1e-6,
            max_steps=1,
            optim="adamw_torch_fused",
            dataloader_pin_memory=False,
        )
        trainer = kind(
            model=model,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": [""] * self.case.groups}),
            processing_class=self.tokenizer,
            **more,
        )
        trainer.create_optimizer()
        trainer.model_wrapped = trainer.model = trainer.accelerator.prepare_model(trainer.model)
        trainer.current_gradient_accumulation_steps = config.gradient_accumulation_steps
        return trainer

    def ours(self) -> Step:
        model = self.model("float32")
        engine = LocalEngine(
            model, self.tokenizer, copy_dtype="bfloat16" if self.machine.compute == "bfloat16" else None
        )
        engine.stop_ids = ()
        collector = SimpleNamespace(run=None, listener=None)  # what else it would do, this benchmark does itself
        trainer = self.trainer(RepairGRPOTrainer, model, collector=collector, micro_batch_tokens=self.machine.tokens[0])

        def sample(count: int) -> object:
            engine.refresh()
            return engine.generate(
                self.prompts[: self.case.sampled_groups],
                completions_per_prompt=self.case.size,
                sampling=Sampling(temperature=1.0, max_new_tokens=count, seed=0),
            )

        timed_groups = self.case.groups if self.machine.gpu else 1
        groups = [[self.row(group, number) for number in range(self.case.size)] for group in range(timed_groups)]
        count = timed_groups * self.case.size
        batches = [one for one in micro_batches(groups, count, most_tokens=self.machine.tokens[0]) if one.rows]
        parts = parts_of_step(batches, batches, sum(drawn_tokens(batch.rows, True) for batch in batches))

        def forward_backward() -> None:
            for batch, part in zip(batches, parts, strict=True):
                loss = trainer.compute_loss(trainer.model, trainer._inputs(batch, part))
                trainer.accelerator.backward(loss)

        return self.timed(trainer, sample, forward_backward, self.case.groups / timed_groups)

    def trl(self) -> Step:
        trainer = self.trainer(GRPOTrainer, self.model(self.trl_weights), reward_funcs=lambda **_: [0.0])
        repeated = [prompt for prompt in self.prompts[: self.case.sampled_groups] for _ in range(self.case.size)]

        def sample(count: int) -> object:
            trainer.generation_config.max_new_tokens = count
            trainer.generation_config.eos_token_id = None
            return trainer._generate_single_turn(repeated, None, {}, self.case.size)

        fitting = self.machine.tokens[1] // (self.case.prompt + self.case.completion)
        per_forward = max(1, min(self.case.trl_rows, fitting))
        every = [(group, number) for group in range(self.case.groups) for number in range(self.case.size)]

        def forward_backward() -> None:
            for start in range(0, self.case.trl_rows, per_forward):
                rows = every[start : min(start + per_forward, self.case.trl_rows)]
                ids = torch.tensor([self.prompts[group] for group, _ in rows], device=self.device)
                answers = torch.tensor([self.answers[group][number] for group, number in rows], device=self.device)
                inputs = {
                    "prompt_ids": ids,
                    "prompt_mask": torch.ones_like(ids),
                    "completion_ids": answers,
                    "completion_mask": torch.ones_like(answers),
                    "advantages": torch.tensor([self.advantages[number] for _, number in rows], device=self.device),
                    "num_items_in_batch": torch.tensor(answers.numel(), device=self.device),
                }
                trainer.accelerator.backward(trainer.compute_loss(trainer.model, inputs))

        rows_in_step = self.case.groups * self.case.size
        return self.timed(trainer, sample, forward_backward, rows_in_step / self.case.trl_rows)

    def row(self, group: int, number: int) -> RolloutRow:
        answer = self.answers[group][number]
        return RolloutRow(
            step=1,
            task_id="t",
            problem="p",
            split="train",
            group=group,
            sample=number,
            hint="none",
            prompt="",
            prompt_ids=tuple(self.prompts[group]),
            token_ids=tuple(answer),
            logprobs=(-10.0,) * len(answer),
            text="",
            finish_reason="stop",
            outcome="failed",
            passed=False,
            score=0.0,
            reward=0.0,
            advantage=self.advantages[number],
        )

    def timed(
        self, trainer: Any, sample: Callable[[int], object], forward_backward: Callable[[], None], times: float
    ) -> Step:
        forget_peak()
        model, optimiser = trainer.model, trainer.optimizer

        def update() -> None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()

        if self.case.sampled_groups:
            model.eval()
            if self.machine.gpu:
                sample(2)  # warms up: kernels are loaded when they are first used
            prefill, whole = seconds(lambda: sample(1)), seconds(lambda: sample(self.case.completion))
            share = self.case.groups / self.case.sampled_groups
            model.train()
        else:
            prefill, whole, share = 0.0, 0.0, 0.0
        forward_backward()  # makes the gradients and warms up
        update()  # makes the moments
        backward = seconds(forward_backward)
        optimised = seconds(update)
        peak = torch.cuda.max_memory_allocated() / 2**20 if self.machine.gpu else resident_mib("VmHWM")
        peak -= self.base_mib
        return Step(prefill * share, (whole - prefill) * share, backward * times, optimised, peak)


def compared(case: Case, folder: str, machine: Machine, precisions: tuple[str, ...]) -> dict[str, Any]:
    """Both ways in turn; ours first, so that what it leaves behind counts against it."""
    found: dict[str, Step] = {"ours": Ways(case, folder, machine, "float32").ours()}
    gc.collect()
    trl = {}
    for precision in precisions:
        trl[precision] = Ways(case, folder, machine, precision).trl()
        gc.collect()
    best = min(trl, key=lambda precision: trl[precision].whole)
    theirs = trl[best]
    ours = found["ours"]
    sampling = (theirs.prefill + theirs.decode, ours.prefill + ours.decode)
    return {
        "case": case.name,
        "groups": case.groups,
        "group_size": case.size,
        "sampled_groups": case.sampled_groups,
        "trl_rows_timed": case.trl_rows,
        "trl_weights": best,
        "ours": asdict(ours) | {"whole": ours.whole},
        "trl": {name: asdict(step) | {"whole": step.whole} for name, step in trl.items()},
        "ratio_whole": theirs.whole / ours.whole,
        "ratio_forward_backward": theirs.forward_backward / ours.forward_backward,
        "ratio_sampling": sampling[0] / sampling[1] if sampling[1] else None,
        "ratio_memory": theirs.peak_mib / ours.peak_mib if ours.peak_mib else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the shortest case only")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument(
        "--processor-time", action="store_true", help="seconds of the processor, not of the wall: on a busy machine"
    )
    parser.add_argument("--case", choices=[case.name for case in CASES], help="this case only")
    parser.add_argument("--compute", choices=["bfloat16", "float32"], help="in place of what this machine is fast in")
    parser.add_argument("--all-precisions", action="store_true", help="try TRL with weights held in bf16, too")
    parser.add_argument("--table", action="store_true", help="forward and backward over group size and prompt length")
    parser.add_argument("--most-tokens", type=int, default=6000, help="of the table: leave out larger groups")
    parser.add_argument(
        "--tiny", action="store_true", help="the tiny random model: checks the script, measures nothing"
    )
    parser.add_argument("--gpu", action="store_true", help="on the GPU, everything timed in full")
    parser.add_argument("--model", help="folder of another model (its context must hold the case)")
    parser.add_argument("--group-size", type=int, default=8)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.processor_time and arguments.gpu:
        parser.error("--processor-time says nothing of a GPU")
    if arguments.processor_time:
        global clock
        clock = time.process_time
    wanted = [case for case in CASES if arguments.case in (None, case.name)]
    if arguments.quick and arguments.case is None:
        wanted = wanted[:1]
    wanted = [replace(case, size=arguments.group_size) for case in wanted]
    if arguments.gpu:
        wanted = [replace(case, sampled_groups=case.groups, trl_rows=case.groups * case.size) for case in wanted]
    machine = Machine(
        arguments.model or ("" if arguments.tiny else str(fetch_embedded_model())),
        arguments.tiny,
        arguments.gpu,
        _GPU_TOKENS if arguments.gpu else _CPU_TOKENS,
        arguments.compute or faster_dtype(),
    )
    precisions = ("float32", "bfloat16") if arguments.all_precisions else ("float32",)
    with TemporaryDirectory() as folder:
        if arguments.table:
            sizes = [
                Case(prompt, 40, 0, 1, groups=1, size=size)
                for prompt in (100, 400, 1000, 2000)
                for size in (2, 4, 8, 16, 32)
                if prompt + size * 40 <= arguments.most_tokens
            ]
            wanted = sizes[:2] if arguments.quick else sizes
        rows = [compared(case, folder, machine, precisions) for case in wanted]
    ratios: dict[str, float] = {}
    if not arguments.table:
        for row in rows:
            ratios[f"whole step over TRL, {row['case']}"] = row["ratio_whole"]
            ratios[f"forward+backward over TRL, {row['case']}"] = row["ratio_forward_backward"]
            ratios[f"sampling over TRL's generate, {row['case']}"] = row["ratio_sampling"]
    if arguments.json:
        details = {
            "threads": torch.get_num_threads(),
            "clock": "processor" if arguments.processor_time else "wall",
            "compute": machine.compute,
            "cases": rows,
        }
        print(json.dumps({"ratios": ratios, "details": details}))
        return
    show(rows, arguments.table, machine.compute)


def show(rows: list[dict[str, Any]], table_of_sizes: bool, compute: str) -> None:
    title = f"seconds of a step, ours / TRL (ratio), computed in {compute} by {torch.get_num_threads()} threads"
    table = Table(title=title)
    names = ["forward_backward"] if table_of_sizes else ["prefill", "decode", "forward_backward", "optimiser", "whole"]
    for column in ("prompt/completion", "groups x size", *names, "peak MiB"):
        table.add_column(column.replace("_", "+"))
    for row in rows:
        ours, theirs = row["ours"], row["trl"][row["trl_weights"]]
        cells = [
            f"{ours[name]:.2f} / {theirs[name]:.2f} ({theirs[name] / max(ours[name], 1e-9):.1f}x)" for name in names
        ]
        memory = f"{ours['peak_mib']:.0f} / {theirs['peak_mib']:.0f}"
        table.add_row(row["case"], f"{row['groups']} x {row['group_size']}", *cells, memory)
    console = Console(width=150)
    console.print(table)
    if not table_of_sizes:
        for row in rows:
            console.print(f"{row['case']}: {row['ratio_whole']:.1f}x, aim {WANTED[row['case']]}x")


if __name__ == "__main__":
    main()
