"""Reader for users' own before/after pairs: the smallest thing that one can learn repairs from."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from code_repair_rl.errors import BadInput, first_complaint
from code_repair_rl.tasks.faults import exact_lines
from code_repair_rl.tasks.splits import split_of
from code_repair_rl.tasks.task import Hints, Kind, Origin, Split, Task

_DESCRIPTION = "Fix the bug."


class _Pair(BaseModel):
    """One line of a pairs file."""

    model_config = ConfigDict(extra="forbid")

    before: str | dict[str, str]
    after: str | dict[str, str | None]
    id: str | None = None
    description: str = _DESCRIPTION
    problem: str | None = None
    split: Split | None = None
    licence: str = "NOASSERTION"
    path: str = "solution.py"
    """The file's name where `before` and `after` are texts."""


def read_pairs(path: Path) -> list[Task]:
    """Repair tasks without tests, one of each line of `before` and `after`.

    Raises:
        BadInput: the file cannot be read, or a line is no such pair; the error names line and key.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=str(path)) from error
    tasks: list[Task] = []
    line_of_id: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        task = _task(line, f"{path}:{number}", default_id=f"{path.stem}/{number}", source=path.name)
        if (first := line_of_id.setdefault(task.task_id, number)) != number:
            raise BadInput(f"id: {task.task_id!r} is on line {first} already", where=f"{path}:{number}")
        tasks.append(task)
    return tasks


def _task(line: bytes, where: str, *, default_id: str, source: str) -> Task:
    try:
        pair = _Pair.model_validate_json(line)
    except ValidationError as error:
        said = first_complaint(error, lambda part: not str(part).startswith(("dict[", "str")))
        raise BadInput(said, where=where) from error
    before = {pair.path: pair.before} if isinstance(pair.before, str) else pair.before
    after: dict[str, str | None] = {pair.path: pair.after} if isinstance(pair.after, str) else pair.after
    changed = {path: text for path, text in after.items() if before.get(path) != text}
    if not changed:
        raise BadInput("after: nothing differs from `before`", where=where, mend="drop the line")
    task_id = pair.id or default_id
    problem = pair.problem or task_id
    return Task(
        task_id=task_id,
        kind=Kind.REPAIR,
        files=before,
        description=pair.description,
        hints=Hints(exact_lines=exact_lines(before, changed)),
        oracle=changed,
        tests=None,
        split=pair.split or split_of(problem),
        problem=problem,
        origin=Origin(source=source, detail={"line": int(where.rpartition(":")[2])}),
        licence=pair.licence,
    )
