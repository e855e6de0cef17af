"""Answers as JSON Lines: anyone's, one object a line; SWE-bench's `predictions.jsonl` is read as well."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from code_repair_rl.errors import BadInput
from code_repair_rl.home import write_atomically
from code_repair_rl.tasks import Task

_OURS = {"task_id", "text", "model"}
_SWE_BENCH = {"instance_id", "model_patch", "model_name_or_path"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to one task."""

    task_id: str
    text: str
    """What the model wrote, whole: an edit somewhere in it, or none."""
    model: str = ""
    """Who wrote it, where that was said."""


def read_answers(path: Path) -> list[Answer]:
    """The answers of a file, in its order.

    A line is `{"task_id": …, "text": …}` (and, if wanted, `"model"`), or, as SWE-bench has it,
    `{"instance_id": …, "model_patch": …, "model_name_or_path": …}`.

    Raises:
        BadInput: the file is absent, or a line is not an answer; the error names line and key.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: U+2028 may stand within a string
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the answers cannot be read ({error})", where=str(path)) from error
    return [_answer(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]


def with_tasks(answers: Sequence[Answer], tasks: Iterable[Task], where: str) -> list[tuple[Task, str]]:
    """Each answer beside its task.

    Raises:
        BadInput: an answer to a task that is not among `tasks`.
    """
    by_id = {task.task_id: task for task in tasks}
    pairs = []
    for answer in answers:
        task = by_id.get(answer.task_id)
        if task is None:
            raise BadInput(
                f"there is no task {answer.task_id!r} in the task file",
                where=where,
                mend="grade the answers against the task file that they were made for",
            )
        pairs.append((task, answer.text))
    return pairs


def write_predictions(path: Path, answers: Iterable[Answer], patches: Mapping[int, str]) -> None:
    """Write answers as SWE-bench's `predictions.jsonl`.

    Args:
        path: the file.
        answers: in order.
        patches: unified diff of each answer by its place; an answer without one gets an empty patch.
    """
    rows = [
        {"instance_id": answer.task_id, "model_name_or_path": answer.model, "model_patch": patches.get(index, "")}
        for index, answer in enumerate(answers)
    ]
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def _answer(line: str, where: str) -> Answer:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise BadInput(f"not JSON ({error})", where=where) from error
    if not isinstance(row, dict):
        raise BadInput("an answer is a JSON object", where=where)
    ours, names = ("instance_id" not in row), ("task_id", "text", "model")
    if not ours:
        names = ("instance_id", "model_patch", "model_name_or_path")
    unknown = set(row) - (_OURS if ours else _SWE_BENCH)
    if unknown:
        raise BadInput(f"unknown key {min(unknown)!r}", where=where, mend=f"use only {', '.join(names)}")
    values: list[Any] = [row.get(names[0]), row.get(names[1]), row.get(names[2]) or ""]
    if not ours and values[1] is None:
        values[1] = ""  # SWE-bench's own reader takes a missing patch for an empty one
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, str):
            raise BadInput(f"{name} is missing or not a string", where=where)
    return Answer(*values)
