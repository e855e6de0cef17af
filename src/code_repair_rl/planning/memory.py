"""Memory of a training device and of a generation device, part by part, in bytes.

Sources. Bytes of weights, gradients and optimizer state, and what each ZeRO stage divides by the number of devices:
Rajbhandari et al., "ZeRO" (2020), section 3 (2 + 2 + 12 bytes a parameter in bf16 with Adam). Activations: counted from
what autograd keeps of transformers' Llama and Qwen3 layers (`saved_elements`; `scripts/check_plan.py` measures it),
with checkpointing one input per layer and one layer's activations at a time (Chen et al., "Training Deep Nets with
Sublinear Memory Cost", 2016). Key-value cache: 2 x layers x kv heads x head size elements a token. What else a process
and vLLM need is assumed, and stated at the constants.
"""

from __future__ import annotations

import math

from code_repair_rl.planning.architecture import Architecture
from code_repair_rl.planning.workload import Device, Layout, Workload

GIB = 1 << 30
MASTER_AND_MOMENTS = 12
"""Bytes a trained parameter in the optimizer: fp32 master weight and Adam's two fp32 moments (ZeRO, section 3.1)."""
MOMENTS = 8
"""The same where the weights themselves are fp32."""
KEPT_LOGITS = 2**26
"""Logits kept for the backward pass at a time (`training/token_logprobs.py`)."""
CONTEXT_BYTES = int(1.5 * GIB)
"""Assumed: CUDA context, libraries and communication buffers of one process."""
RESERVE = 0.1
"""Assumed: share of a device lost to fragmentation and to peaks between the parts."""
VLLM_OVERHEAD = 3 * GIB
"""Assumed: vLLM's own activations, CUDA graphs and context within its share."""
GATHERED_LAYERS = 2
"""Layers whole at once under ZeRO-3 and FSDP2: the one at work and the next, fetched ahead."""


def saved_elements(model: Architecture) -> int:
    """Elements a token and layer that autograd keeps without checkpointing.

    Two RMSNorms keep input, normalised input and output (6 x hidden); attention keeps rotated queries and keys, values,
    its output and that output laid out for the projection (3 x queries, 2 x keys); norms of queries and keys keep input
    and normalised input (2 x both); the gated MLP keeps gate, activation, up and their product (4 x intermediate).
    """
    q, kv = model.query_width, model.kv_width
    norms = 2 * (q + kv) if model.qk_norm else 0
    return 6 * model.hidden + 3 * q + 2 * kv + norms + 4 * model.intermediate


def activation_bytes(workload: Workload, tokens: int) -> int:
    """Activations of one forward and backward pass over `tokens` tokens on one device."""
    model = workload.model
    # Under autocast the residual stream and the norms stay in fp32 and each linear layer's input is cast to bf16.
    per_token = 2 * saved_elements(model)
    residual = 2
    if workload.weight_bytes == 4:
        per_token += 2 * 6 * model.hidden + 2 * 2 * model.hidden
        residual = 4
    if not workload.gradient_checkpointing:
        return tokens * model.layers * per_token
    return tokens * (model.layers * residual * model.hidden + per_token)


def tokens_per_forward(workload: Workload, layout: Layout) -> int:
    """Tokens of one forward on one device at most: its share of the answers, at full length."""
    sequences = math.ceil((workload.forward_sequences or workload.group) / layout.training_gpus)
    completion = workload.longest - workload.prompt_tokens
    prompts = math.ceil(sequences / workload.group) if workload.shared_prefix else sequences
    return prompts * workload.prompt_tokens + sequences * completion


def training_memory(workload: Workload, layout: Layout) -> dict[str, int]:
    """Bytes of each part on one training device."""
    model, count = workload.model, layout.training_gpus
    sharded = layout.sharding in ("zero2", "zero3", "fsdp2")
    weights_sharded = layout.sharding in ("zero3", "fsdp2")
    trained = workload.trained_parameters
    frozen = 0 if workload.lora_rank is None else model.parameters
    weight, gradient = workload.weight_bytes, workload.gradient_bytes or workload.weight_bytes

    def part(whole: int, split: bool) -> int:
        return math.ceil(whole / count) if split else whole

    # Adapters are kept in fp32 (PEFT's default), and so need no master weight.
    state = MASTER_AND_MOMENTS if workload.lora_rank is None and weight == 2 else MOMENTS
    trained_weight = weight if workload.lora_rank is None else 4
    optimizer = part(trained * state, sharded)
    parts = {
        "weights": part(frozen * weight + trained * trained_weight, weights_sharded),
        "gradients": part(trained * (gradient if workload.lora_rank is None else 4), sharded),
        "optimizer": 0 if layout.offload_optimizer else optimizer,
    }
    if workload.reference and workload.lora_rank is None:  # adapters are switched off instead
        parts["reference"] = part(model.parameters * weight, weights_sharded)
    if weights_sharded:
        parts["gathered layers"] = 2 * max(GATHERED_LAYERS * model.layer_parameters, model.embedding)
    elif weight == 4:
        parts["autocast copies"] = 2 * model.layers * model.layer_matrices
    if layout.sharding == "ddp":
        parts["reduction buckets"] = parts["gradients"]
    tokens = tokens_per_forward(workload, layout)
    parts["activations"] = activation_bytes(workload, tokens)
    parts["logits"] = 2 * 2 * min(KEPT_LOGITS, tokens * model.vocabulary)  # they and their gradient, in bf16
    parts["context"] = CONTEXT_BYTES
    return parts


def generation_memory(workload: Workload, layout: Layout, device: Device) -> dict[str, int]:
    """Bytes of each part on one generation device; what vLLM's share leaves goes to the key-value cache."""
    weights = math.ceil(2 * workload.model.parameters / layout.tensor_parallel)
    share = int(layout.engine_share * device.memory_gib * GIB)
    cache = max(0, share - weights - VLLM_OVERHEAD)
    return {"weights": weights, "overhead": VLLM_OVERHEAD, "key-value cache": cache}


def cached_tokens(workload: Workload, layout: Layout, device: Device) -> int:
    """Tokens for which one engine (all its devices together) has key-value cache."""
    cache = generation_memory(workload, layout, device)["key-value cache"]
    return int(cache * layout.tensor_parallel // (2 * workload.model.kv_per_token))


def usable_bytes(device: Device) -> int:
    """What the parts of a training device may add up to."""
    return int(device.memory_gib * GIB * (1 - RESERVE))


def training_fits(workload: Workload, layout: Layout, device: Device) -> bool:
    """Whether the parts fit on a training device."""
    return sum(training_memory(workload, layout).values()) <= usable_bytes(device)


def generation_fits(workload: Workload, layout: Layout, device: Device) -> bool:
    """Whether an engine has room for at least one answer of full length, without which vLLM does not start."""
    return cached_tokens(workload, layout, device) >= workload.longest
