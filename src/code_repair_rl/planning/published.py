"""GPU counts that others report for Qwen3 models, beside those that the formulas give: a check from outside."""

from __future__ import annotations

from dataclasses import dataclass

from code_repair_rl.planning.architecture import SHIPPED
from code_repair_rl.planning.memory import GIB, generation_fits, training_fits, training_memory
from code_repair_rl.planning.plan import fewest_gpus
from code_repair_rl.planning.workload import DEVICES, Device, Layout, Workload

_FORK = "https://github.com/ASSERT-KTH/CodeRepairRL, scripts/grpo/{}_grpo_lora_train_job.sh and src/conf/model"
_BRIDGE = "NVIDIA Megatron Bridge, bridge.recipes.qwen.h100.qwen3: qwen3_{}_h100_bf16_config"
_A100, _H100 = DEVICES["a100-80gb"], DEVICES["h100-80gb"]


@dataclass(frozen=True, slots=True)
class Published:
    """One reported run."""

    what: str
    source: str
    workload: Workload
    device: Device
    layout: Layout
    """As reported."""
    per_device: int = 0
    """Answers of a forward on one device, where the run fixes it; 0: as many as fit."""
    powers_of_two: bool = False
    """Whether the system only offers 1, 2, 4, 8 … devices (tensor and pipeline parallelism)."""


@dataclass(frozen=True, slots=True)
class Reproduced:
    """What the formulas say of a reported run."""

    what: str
    source: str
    reported_gpus: int
    fewest_gpus: int
    """That fit by the formulas, with the reported context, group, answers per forward and share of the engine."""
    fewest_by_memory: int
    """The same without the reported limit of answers on one device."""
    training_gib: float
    """Of one training device in the reported layout."""
    fits: bool
    """Whether the reported layout fits by the formulas; a reported run that does not is an error of theirs."""

    @property
    def agrees(self) -> bool:
        """Whether the reported layout is possible and the smallest one is the reported one."""
        return self.fits and self.fewest_gpus == self.reported_gpus


def _grpo(size: str, name: str, rank: int, completion: int, group: int, per_device: int, layout: Layout) -> Published:
    workload = Workload(
        SHIPPED[f"qwen3-{size.lower()}"],
        prompt_tokens=1024,
        completion_tokens=completion,
        group=group,
        lora_rank=rank,
        forward_sequences=group,  # "we must fit an entire group per forward pass" (src/conf/grpo/multi_turn_gspo.yaml)
        shared_prefix=False,
        weight_bytes=2,
    )
    return Published(f"agent GRPO, LoRA, Qwen3-{size}, A100", _FORK.format(name), workload, _A100, layout, per_device)


def _tuning(size: str, count: int, rank: int | None) -> Published:
    kind = f"{size.lower()}_{'sft' if rank is None else 'peft'}_{count}gpu"
    workload = Workload(
        SHIPPED[f"qwen3-{size.lower()}"],
        prompt_tokens=1,
        completion_tokens=2047,
        group=1,
        lora_rank=rank,
        # The recipes recompute activations for 32B only.
        gradient_checkpointing=size == "32B",
        forward_sequences=1,
        sampled=False,
        weight_bytes=2,
        gradient_bytes=4,
    )
    what = f"{'full' if rank is None else 'LoRA'} SFT, Qwen3-{size}, H100"
    layout = Layout(count, "single" if count == 1 else "zero3", 0)
    return Published(what, _BRIDGE.format(kind), workload, _H100, layout, powers_of_two=True)


PUBLISHED: tuple[Published, ...] = (
    _grpo("8B", "small", 32, 9216, 4, 4, Layout(1, "single", 1, engine_share=0.94)),
    _grpo("14B", "medium", 64, 10240, 8, 4, Layout(2, "zero2", 1, engine_share=0.94)),
    _grpo("32B", "large", 64, 8192, 4, 1, Layout(4, "zero3", 2, 2, engine_share=0.8)),
    _tuning("8B", 4, None),
    _tuning("14B", 8, None),
    _tuning("32B", 16, None),
    _tuning("8B", 1, 32),
    _tuning("14B", 1, 32),
    _tuning("32B", 1, 32),
)
"""Agent GRPO: server and trainer together, on the 80 GB A100s that the job scripts ask for. Fine-tuning: tensor and
pipeline parallelism share weights, gradients and optimizer state as ZeRO-3 does, with 18 bytes a parameter (fp32
gradients, no distributed optimizer)."""


def reproduce() -> list[Reproduced]:
    """Every published run, planned."""
    return [_reproduced(one) for one in PUBLISHED]


def _reproduced(one: Published) -> Reproduced:
    at_once = one.workload.forward_sequences or one.workload.group
    fits = training_fits(one.workload, one.layout, one.device) and generation_fits(one.workload, one.layout, one.device)
    return Reproduced(
        one.what,
        one.source,
        one.layout.gpus,
        _fewest(one, at_once // one.per_device if one.per_device else 1),
        _fewest(one, 1),
        round(sum(training_memory(one.workload, one.layout).values()) / GIB, 1),
        fits,
    )


def _fewest(one: Published, least: int) -> int:
    found = fewest_gpus(
        one.workload,
        one.device,
        sharding="zero3" if one.layout.sharding == "single" else one.layout.sharding,
        generate=one.layout.generation_gpus > 0,
        engine_share=one.layout.engine_share,
        least=least,
    )
    training = found.training_gpus
    if one.powers_of_two:
        training = 1 << (training - 1).bit_length()
    return training + found.generation_gpus
