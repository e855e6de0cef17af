"""Tasks as JSON Lines: one `Task` a line, unknown keys refused, errors that name file, line and key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from code_repair_rl.errors import BadInput, first_complaint
from code_repair_rl.home import home, write_atomically
from code_repair_rl.tasks.task import Split, Task

SCHEMA_VERSION = 1
"""What this version writes and reads; every line says which it is."""

_BRANCHES = ("function", "repository", "dict[str,nullable[str]]", "str")
"""Of unions in the schema: pydantic names the one it tried, which is no key of the file."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def load_tasks(name_or_path: str | Path, *, split: Split | str | None = None, limit: int | None = None) -> list[Task]:
    """The tasks of a built set or of a file, in the file's order.

    Args:
        name_or_path: the name of a built set (`humaneval-bugs`) or the path of a JSON Lines file.
        split: only tasks of this split.
        limit: at most that many, the first ones.

    Raises:
        BadInput: the set was not built, the file is absent or damaged, or there is no such split.
    """
    path = task_file(name_or_path)
    wanted = _split(split)
    tasks = [task for task in read_tasks(path) if wanted is None or task.split is wanted]
    return tasks if limit is None else tasks[:limit]


def built_set(name: str) -> Path:
    """Where the built set `name` lies (or would lie) in the cache folder."""
    return home() / "tasks" / f"{name}.jsonl"


def task_file(name_or_path: str | Path) -> Path:
    """The file that a set's name or a path means.

    Raises:
        BadInput: neither a built set nor a file.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    name = str(name_or_path)
    if _NAME.fullmatch(name) and built_set(name).is_file():
        return built_set(name)  # also where a folder of that name happens to lie here
    if path.is_dir():
        raise BadInput("this is a folder, not a task file", where=str(path), mend="name the .jsonl file in it")
    if _NAME.fullmatch(name) is None or name.endswith((".jsonl", ".json")):
        raise BadInput("no such task file", where=name, mend="check the path, or name a built set")
    path = built_set(name)
    if not path.is_file():
        raise BadInput(f"the task set {name} was not built yet", mend=f"run `crrl tasks build {name}`")
    return path


def read_tasks(path: Path) -> Iterator[Task]:
    """The tasks of a JSON Lines file, one after the other; empty lines are passed over.

    Raises:
        BadInput: a line that is not JSON or breaks the schema, a task id that occurs twice, a problem in two splits.
            The error names file, line and key.
    """
    together = TasksOfAFile(path)
    for number, line in _lines(path):
        task = _parsed(line, f"{path}:{number}")
        together.add(task, number)
        yield task


class TasksOfAFile:
    """What has to hold between the tasks of a file: an id occurs once, and a problem is in one split.

    Args:
        path: the file.
        id_key: what the file calls a task's id.
    """

    def __init__(self, path: Path, id_key: str = "task_id") -> None:
        self._path = path
        self._id_key = id_key
        self._line_of_id: dict[str, int] = {}
        self._split_of_problem: dict[str, tuple[Split, int]] = {}

    def add(self, task: Task, number: int) -> None:
        """Take in the task on the 1-based line `number`.

        Raises:
            BadInput: it does not go with those before it; the error names file, line and key.
        """
        where = f"{self._path}:{number}"
        if (first := self._line_of_id.setdefault(task.task_id, number)) != number:
            raise BadInput(f"{self._id_key}: {task.task_id!r} is on line {first} already", where=where)
        split, first = self._split_of_problem.setdefault(task.problem, (task.split, number))
        if split is not task.split:
            raise BadInput(
                f"split: problem {task.problem!r} is in split {split} on line {first} and in {task.split} here",
                where=where,
                mend="give all tasks of one problem the same split",
            )


def write_tasks(path: Path, tasks: Iterable[Task]) -> None:
    """Write tasks as JSON Lines, all of them or nothing; the same tasks give the same bytes."""
    write_atomically(path, "".join(task.model_dump_json() + "\n" for task in tasks))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=str(path)) from error


def _parsed(line: bytes, where: str) -> Task:
    try:
        return Task.model_validate_json(line)
    except ValidationError as error:
        raise BadInput(_first_complaint(error), where=where, mend=_mend(error)) from error


def _first_complaint(error: ValidationError) -> str:
    """The first thing that is wrong, key first; how many more there are."""
    text = first_complaint(error, lambda part: part not in _BRANCHES)
    more = error.error_count() - 1
    return f"{text} (and {more} more)" if more else text


def _mend(error: ValidationError) -> str | None:
    first = error.errors(include_url=False)[0]
    if first["type"] == "extra_forbidden":
        return "remove the key, or check its spelling against docs/tasks.md"
    if first["loc"][:1] == ("schema_version",):
        return f"this version of crrl reads schema_version {SCHEMA_VERSION}; build the tasks again"
    return None


def _split(split: Split | str | None) -> Split | None:
    if split is None:
        return None
    try:
        return Split(split)
    except ValueError:
        names = ", ".join(member.value for member in Split)
        raise BadInput(f"there is no split {split!r}", mend=f"use one of {names}") from None
