"""Rejection sampling, second half: from rollouts to what is worth learning. Pure: rows in, examples out.

    rows --passed?--> --right split, length--> --same edit only once--> --best n of a task--> examples
                                                                     \\-- a problem's hash --> held out

What an example teaches is its answers, never what the environment said. Of several answers of the repair-loop that is
by default only the last: the one that worked, in the face of the failures before it. An agent's program works by all of
its answers, and so by default all are learnt.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from code_repair_rl.edits import changed_tokens
from code_repair_rl.errors import BadInput
from code_repair_rl.rollouts.agent_metrics import answers_of
from code_repair_rl.rollouts.ask import prompt_text
from code_repair_rl.runs import RolloutRow
from code_repair_rl.tasks import Task
from code_repair_rl.tasks.prompts import messages

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Choice:
    """What is kept."""

    best: int = 1
    """Attempts per task at most: fewest answers first, then the smallest edits, then the fewest tokens."""
    least_reward: float | None = None
    """Keep attempts with at least this reward in place of those that passed; needs rows with rewards (a GRPO run's)."""
    most_tokens: int | None = None
    """Longer conversations are left out, prompt included."""
    splits: tuple[str, ...] = ("train",)
    """Rows of other splits are left out: what is held out stays held out."""
    held_out_share: float = 0.0
    """Share of the problems that is put aside, by a hash of their names: the same in every run."""
    learn: Literal["auto", "last", "all"] = "auto"
    """Which answers of a conversation are learnt; `auto`: all of an agent's program, else the last."""


@dataclass(frozen=True, slots=True)
class Curated:
    """One example: a conversation, and which parts of it are learnt."""

    task_id: str
    problem: str
    source: str
    """Where it was sampled: run, step, group and sample."""
    messages: tuple[Mapping[str, Any], ...]
    """With roles; an assistant's message says in `learn` whether it is learnt. Tool calls are as the chat API has
    them."""
    asked: int = 0
    """How many of `messages` come before the first answer that was sampled."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """What the model was offered, in the OpenAI form."""
    prompt_ids: tuple[int, ...] = ()
    """Exact tokens of the first prompt; empty where the sampler told none (a remote model)."""
    token_ids: tuple[int, ...] = ()
    """All that followed, exactly as sampled."""
    learnt: tuple[bool, ...] = ()
    """For each of `token_ids` whether it is learnt."""
    schema_version: int = SCHEMA_VERSION

    def document(self) -> str:
        """The conversation as plain text."""
        return prompt_text(self.messages)


@dataclass(frozen=True, slots=True)
class Selection:
    """What was kept, and why the rest was not."""

    kept: tuple[Curated, ...]
    held_out: tuple[Curated, ...]
    left_out: Mapping[str, int]
    """Reason to number of rows."""
    tasks: int
    """Tasks among the rows, and how many of them have an example."""
    tasks_kept: int


@dataclass(frozen=True, slots=True)
class Source:
    """A run's rollouts."""

    name: str
    """Goes into each example's `source`."""
    rows: Sequence[RolloutRow]
    tasks: Mapping[str, Task]
    """By id, those that the rows are of, to make the first messages again."""


def curate(sources: Sequence[Source], choice: Choice) -> list[Selection]:
    """Choose among rollouts: of all runs together the best of a task, and the same edit once.

    Returns:
        For each run what was kept of it.

    Raises:
        BadInput: a row's task is missing or has changed since it was asked.
    """
    left_out: list[Counter[str]] = [Counter() for _ in sources]
    by_task: dict[str, list[tuple[int, RolloutRow]]] = {}
    for place, source in enumerate(sources):
        for row in source.rows:
            reason = _why_not(row, choice)
            if reason is not None:
                left_out[place][reason] += 1
            else:
                by_task.setdefault(row.task_id, []).append((place, row))
    kept: list[list[Curated]] = [[] for _ in sources]
    held_out: list[list[Curated]] = [[] for _ in sources]
    seen: set[str] = set()
    for task_id in sorted(by_task):
        count = 0
        for place, row in sorted(by_task[task_id], key=lambda one: (_worse(one[1]), one[0])):
            edit = hashlib.sha256("\x1f".join([row.prompt, row.patch or row.text]).encode()).hexdigest()
            if edit in seen:
                left_out[place]["the same edit is kept already"] += 1
            elif count == choice.best:
                left_out[place]["the task has enough"] += 1
            else:
                seen.add(edit)
                count += 1
                aside = is_held_out(row.problem, choice.held_out_share)
                source = sources[place]
                (held_out if aside else kept)[place].append(_example(row, source.tasks, choice.learn, source.name))
    return [
        Selection(
            tuple(kept[place]),
            tuple(held_out[place]),
            dict(left_out[place].most_common()),
            len({row.task_id for row in source.rows}),
            len({one.task_id for one in (*kept[place], *held_out[place])}),
        )
        for place, source in enumerate(sources)
    ]


def is_held_out(problem: str, share: float) -> bool:
    """Whether a problem is put aside, by a hash of its name: no list has to be kept, and more data changes nothing."""
    digest = hashlib.sha256(f"hold-out/{problem}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _why_not(row: RolloutRow, choice: Choice) -> str | None:
    if row.split not in choice.splits:
        return f"split {row.split}"
    if row.score is None:
        return "no verdict"
    if choice.least_reward is None and not row.passed:
        return "did not pass"
    if choice.least_reward is not None and (row.reward is None or row.reward < choice.least_reward):
        return "reward below the threshold"
    if row.finish_reason != "stop":
        return "cut off"
    if choice.most_tokens is not None and len(row.prompt_ids) + len(row.token_ids) > choice.most_tokens:
        return "too long"
    return None


def _worse(row: RolloutRow) -> tuple[float, int, int, int, str]:
    """Sorts the best first."""
    reward = 0.0 if row.reward is None else -row.reward
    size = changed_tokens(row.files_before, row.files_after) if row.files_after else 0
    return (reward, len(answers_of(row)), size, row.sampled_tokens, row.key)


def _example(row: RolloutRow, tasks: Mapping[str, Task], learn: str, run_name: str) -> Curated:
    task = tasks.get(row.task_id)
    asked, tools = _asked(row, task)
    if task is None or prompt_text(asked) != row.prompt or dict(task.files) != dict(row.files_before):
        raise BadInput(
            "the task is not there, or is no longer what was asked",
            where=f"{run_name}: {row.task_id}",
            mend="build the task set that was sampled from",
        )
    exact = bool(row.prompt_ids)
    if learn == "auto":
        learn = "all" if row.opening is not None else "last"
    return Curated(
        task_id=row.task_id,
        problem=row.problem,
        source=f"{run_name}/{row.key}",
        messages=(*asked, *_said(row, learn)),
        asked=len(asked),
        tools=tools,
        prompt_ids=row.prompt_ids,
        token_ids=row.token_ids if exact else (),
        learnt=_learnt(row, learn) if exact else (),
    )


def _asked(row: RolloutRow, task: Task | None) -> tuple[Sequence[Mapping[str, Any]], tuple[Mapping[str, Any], ...]]:
    """The messages before the first answer, and the tools that were offered."""
    if row.opening is not None:
        opening = json.loads(row.opening)
        given = [
            message | {"learn": False} if message["role"] == "assistant" else message for message in opening["messages"]
        ]
        return given, tuple(opening["tools"])
    return (messages(task, row.hint) if task is not None else []), ()


def _said(row: RolloutRow, learn: str) -> list[dict[str, Any]]:
    """What followed the prompt, as messages."""
    if row.turns is None:
        return [{"role": "assistant", "content": row.text, "learn": True}]
    last = max(number for number, turn in enumerate(row.turns) if turn.role == "assistant")
    said: list[dict[str, Any]] = []
    for number, turn in enumerate(row.turns[: last + 1]):
        message: dict[str, Any] = {"role": turn.role, "content": turn.text}
        if turn.role == "assistant":
            message["learn"] = turn.finish_reason != "length" and (learn == "all" or number == last)
        if turn.tool_calls:
            message["tool_calls"] = [
                {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in turn.tool_calls
            ]
        if turn.role == "tool":
            message["tool_call_id"] = turn.call_id
        said.append(message)
    return said


def _learnt(row: RolloutRow, learn: str) -> tuple[bool, ...]:
    drawn = row.uncut
    if learn == "all" or row.turns is None:
        return drawn
    last = [turn for turn in row.turns if turn.role == "assistant"][-1]
    return tuple(mark and last.start <= place < last.end for place, mark in enumerate(drawn))


def as_plain(one: Curated) -> dict[str, Any]:
    """An example as plain data, for a line of JSON."""
    return dataclasses.asdict(one)
