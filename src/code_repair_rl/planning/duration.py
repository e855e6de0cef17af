"""How long the phases of one GRPO step take, and how much work they are.

Sources. Operations of a forward pass: 2 for each element of a matrix and token, 4 x layers x query width for each pair
of tokens that attend (Kaplan et al., "Scaling Laws for Neural Language Models", 2020, section 2.1); the backward pass
is twice the forward, or once where the weights are frozen (LoRA: only the activations' gradients); checkpointing
computes the forward once more. Decoding reads all weights and the cache once per token, and is bound by memory
bandwidth (Pope et al., "Efficiently Scaling Transformer Inference", 2022). ZeRO-3 gathers the weights for the forward
and again for the backward pass of each micro-batch (ZeRO, section 7). How much of the makers' rates is reached is
assumed (`Assumptions`), and the largest error of a plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from code_repair_rl.planning.architecture import Architecture
from code_repair_rl.planning.memory import (
    SAMPLED_AT_ONCE,
    cached_tokens,
    compute_bytes,
    shares_devices,
    tokens_per_forward,
    weight_bytes,
)
from code_repair_rl.planning.workload import Device, Layout, Workload, require


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What the formulas cannot know. Measure a short run and put its figures here for a better plan."""

    train_efficiency: float = 0.4
    """Share of the peak rate in training; Narayanan et al. (2021) report 0.44 to 0.52 for Megatron on A100s."""
    prefill_efficiency: float = 0.5
    decode_efficiency: float = 0.6
    """Share of the memory's peak bandwidth in decoding."""
    link_gb_s: float = 25.0
    """Between devices, per device: 25 is one 200 Gbit/s port; within a node NVLink gives several times that."""
    grading_seconds: float = 0.1
    """Processor time per answer in the sandbox; repository tests take seconds."""
    grading_workers: int = 16

    def __post_init__(self) -> None:
        """Refuse what would divide by nothing, or take less than no time."""
        efficiencies = ("train_efficiency", "prefill_efficiency", "decode_efficiency")
        require(self, (*efficiencies, "link_gb_s", "grading_workers"), 0, above=True)
        require(self, ("grading_seconds",), 0)


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of a step."""

    name: str
    seconds: float
    tokens: int
    """Tokens that it computes (or sends answers of)."""
    flops: float
    formula: str
    """How the seconds came about, in words."""


def forward_flops(model: Architecture, tokens: int, pairs: int, logit_tokens: int) -> int:
    """Operations of one forward pass.

    Args:
        model: the architecture.
        tokens: tokens through the layers.
        pairs: pairs of tokens of which one attends to the other; a causal sequence of n has n (n + 1) / 2, and a kernel
            that computes the whole square has n x n.
        logit_tokens: tokens through the head.
    """
    layers = 2 * model.layers * model.layer_matrices * tokens
    attention = 4 * model.layers * model.query_width * pairs
    return layers + attention + 2 * model.embedding * logit_tokens


def training_flops(workload: Workload) -> float:
    """Operations of one step's forward and backward passes, all devices together."""
    prompt, completion = workload.prompt_tokens, workload.completion_tokens
    answers = workload.group * workload.prompts
    prompts = workload.prompts if workload.shared_prefix else answers
    tokens = prompts * prompt + answers * completion
    pairs = prompts * prompt * (prompt + 1) // 2 + answers * (completion * prompt + completion * (completion + 1) // 2)
    forward = forward_flops(workload.model, tokens, pairs, answers * completion)
    passes = 3 if workload.lora_rank is None else 2
    return float(forward * (passes + int(workload.gradient_checkpointing) + int(workload.reference)))


def phases(workload: Workload, layout: Layout, device: Device, given: Assumptions) -> list[Phase]:
    """The phases of one step, one after the other: the loop is synchronous, so that a step takes their sum."""
    return [
        _prefill(workload, layout, device, given),
        _decode(workload, layout, device, given),
        _sandbox(workload, given),
        _train(workload, layout, device, given),
        _sync(workload, layout, given),
    ]


def concurrent_answers(workload: Workload, layout: Layout, device: Device) -> int:
    """Answers that one engine decodes at once; a group's prompt is cached once."""
    share = _answers_an_engine(workload, layout)
    if shares_devices(workload, layout):
        return min(share, SAMPLED_AT_ONCE)
    per_answer = workload.completion_tokens + workload.prompt_tokens / workload.group
    return max(1, min(share, int(cached_tokens(workload, layout, device) / per_answer)))


def _answers_an_engine(workload: Workload, layout: Layout) -> int:
    engines = max(1, layout.generation_gpus // layout.tensor_parallel)
    return math.ceil(workload.group * workload.prompts / engines)


def _prefill(workload: Workload, layout: Layout, device: Device, given: Assumptions) -> Phase:
    tokens, prompt = workload.prompts * workload.prompt_tokens, workload.prompt_tokens
    flops = forward_flops(workload.model, tokens, workload.prompts * prompt * (prompt + 1) // 2, workload.prompts)
    rate = max(1, layout.generation_gpus) * device.tflops * 1e12 * given.prefill_efficiency
    return Phase("prefill", flops / rate, tokens, flops, "operations / (generation GPUs x peak x efficiency)")


def _decode(workload: Workload, layout: Layout, device: Device, given: Assumptions) -> Phase:
    model = workload.model
    at_once = concurrent_answers(workload, layout, device)
    answers = workload.group * workload.prompts
    full, rest = divmod(_answers_an_engine(workload, layout), at_once)
    mean_length = workload.prompt_tokens + workload.completion_tokens / 2
    # A model that samples by itself keeps its cache in fp32 (`rollouts/decoding_layouts.py`).
    weight, cached = (compute_bytes(workload), 4) if shares_devices(workload, layout) else (2, 2)

    def token_seconds(rows: int) -> float:
        """One more token for so many answers."""
        moved = weight * model.parameters + rows * cached * model.kv_per_token * mean_length
        moving = moved / (layout.tensor_parallel * device.bandwidth_gb_s * 1e9 * given.decode_efficiency)
        flops = forward_flops(model, rows, int(rows * mean_length), rows)
        return max(moving, flops / (layout.tensor_parallel * device.tflops * 1e12 * given.prefill_efficiency))

    seconds = workload.completion_tokens * (full * token_seconds(at_once) + (token_seconds(rest) if rest else 0.0))
    total = forward_flops(
        model,
        answers * workload.completion_tokens,
        int(answers * workload.completion_tokens * mean_length),
        answers * workload.completion_tokens,
    )
    formula = (
        f"{full} wave(s) of {at_once} answers an engine{f' and one of {rest}' if rest else ''} x tokens x (weights + "
        "cache) / (bandwidth x efficiency); a long tail of answers comes on top"
    )
    return Phase("decode", seconds, answers * workload.completion_tokens, total, formula)


def _sandbox(workload: Workload, given: Assumptions) -> Phase:
    answers = workload.group * workload.prompts
    seconds = answers * given.grading_seconds / given.grading_workers
    return Phase("sandbox", seconds, answers * workload.completion_tokens, 0.0, "answers x seconds / workers")


def _train(workload: Workload, layout: Layout, device: Device, given: Assumptions) -> Phase:
    flops = training_flops(workload)
    computing = flops / (layout.training_gpus * device.tflops * 1e12 * given.train_efficiency)
    answers = workload.group * workload.prompts
    prompts = workload.prompts if workload.shared_prefix else answers
    tokens = prompts * workload.prompt_tokens + answers * workload.completion_tokens
    if workload.micro_batch_tokens is None:
        forwards = math.ceil(answers / (workload.forward_sequences or workload.group))
    else:
        forwards = math.ceil(tokens / (layout.training_gpus * tokens_per_forward(workload, layout)))
    sent = 0.0
    if layout.training_gpus > 1:
        share = (layout.training_gpus - 1) / layout.training_gpus
        gradients = workload.trained_parameters * weight_bytes(workload, layout)
        sent = 2 * share * gradients  # one all-reduce
        if layout.sharding in ("zero3", "fsdp2"):
            sent += forwards * 2 * share * workload.model.parameters * compute_bytes(workload)  # gathers, both ways
    sending = sent / (given.link_gb_s * 1e9)
    bound = "communication" if sending > computing else "computing"
    formula = f"max(operations / (training GPUs x peak x efficiency), bytes sent / link): bound by {bound}"
    return Phase("train", max(computing, sending), tokens, flops, formula)


def _sync(workload: Workload, layout: Layout, given: Assumptions) -> Phase:
    if layout.generation_gpus == 0:
        return Phase("sync", 0.0, 0, 0.0, "the engine shares the devices")
    seconds = 2 * workload.model.parameters / (given.link_gb_s * 1e9)
    return Phase("sync", seconds, 0, 0.0, "bf16 weights / link: one broadcast to all engines")
