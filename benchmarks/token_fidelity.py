"""Multi-turn episodes through the gateway: are the spliced tokens the sampled ones, and what would re-tokenising do?

Each episode is a conversation over HTTP with a real model at temperature 1: several answers, among them truncated ones
and such that end at a stop text, between them tool output with odd Unicode. Told are

* spliced tokens that differ from the sampled ones (demanded: 0), by comparing each request's prompt with what was
  sampled before, as the engine saw both;
* later turns whose history would differ if the messages were tokenised again, the usual way, and by how many tokens;
* the greatest difference between the log-probabilities recorded and those of a teacher-forced fp32 forward over the
  spliced tokens;
* the loss that reaches the logits predicting environment tokens (demanded: exactly 0).

There is nothing to be faster than: `ratios` holds the share of later turns that splicing keeps over the share that
re-tokenising keeps.

    python benchmarks/token_fidelity.py [--quick] [--json] [--episodes N] [--tiny] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx
import torch
from rich.console import Console
from rich.table import Table

from code_repair_rl.models import fetch_embedded_model, load_model, load_tokenizer, tiny_model, tiny_tokenizer
from code_repair_rl.rollouts import Completion, FinishReason, Sampling
from code_repair_rl.rollouts.episode import Turn, spliced
from code_repair_rl.rollouts.gateway import Gateway
from code_repair_rl.rollouts.local import LocalEngine
from code_repair_rl.rollouts.sessions import Session, SessionLimits

TOOL = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Run a shell command.",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
    },
}
ASKED = (
    "Write a Python function that reverses a string, and explain it.",
    "Repeat this exactly: naïve café — 東京 \U0001f600\U0001f1f8\U0001f1ea é́ \u200b\tend  ",
    "List the files of a project, then call the tool to read one.",
    "What is wrong here?\n```python\ndef f(x):\n\treturn  x+1 \n```",
)
TOOL_OUTPUT = (
    "",
    "   \n",
    "total 8\n-rw-r--r-- 1 user user  12 a.py\r\n",
    "\x1b[31mFAILED\x1b[0m test_a.py::test_ü — AssertionError: '\u202e' != '\ufeff'",
    "\U0001f469\u200d\U0001f4bb ﷽ ℵ₀ e\u0301 \ufffd",
    "def f():\n\n    return 1\n" * 8,
)


class Watched(LocalEngine):
    """Remembers what it was asked and what it sampled."""

    def __init__(self, model: Any, tokenizer: Any, copy_dtype: str | None) -> None:
        super().__init__(model, tokenizer, copy_dtype=copy_dtype)
        self.seen: list[tuple[tuple[int, ...], Completion]] = []

    def generate_each(
        self,
        prompts: Sequence[Sequence[int]],
        counts: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        found = super().generate_each(prompts, counts, sampling, seeds)
        self.seen += [(tuple(prompt), one) for prompt, group in zip(prompts, found, strict=True) for one in group]
        return found


@dataclass
class Counts:
    """What was found."""

    episodes: int = 0
    turns: int = 0
    later_turns: int = 0
    truncated_turns: int = 0
    tool_calls: int = 0
    sampled_tokens: int = 0
    environment_tokens: int = 0
    differing_spliced_tokens: int = 0
    lost_turns: int = 0
    corrupted_turns: int = 0
    """Later turns whose history tokenised again is not what was sampled."""
    corrupted_tokens: int = 0
    forks: int = 0
    rewrites: int = 0
    greatest_logprob_gap: float = 0.0
    loss_gradient_at_environment: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)


def converse(gateway: Gateway, session: Session, turns: int, seed: int) -> None:
    """One episode's client."""
    chance = random.Random(seed)
    messages: list[dict[str, Any]] = [{"role": "user", "content": chance.choice(ASKED)}]
    tools = [TOOL] if chance.random() < 0.25 else []
    if chance.random() < 0.5:
        messages.insert(0, {"role": "system", "content": "You repair code."})
    headers = {"Authorization": f"Bearer {gateway.token}"}
    with httpx.Client(headers=headers, timeout=600, trust_env=False) as client:
        stop = chance.choice((None, ["\n\n"], ["```", "."]))
        for _ in range(turns):
            body = {"model": "policy", "messages": messages, "tools": tools, "stop": stop}
            response = client.post(gateway.base_url(session) + "/chat/completions", json=body).raise_for_status()
            answer = response.json()["choices"][0]["message"]
            messages.append(answer)
            said = chance.choice(TOOL_OUTPUT)
            calls = answer.get("tool_calls") or ()
            messages += [{"role": "tool", "tool_call_id": call["id"], "content": said} for call in calls]
            if not calls:
                messages.append({"role": "user", "content": chance.choice((said, said + "\nGo on."))})


def check_splices(counts: Counts, turns: Sequence[Turn], seen: dict[tuple[int, ...], list[Completion]]) -> None:
    """Each turn's prompt, as the engine saw it, against what was sampled and put before."""
    history: tuple[int, ...] = ()
    for turn in turns:
        prompt = history + turn.new_ids
        sampled = [one.token_ids[: len(turn.token_ids)] for one in seen.get(prompt, ())]
        if not sampled:
            counts.differing_spliced_tokens += len(prompt)
        elif turn.token_ids not in sampled:
            counts.differing_spliced_tokens += sum(a != b for a, b in zip(sampled[0], turn.token_ids, strict=False))
        history = prompt + turn.token_ids


def check_retokenised(counts: Counts, gateway: Gateway, session: Session) -> None:
    """What whoever tokenises the messages again would train on."""
    turns, messages, tools, _ = session.longest()
    chat = gateway._chat
    history: tuple[int, ...] = turns[0].new_ids
    upto = next(place for place, message in enumerate(messages) if message["role"] == "assistant")
    for before, turn in pairwise(turns):
        history += before.token_ids + turn.new_ids
        upto = next(place for place in range(upto + 1, len(messages)) if messages[place]["role"] == "assistant")
        again = chat.encode(messages[:upto], tools)
        counts.later_turns += 1
        if again != history:
            counts.corrupted_turns += 1
            same = next((at for at, (a, b) in enumerate(zip(again, history, strict=False)) if a != b), 0)
            counts.corrupted_tokens += len(history) - same


def check_forward(counts: Counts, model: Any, turns: Sequence[Turn]) -> None:
    """Teacher-forced log-probabilities, and where the gradient of the loss goes."""
    completion = spliced(turns, text="")
    own = torch.tensor(completion.sampled or [True] * len(completion.token_ids))
    ids = torch.tensor([[*completion.prompt_ids, *completion.token_ids]])
    start = len(completion.prompt_ids) - 1
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, start:-1].float()
    logits.requires_grad_(True)
    logprobs = torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
    gap = (logprobs.detach() - torch.tensor(completion.logprobs))[own].abs().max()
    counts.greatest_logprob_gap = max(counts.greatest_logprob_gap, float(gap))
    (-(logprobs * own).sum() / own.sum()).backward()
    if not own.all():
        assert logits.grad is not None
        counts.loss_gradient_at_environment = max(
            counts.loss_gradient_at_environment, float(logits.grad[~own].abs().max())
        )


def measure(
    model: Any,
    tokenizer: Any,
    *,
    episodes: int,
    turns: int,
    new_tokens: int,
    forwards: int,
    first: int = 0,
    copy_dtype: str | None = None,
) -> Counts:
    """Play the episodes, then check each."""
    counts = Counts(episodes=episodes)
    engine = Watched(model, tokenizer, copy_dtype)
    began = time.monotonic()
    with Gateway(engine, sampling=Sampling(1.0, new_tokens)) as gateway, ThreadPoolExecutor(16) as pool:
        sessions = [
            gateway.open_session(seed=number, limits=SessionLimits(turns)) for number in range(first, first + episodes)
        ]
        work = [pool.submit(converse, gateway, session, turns, session.sampling.seed) for session in sessions]
        gateway.serve_while(work)
        for one in work:
            one.result()
        counts.seconds["sampling"] = time.monotonic() - began
        seen: dict[tuple[int, ...], list[Completion]] = {}
        for prompt, one in engine.seen:
            seen.setdefault(prompt, []).append(one)
        for number, session in enumerate(sessions):
            chain, messages, *_ = session.longest()
            counts.turns += len(chain)
            counts.lost_turns += turns - len(chain)
            counts.truncated_turns += sum(turn.finish_reason is FinishReason.LENGTH for turn in chain)
            counts.tool_calls += sum(bool(message.get("tool_calls")) for message in messages)
            counts.sampled_tokens += sum(len(turn.token_ids) for turn in chain)
            counts.environment_tokens += sum(len(turn.new_ids) for turn in chain[1:])
            counts.forks += session.forks
            counts.rewrites += session.rewrites
            check_splices(counts, chain, seen)
            check_retokenised(counts, gateway, session)
            if number < forwards:
                check_forward(counts, model, chain)
    counts.seconds["all"] = time.monotonic() - began
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the episodes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="seed of the first episode: to measure in parts")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--forwards", type=int, default=40, help="episodes whose log-probabilities are computed again")
    parser.add_argument("--bfloat16", action="store_true", help="sample in bf16, faster; use it with --forwards 0")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--tiny", action="store_true", help="the tiny random model, whose tokens are bytes")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    folder = None if arguments.tiny else str(fetch_embedded_model())
    model = tiny_model() if folder is None else load_model(folder)
    tokenizer = tiny_tokenizer() if folder is None else load_tokenizer(folder)
    share = 10 if arguments.quick else 1
    found = measure(
        model,
        tokenizer,
        episodes=max(1, arguments.episodes // share),
        turns=arguments.turns,
        new_tokens=arguments.new_tokens,
        forwards=arguments.forwards // share,
        first=arguments.first,
        copy_dtype="bfloat16" if arguments.bfloat16 else None,
    )
    kept = max(found.later_turns - found.corrupted_turns, 1) / found.later_turns
    spliced_right = 1.0 if not (found.differing_spliced_tokens or found.lost_turns) else 0.0
    if arguments.json:
        ratios = {"later turns kept exactly, splicing over re-tokenising": spliced_right / kept}
        print(json.dumps({"ratios": ratios, "details": vars(found)}))
        return
    table = Table(title="token fidelity", show_header=False)
    for name, value in vars(found).items():
        table.add_row(name.replace("_", " "), str(value))
    Console().print(table)


if __name__ == "__main__":
    main()
