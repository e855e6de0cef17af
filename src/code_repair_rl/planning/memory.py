"""Memory of a training device and of a generation device, part by part, in bytes.

Sources. Bytes of weights, gradients and optimizer state, and what each ZeRO stage divides by the number of devices:
Rajbhandari et al., "ZeRO" (2020), section 3 (2 + 2 + 12 bytes a parameter in bf16 with Adam). Activations: counted from
what autograd keeps of transformers' Llama and Qwen3 layers (`saved_elements`; `scripts/check_plan.py` measures it),
with checkpointing one input per layer and one layer's activations at a time (Chen et al., "Training Deep Nets with
Sublinear Memory Cost", 2016). Key-value cache: 2 x layers x kv heads x head size elements a token. What our own trainer
and sampler hold: `models/load.py`, `training/launch.py` and `rollouts/local.py`. What else a process and vLLM need is
assumed, and stated at the constants.
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
SAMPLED_AT_ONCE = 256
"""Answers that a model advances together where it samples by itself on a GPU (`rollouts/local.py`)."""


def saved_elements(model: Architecture) -> int:
    """Elements a token and layer that autograd keeps without checkpointing.

    Two RMSNorms keep input, normalised input and output (6 x hidden); attention keeps rotated queries and keys, values,
    its output and that output laid out for the projection (3 x queries, 2 x keys); norms of queries and keys keep input
    and normalised input (2 x both); the gated MLP keeps gate, activation, up and their product (4 x intermediate).
    """
    q, kv = model.query_width, model.kv_width
    norms = 2 * (q + kv) if model.qk_norm else 0
    return 6 * model.hidden + 3 * q + 2 * kv + norms + 4 * model.intermediate


def weight_bytes(workload: Workload, layout: Layout) -> int:
    """Bytes of a weight on a training device.

    Our trainer loads fp32 and computes in bf16 by autocast; DeepSpeed rounds the weights themselves, and keeps an fp32
    master in the optimizer.
    """
    if workload.weight_bytes is not None:
        return workload.weight_bytes
    return 2 if workload.autocast and layout.sharding in ("zero2", "zero3") else 4


def compute_bytes(workload: Workload) -> int:
    """Bytes of an element in matrix products."""
    return 2 if workload.autocast else 4


def activation_bytes(workload: Workload, layout: Layout, tokens: int) -> int:
    """Activations of one forward and backward pass over `tokens` tokens on one device."""
    model = workload.model
    residual = weight_bytes(workload, layout)
    per_token = compute_bytes(workload) * saved_elements(model)
    if residual > compute_bytes(workload):
        # Under autocast the residual stream and the norms stay in fp32 and each linear layer's input is cast to bf16.
        per_token += 2 * 6 * model.hidden + 2 * 2 * model.hidden
    if not workload.gradient_checkpointing:
        return tokens * model.layers * per_token
    return tokens * (model.layers * residual * model.hidden + per_token)


def tokens_per_forward(workload: Workload, layout: Layout) -> int:
    """Tokens of one forward on one device at most: its share of the answers, at full length."""
    if workload.micro_batch_tokens is not None:
        return max(workload.longest, min(workload.micro_batch_tokens, _step_tokens(workload, layout)))
    sequences = math.ceil((workload.forward_sequences or workload.group) / layout.training_gpus)
    completion = workload.longest - workload.prompt_tokens
    prompts = math.ceil(sequences / workload.group) if workload.shared_prefix else sequences
    return prompts * workload.prompt_tokens + sequences * completion


def _step_tokens(workload: Workload, layout: Layout) -> int:
    """Tokens that one device computes in a step at most, in whole groups."""
    completion = workload.longest - workload.prompt_tokens
    prompts = 1 if workload.shared_prefix else workload.group
    group = prompts * workload.prompt_tokens + workload.group * completion
    return math.ceil(workload.prompts / layout.training_gpus) * group


def shares_devices(workload: Workload, layout: Layout) -> bool:
    """Whether the model that is trained samples by itself, on its own device."""
    return workload.sampled and layout.generation_gpus == 0


def _working_copy(workload: Workload) -> int:
    """Bytes of the bf16 copy that a model samples from; without autocast it samples from its own weights."""
    return 2 * workload.model.parameters


def training_memory(workload: Workload, layout: Layout) -> dict[str, int]:
    """Bytes of each part on one training device while it trains."""
    model, count = workload.model, layout.training_gpus
    sharded = layout.sharding in ("zero2", "zero3", "fsdp2")
    weights_sharded = layout.sharding in ("zero3", "fsdp2")
    trained = workload.trained_parameters
    frozen = 0 if workload.lora_rank is None else model.parameters
    weight, computed = weight_bytes(workload, layout), compute_bytes(workload)
    gradient = workload.gradient_bytes or weight

    def part(whole: int, split: bool) -> int:
        return math.ceil(whole / count) if split else whole

    # Adapters are kept in fp32 (PEFT's default), and so need no master weight; DeepSpeed's, rounded and with a master,
    # take the same 16 bytes.
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
        parts["gathered layers"] = computed * max(GATHERED_LAYERS * model.layer_parameters, model.embedding)
    elif weight > computed:
        # Kept for the backward pass; where nothing but the computing needs them (LoRA), checkpointing makes them anew.
        anew = workload.lora_rank is not None and workload.gradient_checkpointing
        parts["autocast copies"] = 2 * (model.layer_matrices * (1 if anew else model.layers) + model.embedding)
    if layout.sharding == "ddp":
        parts["reduction buckets"] = parts["gradients"]
    tokens = tokens_per_forward(workload, layout)
    parts["activations"] = activation_bytes(workload, layout, tokens)
    parts["logits"] = 2 * computed * min(KEPT_LOGITS, tokens * model.vocabulary)  # they and their gradient
    if shares_devices(workload, layout) and workload.autocast:
        parts["sampler"] = _working_copy(workload)
    parts["context"] = CONTEXT_BYTES
    return parts


def generation_memory(workload: Workload, layout: Layout, device: Device) -> dict[str, int]:
    """Bytes of each part on a device while it generates.

    On one of its own what vLLM's share leaves goes to the key-value cache. A training device that samples by itself
    has its weights and the optimizer's state beside the sampler's copy and the cache; one process samples for all.
    Nothing where nothing is sampled.
    """
    if not workload.sampled:
        return {}
    if layout.generation_gpus == 0:
        return _sampling_memory(workload, layout)
    weights = math.ceil(2 * workload.model.parameters / layout.tensor_parallel)
    share = int(layout.engine_share * device.memory_gib * GIB)
    cache = max(0, share - weights - VLLM_OVERHEAD)
    return {"weights": weights, "overhead": VLLM_OVERHEAD, "key-value cache": cache}


def _sampling_memory(workload: Workload, layout: Layout) -> dict[str, int]:
    model = workload.model
    training = training_memory(workload, layout)
    stays = ("weights", "optimizer", "reference")
    parts: dict[str, int] = {name: size for name, size in training.items() if name in stays}
    if layout.training_gpus > 1 and layout.sharding in ("zero3", "fsdp2"):
        parts["gathered weights"] = weight_bytes(workload, layout) * model.parameters
    if workload.autocast:
        parts["sampler"] = _working_copy(workload)
    answers = min(SAMPLED_AT_ONCE, workload.group * workload.prompts)
    prompts = math.ceil(answers / workload.group)
    tokens = prompts * workload.prompt_tokens + answers * (workload.longest - workload.prompt_tokens)
    cache = 4 * model.kv_per_token * tokens  # in fp32 (`rollouts/decoding_layouts.py`)
    # Before each sampling phase adapters are merged into another copy, in the precision of the weights; there is no
    # cache at that time.
    merged = workload.lora_rank is not None and workload.autocast
    merge = weight_bytes(workload, layout) * model.parameters if merged else 0
    parts["merge of adapters" if merge > cache else "key-value cache"] = max(merge, cache)
    parts["context"] = CONTEXT_BYTES
    return parts


def cached_tokens(workload: Workload, layout: Layout, device: Device) -> int:
    """Tokens for which one engine on devices of its own (all of them together) has key-value cache."""
    cache = generation_memory(workload, layout, device)["key-value cache"]
    return int(cache * layout.tensor_parallel // (2 * workload.model.kv_per_token))


def usable_bytes(device: Device) -> int:
    """What the parts of a training device may add up to, while it trains and while it samples."""
    return int(device.memory_gib * GIB * (1 - RESERVE))


def training_fits(workload: Workload, layout: Layout, device: Device) -> bool:
    """Whether the parts fit on a training device."""
    return sum(training_memory(workload, layout).values()) <= usable_bytes(device)


def generation_fits(workload: Workload, layout: Layout, device: Device) -> bool:
    """Whether generation has room.

    On devices of its own: for at least one answer of full length, without which vLLM does not start. On the training
    devices: for all that is sampled at once.
    """
    if not workload.sampled:
        return True
    if layout.generation_gpus == 0:
        return sum(generation_memory(workload, layout, device).values()) <= usable_bytes(device)
    return cached_tokens(workload, layout, device) >= workload.longest
