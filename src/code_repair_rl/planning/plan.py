"""A plan: memory by part, time by phase, the bottleneck, and which knob moves it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from code_repair_rl.errors import BadInput
from code_repair_rl.planning.duration import Assumptions, Phase, concurrent_answers, phases
from code_repair_rl.planning.memory import (
    generation_fits,
    generation_memory,
    training_fits,
    training_memory,
    usable_bytes,
)
from code_repair_rl.planning.workload import Device, Layout, Sharding, Workload


@dataclass(frozen=True, slots=True)
class Knob:
    """One change, and what a step would take with it."""

    change: str
    step_seconds: float
    fits: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a step needs and takes."""

    workload: Workload
    layout: Layout
    device: Device
    assumptions: Assumptions
    training: dict[str, int]
    """Bytes of each part on one training device while it trains."""
    generation: dict[str, int]
    """Bytes of each part on one generation device, or on a training device while it samples by itself."""
    usable: int
    """Bytes that the parts of a training device may add up to."""
    training_fits: bool
    generation_fits: bool
    concurrent_answers: int
    phases: tuple[Phase, ...]
    knobs: tuple[Knob, ...]
    """Single changes that shorten the step, or make it fit, best first."""

    @property
    def fits(self) -> bool:
        """Whether both kinds of device have room."""
        return self.training_fits and self.generation_fits

    @property
    def step_seconds(self) -> float:
        """One step."""
        return sum(phase.seconds for phase in self.phases)

    @property
    def bottleneck(self) -> str:
        """What stands in the way: the memory of the one or the other device, else the longest phase."""
        if not self.training_fits:
            return "training memory"
        if not self.generation_fits:
            return "generation memory"
        return max(self.phases, key=lambda phase: phase.seconds).name

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return {
            "model": self.workload.model.name,
            "parameters": self.workload.model.parameters,
            "trained_parameters": self.workload.trained_parameters,
            "workload": {
                name: value for name, value in dataclasses.asdict(self.workload).items() if name not in ("model",)
            },
            "architecture": dataclasses.asdict(self.workload.model),
            "layout": dataclasses.asdict(self.layout),
            "device": dataclasses.asdict(self.device),
            "assumptions": dataclasses.asdict(self.assumptions),
            "training_bytes": self.training,
            "generation_bytes": self.generation,
            "usable_bytes": self.usable,
            "fits": self.fits,
            "concurrent_answers": self.concurrent_answers,
            "phases": [dataclasses.asdict(phase) for phase in self.phases],
            "step_seconds": self.step_seconds,
            "bottleneck": self.bottleneck,
            "knobs": [dataclasses.asdict(knob) for knob in self.knobs],
        }


def make_plan(
    workload: Workload,
    layout: Layout,
    device: Device,
    assumptions: Assumptions | None = None,
    *,
    with_knobs: bool = True,
) -> Plan:
    """The plan for one step of `workload` on `layout`."""
    given = assumptions or Assumptions()
    plan = Plan(
        workload=workload,
        layout=layout,
        device=device,
        assumptions=given,
        training=training_memory(workload, layout),
        generation=generation_memory(workload, layout, device),
        usable=usable_bytes(device),
        training_fits=training_fits(workload, layout, device),
        generation_fits=generation_fits(workload, layout, device),
        concurrent_answers=concurrent_answers(workload, layout, device),
        phases=tuple(phases(workload, layout, device, given)),
        knobs=(),
    )
    return dataclasses.replace(plan, knobs=tuple(_knobs(plan))) if with_knobs else plan


def fewest_gpus(
    workload: Workload,
    device: Device,
    *,
    sharding: Sharding = "zero3",
    generate: bool = True,
    tensor_parallel: int | None = None,
    offload_optimizer: bool = False,
    engine_share: float = 0.9,
    least: int = 1,
    most: int = 64,
) -> Layout:
    """The smallest layout whose memory fits: training devices by ones, generation engines over 1, 2, 4 or 8 devices.

    Args:
        workload: the step.
        device: of which kind all are.
        sharding: of more than one training device.
        generate: whether engines have devices of their own; else the training devices have to have room for sampling,
            too.
        tensor_parallel: devices of one engine; None: the fewest that fit.
        offload_optimizer: see `Layout`; so for `engine_share`.
        least: training devices to begin with.
        most: training devices to end with.

    Raises:
        BadInput: not even `most` training devices, or 8 a generation engine, are enough.
    """
    parallel = 1
    if generate:
        several = (1, 2, 4, 8) if tensor_parallel is None else (tensor_parallel,)
        sizes = [size for size in several if workload.model.kv_heads % size == 0]
        engines = [Layout(1, "single", size, size, engine_share=engine_share) for size in sizes]
        fitting = [one.tensor_parallel for one in engines if generation_fits(workload, one, device)]
        if not fitting:
            raise _too_small(workload, device, "generation")
        parallel = fitting[0]
    for count in range(least, most + 1):
        used: Sharding = "single" if count == 1 else sharding
        layout = Layout(count, used, parallel if generate else 0, parallel, offload_optimizer, engine_share)
        if training_fits(workload, layout, device) and generation_fits(workload, layout, device):
            return layout
    raise _too_small(workload, device, "training" if generate or not workload.sampled else "training and sampling")


def _too_small(workload: Workload, device: Device, what: str) -> BadInput:
    return BadInput(
        f"{workload.model.name} does not fit for {what} on any number of {device.name} tried",
        where="memory",
        mend="shorten the context, train adapters (LoRA), turn on checkpointing, let a server sample, or take larger "
        "devices",
    )


def _knobs(plan: Plan) -> Iterator[Knob]:
    """Single changes, each planned anew; those that help, best first."""
    tried = []
    for change, make in _CHANGES:
        try:
            workload, layout, given = make(plan)
        except BadInput:  # a change that this plan has no room for
            continue
        if (workload, layout, given) == (plan.workload, plan.layout, plan.assumptions):
            continue
        other = make_plan(workload, layout, plan.device, given, with_knobs=False)
        per_answer = plan.workload.group * plan.workload.prompts / (workload.group * workload.prompts)
        helps = other.fits > plan.fits or (other.fits == plan.fits and other.step_seconds < 0.98 * plan.step_seconds)
        if helps and per_answer >= 1:
            tried.append(Knob(change, other.step_seconds, other.fits))
    return iter(sorted(tried, key=lambda knob: (not knob.fits, knob.step_seconds))[:5])


_Changed = tuple[Workload, Layout, Assumptions]


def _work(**changes: Any) -> Callable[[Plan], _Changed]:
    return lambda plan: (dataclasses.replace(plan.workload, **changes), plan.layout, plan.assumptions)


def _halved(name: str) -> Callable[[Plan], _Changed]:
    return lambda plan: _work(**{name: max(1, getattr(plan.workload, name) // 2)})(plan)


def _shorter(plan: Plan) -> _Changed:
    longest = plan.workload.max_completion_tokens
    return _work(
        completion_tokens=max(1, plan.workload.completion_tokens // 2),
        max_completion_tokens=None if longest is None else max(1, longest // 2),
    )(plan)


def _smaller_forward(plan: Plan) -> _Changed:
    if plan.workload.micro_batch_tokens is not None:
        return _halved("micro_batch_tokens")(plan)
    now = plan.workload.forward_sequences or plan.workload.group
    return _work(forward_sequences=max(plan.layout.training_gpus, now // 2))(plan)


def _more_trainers(plan: Plan) -> _Changed:
    sharding = "zero3" if plan.layout.sharding == "single" else plan.layout.sharding
    layout = dataclasses.replace(plan.layout, training_gpus=2 * plan.layout.training_gpus, sharding=sharding)
    return plan.workload, layout, plan.assumptions


def _more_engines(plan: Plan) -> _Changed:
    layout = dataclasses.replace(plan.layout, generation_gpus=2 * plan.layout.generation_gpus)
    return plan.workload, layout, plan.assumptions


def _engine_of_its_own(plan: Plan) -> _Changed:
    engines = plan.layout.generation_gpus or plan.layout.tensor_parallel
    return plan.workload, dataclasses.replace(plan.layout, generation_gpus=engines), plan.assumptions


def _wider_engines(plan: Plan) -> _Changed:
    if plan.layout.generation_gpus == 0:
        return plan.workload, plan.layout, plan.assumptions
    count = 2 * plan.layout.tensor_parallel
    layout = dataclasses.replace(
        plan.layout, tensor_parallel=count, generation_gpus=max(count, plan.layout.generation_gpus)
    )
    return plan.workload, layout, plan.assumptions


def _sharded(plan: Plan) -> _Changed:
    if plan.layout.training_gpus == 1:
        return plan.workload, plan.layout, plan.assumptions
    return plan.workload, dataclasses.replace(plan.layout, sharding="zero3"), plan.assumptions


def _offloaded(plan: Plan) -> _Changed:
    if plan.layout.sharding not in ("zero2", "zero3"):
        return plan.workload, plan.layout, plan.assumptions
    return plan.workload, dataclasses.replace(plan.layout, offload_optimizer=True), plan.assumptions


def _more_graders(plan: Plan) -> _Changed:
    given = dataclasses.replace(plan.assumptions, grading_workers=2 * plan.assumptions.grading_workers)
    return plan.workload, plan.layout, given


_CHANGES: tuple[tuple[str, Callable[[Plan], _Changed]], ...] = (
    ("half the answer length", _shorter),
    ("half the prompt length", _halved("prompt_tokens")),
    ("half the answers per forward", _smaller_forward),
    ("twice the training GPUs", _more_trainers),
    ("twice the generation GPUs", _more_engines),
    ("generation on a GPU of its own", _engine_of_its_own),
    ("engines over twice the GPUs (tensor parallel)", _wider_engines),
    ("ZeRO-3 in place of the present sharding", _sharded),
    ("optimizer state offloaded to the host", _offloaded),
    ("LoRA of rank 32", _work(lora_rank=32)),
    ("gradient checkpointing on", _work(gradient_checkpointing=True)),
    ("gradient checkpointing off", _work(gradient_checkpointing=False)),
    ("each group's prompt computed once", _work(shared_prefix=True)),
    ("no KL term", _work(reference=False)),
    ("twice the sandbox workers", _more_graders),
)
"""Fewer answers per step are not among them: that makes steps shorter, not training."""
