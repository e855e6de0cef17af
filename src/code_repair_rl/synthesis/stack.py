"""`stack`: functions of real files, masked, to be written back from their description in the style around them.

Files come from a folder, an installed package, an archive, or the data sets the-stack-smol and stack-smol-docstrings.
There are no tests: answers are compared with the function that stood there, so the recipe's reward has to say what
nearness is worth (`gain`, `style`).
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from code_repair_rl.errors import BadInput
from code_repair_rl.synthesis.bugs import Unusable
from code_repair_rl.synthesis.duplicates import THRESHOLD, function_shingles, open_copies
from code_repair_rl.synthesis.masking import Function, Masked, MaskKind, Unmaskable, functions_in, mask
from code_repair_rl.synthesis.near_copies import alike
from code_repair_rl.synthesis.python_sources import PythonFile, python_files
from code_repair_rl.synthesis.quality import code_fault, docstring_fault, file_fault
from code_repair_rl.tasks import Hints, Kind, Origin, Task, exact_lines, split_of
from code_repair_rl.tasks.rows import HUB_PREFIX, checked, data_set_rows, is_data_set

KNOWN_DATA_SETS: Mapping[str, str] = {
    "the-stack-smol": f"{HUB_PREFIX}bigcode/the-stack-smol",
    "stack-smol-docstrings": f"{HUB_PREFIX}ASSERT-KTH/stack-smol-docstrings",
}
"""Short names of data sets on the hub; naming one asks the network."""

_UNKNOWN_LICENCE = "NOASSERTION"


class _StackRow(BaseModel):
    """A row of the-stack-smol: one file."""

    model_config = ConfigDict(extra="ignore")  # sizes and shares of characters: nothing that we read

    content: str
    path: str = Field(min_length=1)
    repository_name: str = Field(min_length=1)
    licenses: list[str] = []
    lang: str = "Python"


class _MaskedRow(BaseModel):
    """A row of stack-smol-docstrings: one masked function."""

    model_config = ConfigDict(extra="ignore")

    function_name: str = Field(min_length=1)
    docstring: str
    masked_code: str = Field(min_length=1)
    file_content: str = Field(min_length=1)
    start_line: int = Field(ge=1)
    end_line: int = Field(ge=1)


@dataclass(frozen=True, slots=True)
class _Found:
    """A function that is worth writing back."""

    file: PythonFile
    function: Function
    masked: Masked


def stack_tasks(
    source: str, *, kind: MaskKind | str = MaskKind.WHOLE, licence: str | None = None, seed: int = 0
) -> tuple[list[Task], list[Unusable]]:
    """Implement tasks of every function of a source that passes the filters, in the order of a draw by `seed`.

    Splits go by file. Of functions that are nearly the same, wherever they stand, the first is kept.

    Args:
        source: what `python_files` takes; rows of the-stack-smol or stack-smol-docstrings as JSON Lines, Parquet or
            `hub:OWNER/NAME`; or a short name of `KNOWN_DATA_SETS`.
        kind: what is masked. Rows of stack-smol-docstrings are masked already; they are masked anew all the same, since
            the data set's own masks lose indentation.
        licence: SPDX identifier where the source does not say.
        seed: of the order.

    Returns:
        The tasks, and what was left out with its reason.

    Raises:
        BadInput: nothing usable is there, or a row breaks its schema; the error names row and key.
        MachineryFailed: the hub cannot be reached.
    """
    left_out: list[Unusable] = []
    found: list[_Found] = []
    for file, names in _files(source, licence):
        found += _worthy(file, names, MaskKind(kind), left_out)
    if not found:
        raise BadInput(
            f"no function passes the filters ({_commonest(left_out)})",
            where=source,
            mend="see docs/tasks.md for what they ask of a function and its docstring",
        )
    kept = _without_twins(found, left_out)
    random.Random(f"stack/{seed}").shuffle(kept)
    return [_task(one, MaskKind(kind)) for one in _turns(kept)], left_out


def _files(source: str, licence: str | None) -> Iterator[tuple[PythonFile, frozenset[tuple[str, int]] | None]]:
    """Files, and the (name, first line) of the only functions to take of them; None for all."""
    place = KNOWN_DATA_SETS.get(source, source)
    if not is_data_set(place) or _has_python(place):
        for file in python_files(source, licence=licence):
            yield file, None
        return
    data_dir = "data/python" if place == KNOWN_DATA_SETS["the-stack-smol"] else None
    name = next((short for short, hub in KNOWN_DATA_SETS.items() if hub == place), place.rpartition("/")[2])
    chosen: dict[str, tuple[PythonFile, set[tuple[str, int]]]] = {}
    for where, row in data_set_rows(place, data_dir=data_dir):
        if isinstance(row, dict) and "masked_code" in row:
            masked = checked(_MaskedRow, row, where)
            if masked.end_line < masked.start_line:
                raise BadInput("end_line: it lies before start_line", where=where)
            file, names = chosen.setdefault(
                masked.file_content, (PythonFile(f"{len(chosen)}.py", masked.file_content, name), set())
            )
            names.add((masked.function_name, masked.start_line))
            continue
        whole = checked(_StackRow, row, where)
        if whole.lang.lower() == "python":
            stated = licence or " AND ".join(sorted(set(whole.licenses))) or _UNKNOWN_LICENCE
            yield PythonFile(whole.path, whole.content, name, "", stated, whole.repository_name), None
    for file, names in chosen.values():
        yield PythonFile(file.path, file.text, name, "", licence or _UNKNOWN_LICENCE), frozenset(names)


def _has_python(place: str) -> bool:
    """Whether a folder that holds rows, too, is one of code."""
    folder = Path(place).expanduser()
    return folder.is_dir() and next(folder.rglob("*.py"), None) is not None


def _worthy(
    file: PythonFile, names: frozenset[tuple[str, int]] | None, kind: MaskKind, left_out: list[Unusable]
) -> Iterator[_Found]:
    """The file's functions that pass the filters; the others go to `left_out`."""
    place = "/".join(part for part in (file.source, file.repository, file.path) if part)
    fault = file_fault(file.text)
    try:
        functions = functions_in(file.text) if fault is None else []
    except SyntaxError:
        functions, fault = [], "the file is not this Python's"
    if fault is not None:
        left_out.append(Unusable(place, fault))
    copies = open_copies(functions, file.text)
    for function in functions:
        if names is not None and (function.name, function.first_line) not in names:
            continue
        reason = code_fault(function, file.text) or docstring_fault(function) or copies.get(function)
        if reason is None:
            try:
                yield _Found(file, function, mask(file.text, function, kind))
                continue
            except Unmaskable as error:
                reason = str(error)
        left_out.append(Unusable(f"{place}::{function.qualified_name}:{function.first_line}", reason))


def _without_twins(found: Sequence[_Found], left_out: list[Unusable]) -> list[_Found]:
    """The first of functions that are nearly the same: copies of one function are in many files."""
    twin_of: dict[int, int] = {}
    for first, second in alike([function_shingles(one.function, one.file.text) for one in found], THRESHOLD):
        if first not in twin_of:
            twin_of.setdefault(second, first)
    for place, first in twin_of.items():
        left_out.append(Unusable(_identity(found[place]), f"nearly the same as {_identity(found[first])}"))
    return [one for place, one in enumerate(found) if place not in twin_of]


def _turns(found: Iterable[_Found]) -> list[_Found]:
    """One of each file before the second of any."""
    piles: dict[tuple[str, str], list[_Found]] = {}
    for one in found:
        piles.setdefault((one.file.repository, one.file.path), []).append(one)
    depth = max(map(len, piles.values()), default=0)
    return [pile[turn] for turn in range(depth) for pile in piles.values() if turn < len(pile)]


def _task(one: _Found, kind: MaskKind) -> Task:
    file, function = one.file, one.function
    before, after = {file.path: one.masked.before}, {file.path: one.masked.after}
    problem = "/".join(part for part in ("stack", file.source, file.repository, file.path) if part)
    return Task(
        task_id=f"stack/{_identity(one)}/{kind}",
        kind=Kind.IMPLEMENT,
        files=before,
        description=description(function, one.masked, kind),
        hints=Hints(exact_lines=exact_lines(before, after)),
        oracle=after,
        tests=None,
        split=split_of(problem),
        problem=problem,
        origin=Origin(
            source=file.source,
            version=file.version,
            detail={
                "function": function.qualified_name,
                "mask": kind.value,
                "first_line": function.first_line,
                "last_line": function.last_line,
                **({"repository": file.repository} if file.repository else {}),
            },
        ),
        licence=file.licence,
    )


def description(function: Function, masked: Masked, kind: MaskKind | str) -> str:
    """What a prompt says of a masked function: where it goes, and its specification where that was masked too."""
    style = "Write it in the style of the code around it."
    if MaskKind(kind) is MaskKind.BODY:
        return f"Write the body of `{function.qualified_name}` in place of the line\n{masked.placeholder}\n{style}"
    decorators = "".join(f"@{ast.unparse(one)}\n" for one in function.node.decorator_list)
    return (
        f"Write `{function.qualified_name}` in place of the comment\n{masked.placeholder}\n{style}\n\n"
        f"{decorators}{function.signature}\n\n{function.docstring or ''}"
    ).rstrip()


def _identity(one: _Found) -> str:
    place = "/".join(part for part in (one.file.source, one.file.repository, one.file.path) if part)
    return f"{place}::{one.function.qualified_name}:{one.function.first_line}"


def _commonest(left_out: Sequence[Unusable]) -> str:
    counts: dict[str, int] = {}
    for one in left_out:
        counts[one.reason] = counts.get(one.reason, 0) + 1
    most = sorted(counts, key=lambda reason: -counts[reason])[:3]
    return "; ".join(f"{counts[reason]}: {reason}" for reason in most) or "there is none"
