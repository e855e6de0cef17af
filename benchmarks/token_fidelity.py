"""Attempts of several turns: is what would be trained on exactly what was sampled?

An untrained model talks in the repair-loop with an environment that answers in odd Unicode, at temperature 1, with
answers cut off at several places. Every call of the engine is watched from outside, so that the episodes' tokens are
held against what really went in and came out. `details` counts tokens that differ (must be 0), the largest difference
between the sampler's and the trainer's log-probabilities in fp32 (must be below 1e-4), log-probabilities of environment
tokens that are not exactly 0 in the trainer (must be none), and the turns that tokenising the conversation again would
have changed. Exits with 1 where any of them is not as it must be. There is nothing to be faster at: `ratios` is empty.

    python benchmarks/token_fidelity.py [--quick] [--json] [--episodes N]
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from code_repair_rl.grading import Grader
from code_repair_rl.models import TINY_MODEL, fetch_embedded_model, load_model, load_tokenizer
from code_repair_rl.rollouts import Completion, Message, Sampling
from code_repair_rl.rollouts.ask import Answer, ask
from code_repair_rl.rollouts.chat_format import TemplateFormat
from code_repair_rl.rollouts.local import LocalEngine
from code_repair_rl.rollouts.repair_loop import RepairLoop
from code_repair_rl.tasks import FunctionTests, Kind, Origin, Split, Task
from code_repair_rl.training.shared_prefix import completion_logprobs

ODD = ["☃", "e\u0301", "\u200b", "𝔘", "שלום", "\u202e", "🧑🚒", "\t", "  ", "\r\n", "<|im_end|", "ﬁ", "\ufffd", "0x"]
TOLERANCE = 1e-4
_COUNT = itertools.count()


class Talkative(RepairLoop):
    """Says something odd in the place of what went wrong."""

    def _feedback(self, found: Any) -> str:
        words = random.Random(next(_COUNT))
        return " ".join(words.choice([*ODD, "edit", "again", "fails:"]) for _ in range(words.randint(1, 30)))


class Watched:
    """An engine whose calls are noted."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        self.tokenizer, self.context_tokens = engine.tokenizer, engine.context_tokens
        self.chains: dict[tuple[int, ...], Completion] = {}
        """What went in and came out, as one, to the completion."""

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return self.engine.encode(messages)

    def refresh(self) -> None:
        self.engine.refresh()

    def generate(
        self, prompts: Sequence[Sequence[int]], *, completions_per_prompt: int, sampling: Sampling
    ) -> list[list[Completion]]:
        found = self.engine.generate(prompts, completions_per_prompt=completions_per_prompt, sampling=sampling)
        for prompt, group in zip(prompts, found, strict=True):
            for one in group:
                self.chains[(*prompt, *one.token_ids)] = one
        return found


def tasks(count: int) -> list[Task]:
    """Tasks without visible tests, each described oddly; an untrained model never edits."""
    return [
        Task(
            task_id=f"odd-{number}",
            kind=Kind.REPAIR,
            files={"a.py": "def f(x):\n    return x\n"},
            description=" ".join(random.Random(number).choice(ODD) for _ in range(12)),
            oracle={"a.py": "def f(x):\n    return -x\n"},
            tests=FunctionTests(path="a.py", entry_point="f"),
            split=Split.TRAIN,
            problem=f"odd-{number}",
            origin=Origin(source="benchmark"),
            licence="MIT",
        )
        for number in range(count)
    ]


def differing(answer: Answer, watched: Watched) -> int:
    """Tokens of an episode that are not, with their log-probabilities, what went in and came out."""
    assert answer.episode is not None
    whole: tuple[int, ...] = ()
    wrong = 0
    for turn in answer.episode.turns:
        whole = (*whole, *turn.new_ids, *turn.token_ids)
        seen = watched.chains.get(whole)
        if seen is None or (seen.token_ids, seen.logprobs) != (turn.token_ids, turn.logprobs):
            wrong += len(turn.token_ids)
    one = answer.completion
    return wrong + (0 if (*one.prompt_ids, *one.token_ids) == whole else len(whole))


def changed_by_tokenising_again(answer: Answer, written: TemplateFormat) -> tuple[int, int]:
    """Later turns whose prompt would be another, and how many later turns there are."""
    assert answer.episode is not None
    exact: tuple[int, ...] = ()
    changed = 0
    answers = [place for place, one in enumerate(answer.episode.messages) if one["role"] == "assistant"]
    for number, (turn, place) in enumerate(zip(answer.episode.turns, answers, strict=True)):
        exact = (*exact, *turn.new_ids)
        changed += number > 0 and written.encode(answer.episode.messages[:place]) != exact
        exact = (*exact, *turn.token_ids)
    return changed, len(answers) - 1


def parity(model: torch.nn.Module, answers: Sequence[Answer]) -> tuple[float, int]:
    """Largest difference of log-probabilities, and environment tokens whose own is not exactly 0."""
    worst, loud = 0.0, 0
    for answer in answers:
        one = answer.completion
        marks = torch.tensor(one.sampled or (True,) * len(one.token_ids))
        with torch.no_grad():
            found = completion_logprobs(
                model, [list(one.prompt_ids)], [[list(one.token_ids)]], wanted=[[marks.tolist()]]
            ).logprobs[0]
        worst = max(worst, float((found - torch.tensor(one.logprobs))[marks].abs().max()))
        loud += int((found[~marks] != 0).sum())
    return worst, loud


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the tiny random model and few episodes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--episodes", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    count = 24 if arguments.quick else arguments.episodes
    name = TINY_MODEL if arguments.quick else str(fetch_embedded_model())
    model, tokenizer = load_model(name), load_tokenizer(name)
    watched = Watched(LocalEngine(model, tokenizer))
    answers: list[Answer] = []
    with Grader(workers=1) as grader:
        for batch, limit in enumerate((5, 11, 24, 40)):  # cut off at several places
            groups = ask(
                watched,
                grader,
                tasks(-(-count // 8)),
                hint="none",
                completions_per_task=2,
                sampling=Sampling(temperature=1.0, max_new_tokens=limit, seed=batch),
                agent=Talkative(max_turns=3),
            )
            answers += [one for group in groups for one in group]
    written = TemplateFormat(tokenizer, watched.context_tokens)
    again = [changed_by_tokenising_again(answer, written) for answer in answers]
    worst, loud = parity(model, answers)
    details = {
        "model": "tiny-random" if arguments.quick else "smollm2-135m-instruct",
        "episodes": len(answers),
        "turns": sum(len(answer.episode.turns) for answer in answers if answer.episode),
        "sampled_tokens": sum(sum(answer.completion.sampled) for answer in answers),
        "environment_tokens": sum(answer.completion.sampled.count(False) for answer in answers),
        "cut_off_turns": sum(
            turn.finish_reason == "length" for answer in answers if answer.episode for turn in answer.episode.turns
        ),
        "differing_tokens": sum(differing(answer, watched) for answer in answers),
        "largest_logprob_difference": worst,
        "environment_logprobs_not_zero": loud,
        "later_turns": sum(turns for _, turns in again),
        "later_turns_changed_by_tokenising_again": sum(changed for changed, _ in again),
    }
    if arguments.json:
        print(json.dumps({"ratios": {}, "details": details}, indent=1))
    else:
        table = Table(box=None)
        for column in ("", "value"):
            table.add_column(column)
        for key, value in details.items():
            table.add_row(key.replace("_", " "), str(value))
        Console().print(table)
    return int(details["differing_tokens"] != 0 or worst > TOLERANCE or loud != 0)


if __name__ == "__main__":
    sys.exit(main())
