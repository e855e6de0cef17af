"""Hold `crrl plan` to measurements: peak memory and operations of small random models on the CPU, with our own loss.

    python scripts/check_plan.py [--json]

Each model does one forward and backward pass of a group with a shared prompt while gradients and Adam's state exist.
The peak is the largest running sum of all allocations that torch's profiler saw, on top of the weights; nothing is
sampled.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from code_repair_rl.planning import Layout, Workload, from_config
from code_repair_rl.planning.duration import forward_flops
from code_repair_rl.planning.memory import training_memory
from code_repair_rl.training.shared_prefix import completion_logprobs

CASES: dict[str, Any] = {
    "llama 4 x 192": LlamaConfig(
        hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2
    ),
    "llama 8 x 128": LlamaConfig(
        hidden_size=128, intermediate_size=344, num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=4
    ),
    "qwen3 4 x 192": Qwen3Config(
        hidden_size=192,
        intermediate_size=576,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=64,
    ),
    "qwen3 6 x 256, wide": Qwen3Config(
        hidden_size=256,
        intermediate_size=1280,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=32,
    ),
}
PROMPT, COMPLETION, GROUP, VOCABULARY = 256, 128, 4, 1024


def main() -> None:
    """Print predicted and measured figures of every case, with the error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    torch.set_num_threads(1)
    rows = [measure(name, config, checkpointing) for name, config in CASES.items() for checkpointing in (False, True)]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print("| model | checkpointing | peak MiB, planned | measured | error | GFLOP, planned | measured | error |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row['model']} | {'yes' if row['checkpointing'] else 'no'} | {row['planned_mib']:.1f} | "
            f"{row['measured_mib']:.1f} | {row['memory_error']:+.0%} | {row['planned_gflop']:.2f} | "
            f"{row['measured_gflop']:.2f} | {row['flop_error']:+.1%} |"
        )


def measure(name: str, config: Any, checkpointing: bool) -> dict[str, Any]:
    """One case: what was planned, what was measured."""
    config.vocab_size, config.tie_word_embeddings = VOCABULARY, False
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    shape = from_config(config.to_dict(), where=name)
    work = Workload(
        shape, PROMPT, COMPLETION, group=GROUP, prompts=1, gradient_checkpointing=checkpointing, autocast=False
    )
    parts = training_memory(work, Layout(1, "single"))
    # No CUDA context; and of the logits those of answers alone.
    tokens = PROMPT + GROUP * COMPLETION
    state = parts["weights"] + parts["gradients"] + parts["optimizer"]
    planned = state + parts["activations"] + 2 * 4 * GROUP * COMPLETION * VOCABULARY
    prompt = torch.randint(0, VOCABULARY, (PROMPT,)).tolist()
    answers = torch.randint(0, VOCABULARY, (GROUP, COMPLETION)).tolist()
    optimizer = torch.optim.AdamW(model.parameters())

    def passes() -> None:
        (-completion_logprobs(model, [prompt], [answers]).logprobs.mean()).backward()

    passes()
    optimizer.step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        passes()
    measured = state + _peak(profiled)
    with FlopCounterMode(display=False) as counter:
        passes()
    logit_tokens = GROUP * COMPLETION
    # torch does not count its fused attention on the CPU, so that the plan's is left out as well
    layers = forward_flops(shape, tokens, 0, 0)
    head = forward_flops(shape, 0, 0, logit_tokens)
    planned_flops = layers * (4 if checkpointing else 3) + 3 * head
    return {
        "model": name,
        "checkpointing": checkpointing,
        "parameters": shape.parameters,
        "planned_mib": planned / 2**20,
        "measured_mib": measured / 2**20,
        "memory_error": planned / measured - 1,
        "planned_gflop": planned_flops / 1e9,
        "measured_gflop": counter.get_total_flops() / 1e9,
        "flop_error": planned_flops / counter.get_total_flops() - 1,
    }


def _peak(profiled: Any) -> int:
    """The largest running sum of allocations, in bytes above the start."""
    now = most = 0
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


if __name__ == "__main__":
    main()
