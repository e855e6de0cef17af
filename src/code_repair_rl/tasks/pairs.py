"""Reader for users' own before/after pairs: the smallest thing that one can learn repairs from."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from code_repair_rl.errors import BadInput, first_complaint
from code_repair_rl.tasks.faults import exact_lines
from code_repair_rl.tasks.files import TasksOfAFile
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

    Lines with the same code before are one problem, that of the first, where they do not name another.

    Raises:
        BadInput: the file cannot be read, a line is no such pair, an id occurs twice, or a problem is in two splits;
            the error names line and key.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=str(path)) from error
    together = TasksOfAFile(path, id_key="id")
    problem_of_code: dict[tuple[str, ...], str] = {}
    tasks: list[Task] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        pair = _pair(line, f"{path}:{number}")
        code = (pair.before,) if isinstance(pair.before, str) else tuple(sorted(pair.before.values()))
        task_id = pair.id or f"{path.stem}/{number}"
        problem = problem_of_code.setdefault(code, pair.problem or task_id)
        task = _task(pair, path, number, task_id=task_id, problem=pair.problem or problem)
        together.add(task, number)
        tasks.append(task)
    return tasks


def _pair(line: bytes, where: str) -> _Pair:
    try:
        return _Pair.model_validate_json(line)
    except ValidationError as error:
        said = first_complaint(error, lambda part: not str(part).startswith(("dict[", "str")))
        raise BadInput(said, where=where) from error


def _task(pair: _Pair, path: Path, number: int, *, task_id: str, problem: str) -> Task:
    where = f"{path}:{number}"
    before = {pair.path: pair.before} if isinstance(pair.before, str) else pair.before
    after: dict[str, str | None] = {pair.path: pair.after} if isinstance(pair.after, str) else pair.after
    changed = {path: text for path, text in after.items() if before.get(path) != text}
    if not changed:
        raise BadInput("after: nothing differs from `before`", where=where, mend="drop the line")
    try:
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
            origin=Origin(source=path.name, detail={"line": number}),
            licence=pair.licence,
        )
    except ValidationError as error:  # a path that leaves the tree
        raise BadInput(first_complaint(error), where=where) from error
