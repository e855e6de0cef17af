"""What a plan is made for, as plain data: the device, the work of one GRPO step, and how it is laid out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from code_repair_rl.errors import BadInput
from code_repair_rl.planning.architecture import Architecture

Sharding = Literal["single", "ddp", "zero2", "zero3", "fsdp2"]


def require(holder: Any, names: tuple[str, ...], least: float, *, above: bool = False) -> None:
    """Hold figures of `holder` against the least that they can be; None is none.

    Raises:
        BadInput: one is smaller, or (`above`) as small, or no finite number; names it.
    """
    for name in names:
        value = getattr(holder, name)
        if value is not None and not (math.isfinite(value) and (value > least if above else value >= least)):
            raise BadInput(
                f"{value:g} is impossible", where=name, mend=f"give {'more than' if above else 'at least'} {least:g}"
            )


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator. Rates are the maker's figures for dense bf16, before any loss."""

    name: str
    memory_gib: float
    """What a process sees, a little less than the name says."""
    tflops: float
    """Of bf16 matrix products, 10^12 operations a second."""
    bandwidth_gb_s: float
    """Of its memory, 10^9 bytes a second."""
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse what no device has."""
        require(self, ("memory_gib", "tflops", "bandwidth_gb_s"), 0, above=True)


DEVICES = {
    device.name.lower(): device
    for device in (
        Device("A100-40GB", 39.4, 312, 1555, "NVIDIA A100 data sheet"),
        Device("A100-80GB", 79.2, 312, 2039, "NVIDIA A100 data sheet, SXM"),
        Device("H100-80GB", 79.2, 989, 3350, "NVIDIA H100 data sheet, SXM, without sparsity"),
        Device("H200-141GB", 139.8, 989, 4800, "NVIDIA H200 data sheet, SXM, without sparsity"),
        Device("L40S-48GB", 44.4, 362, 864, "NVIDIA L40S data sheet, without sparsity"),
    )
}


def device_named(name: str) -> Device:
    """A device by name.

    Raises:
        BadInput: none has it.
    """
    found = DEVICES.get(name.lower())
    if found is None:
        raise BadInput(
            "no such device",
            where=name,
            mend=f"name one of {', '.join(device.name for device in DEVICES.values())}, or give --memory-gib, --tflops "
            "and --bandwidth",
        )
    return found


@dataclass(frozen=True, slots=True)
class Workload:
    """One GRPO step: `prompts` prompts, `group` answers each."""

    model: Architecture
    prompt_tokens: int = 1024
    completion_tokens: int = 1024
    """Mean length of an answer, for time."""
    max_completion_tokens: int | None = None
    """Most tokens of an answer, for memory; None: the mean."""
    group: int = 8
    prompts: int = 8
    lora_rank: int | None = None
    """None: all weights are trained."""
    gradient_checkpointing: bool = True
    forward_sequences: int | None = None
    """Answers in one forward over all training devices together; None: a group."""
    shared_prefix: bool = True
    """Whether a group's prompt is computed once in training."""
    reference: bool = False
    """Whether there is a KL term: one forward more per step, and for full training a second copy of the weights."""
    micro_batch_tokens: int | None = None
    """Most tokens of one forward on one device (at least one answer), in place of `forward_sequences`."""
    autocast: bool = True
    """Whether matrix products are in bf16; without, everything is in fp32."""
    sampled: bool = True
    """Whether answers are sampled; False: fine-tuning."""
    weight_bytes: int | None = None
    """Bytes of a weight in training: 2 (bf16, with an fp32 master in the optimizer) or 4 (fp32). None: what our trainer
    holds, which depends on the sharding (`memory.weight_bytes`)."""
    gradient_bytes: int | None = None
    """Bytes of a gradient; None: as of a weight. Megatron keeps 4 beside 2-byte weights."""

    def __post_init__(self) -> None:
        """Refuse figures that no run could have."""
        counts = ("prompt_tokens", "completion_tokens", "max_completion_tokens", "group", "prompts")
        require(self, (*counts, "forward_sequences", "micro_batch_tokens", "lora_rank"), 1)
        if self.max_completion_tokens is not None and self.max_completion_tokens < self.completion_tokens:
            raise BadInput(
                f"the longest answer has {self.max_completion_tokens} tokens, the mean one {self.completion_tokens}",
                where="max_completion_tokens",
                mend="raise the one (--longest) or lower the other (--completion)",
            )
        if self.weight_bytes not in (None, 2, 4):
            raise BadInput(f"{self.weight_bytes} bytes a weight: only 2 and 4 are known", where="weight_bytes")

    @property
    def longest(self) -> int:
        """Most tokens of a prompt with its answer."""
        return self.prompt_tokens + (self.max_completion_tokens or self.completion_tokens)

    @property
    def trained_parameters(self) -> int:
        """Parameters with a gradient."""
        return self.model.parameters if self.lora_rank is None else self.model.lora_parameters(self.lora_rank)


@dataclass(frozen=True, slots=True)
class Layout:
    """Who does what. Training and generation have devices of their own, or share them (`generation_gpus` 0)."""

    training_gpus: int = 1
    sharding: Sharding = "single"
    generation_gpus: int = 1
    tensor_parallel: int = 1
    offload_optimizer: bool = False
    engine_share: float = 0.9
    """What the engine takes of a device for all its needs: vLLM's `gpu_memory_utilization`, and its default."""

    def __post_init__(self) -> None:
        """Refuse layouts that cannot be."""
        require(self, ("training_gpus", "tensor_parallel"), 1)
        require(self, ("generation_gpus",), 0)
        require(self, ("engine_share",), 0, above=True)
        if self.sharding == "single" and self.training_gpus > 1:
            raise BadInput(
                f"{self.training_gpus} training devices with sharding 'single'",
                where="sharding",
                mend="say ddp, zero2, zero3 or fsdp2",
            )
        if self.generation_gpus % self.tensor_parallel:
            raise BadInput(
                f"{self.generation_gpus} generation devices cannot be split into engines of {self.tensor_parallel}",
                where="tensor_parallel",
            )

    @property
    def gpus(self) -> int:
        """All devices."""
        return self.training_gpus + self.generation_gpus
