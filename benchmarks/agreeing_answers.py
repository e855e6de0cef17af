"""What it saves that answers of a group begin alike: forward and backward over real answers and over random ones.

A fine-tuned model answers real tasks, a group for each. Then the log-probabilities of these answers and their gradients
are computed, and those of answers of the same lengths whose tokens are random, so that no two begin alike: both with
shared prompts, in turn in one run. The ratio is of medians of wall time under bf16 autocast. `details` says how many
of the sampled tokens are distinct beginnings, how fast they were sampled (whole call with prefill), and the seconds.

    python benchmarks/agreeing_answers.py [--model runs/demo/sft/model] [--quick] [--json] [--threads N]

Without the model (`make demo` makes it) there is nothing to measure, and it says so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from code_repair_rl.models import load_model, load_tokenizer, settle_process
from code_repair_rl.rollouts import Sampling
from code_repair_rl.rollouts.local import LocalEngine
from code_repair_rl.tasks import load_tasks
from code_repair_rl.tasks.draw import draw
from code_repair_rl.tasks.prompts import messages
from code_repair_rl.training.prefix_tree import PrefixTree
from code_repair_rl.training.shared_prefix import completion_logprobs

_MOST_PROMPT_TOKENS = 400
_GROUPS_PER_PASS = 2

Groups = list[list[list[int]]]


def timed_pass(model: nn.Module, prompts: Sequence[Sequence[int]], groups: Groups) -> float:
    """Seconds of forward and backward over all groups, a few at a time."""
    model.zero_grad()
    began = time.perf_counter()
    for start in range(0, len(prompts), _GROUPS_PER_PASS):
        part = slice(start, start + _GROUPS_PER_PASS)
        with torch.autocast("cpu", torch.bfloat16):
            found = completion_logprobs(model, prompts[part], groups[part], with_entropy=True)
        found.logprobs.sum().backward()
    return time.perf_counter() - began


def random_like(groups: Groups, vocabulary: int) -> Groups:
    """Answers of the same lengths that agree in nothing."""
    generator = torch.Generator().manual_seed(0)
    return [
        [torch.randint(3, vocabulary, (len(answer),), generator=generator).tolist() for answer in group]
        for group in groups
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/demo/sft/model", help="a fine-tuned one: the base's answers ramble")
    parser.add_argument("--quick", action="store_true", help="four groups, one repeat")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--temperature", type=float, default=1.0)
    arguments = parser.parse_args()
    if not Path(arguments.model).is_dir():
        reason = f"{arguments.model} is not there: train one with `make demo`, or name another with --model"
        print(json.dumps({"ratios": {}, "details": {"not_measured": reason}}) if arguments.json else reason)
        return
    settle_process(arguments.threads)
    count, repeats = (4, 1) if arguments.quick else (12, 3)
    model, tokenizer = load_model(arguments.model, trainable=True), load_tokenizer(arguments.model)
    engine = LocalEngine(model, tokenizer, copy_dtype="bfloat16")
    asked = (engine.encode(messages(task, "exact-line")) for task in draw(load_tasks("humaneval-bugs"), None, 0))
    prompts = [prompt for prompt in asked if len(prompt) <= _MOST_PROMPT_TOKENS][:count]
    engine.refresh()
    sampling = Sampling(temperature=arguments.temperature, max_new_tokens=96, seed=0)
    began = time.perf_counter()
    answers = engine.generate(prompts, completions_per_prompt=8, sampling=sampling)
    seconds = time.perf_counter() - began
    groups = [[list(answer.token_ids) for answer in group] for group in answers]
    sampled = sum(len(answer) for group in groups for answer in group)
    distinct = sum(len(PrefixTree.of(group)) for group in groups)
    random = random_like(groups, model.config.vocab_size)
    model.train()
    rounds = [
        (timed_pass(model, prompts, groups), timed_pass(model, prompts, random)) for _ in range(repeats + 1)
    ]  # the first one warms up
    ours, apart = (statistics.median(times) for times in zip(*rounds[1:], strict=True))
    found = {
        "ratios": {"forward+backward, real answers over random ones": apart / ours},
        "details": {
            "groups": len(groups),
            "prompt_tokens": sum(map(len, prompts)),
            "sampled_tokens": sampled,
            "distinct_beginnings": distinct,
            "sampling_seconds": seconds,
            "sampled_tokens_per_second": sampled / seconds,
            "real_seconds": ours,
            "random_seconds": apart,
            "threads": torch.get_num_threads(),
        },
    }
    if arguments.json:
        print(json.dumps(found))
        return
    Console(highlight=False).print(
        f"{len(groups)} groups of 8: {sampled} tokens sampled in {seconds:.1f} s ({sampled / seconds:.0f} a second), "
        f"of which {distinct} are distinct beginnings ({distinct / sampled:.0%})\n"
        f"forward and backward: {ours:.1f} s, {apart / ours:.2f}x as fast as over random answers ({apart:.1f} s)",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
