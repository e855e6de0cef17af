"""Reader for PrimeVul (Ding et al. 2024, arXiv:2403.18624): its official JSON Lines and its form on the hub.

Both have one function a row: `idx`, `project`, `commit_id`, `target` (1: vulnerable), `func`, `file_name`, `cwe`, `cve`
and more. The hub's columns are the same, as JSON Lines or Parquet; there `cwe` may be the list written as a string.
In the paired files each vulnerable function has its fixed version, which shares project, commit and function name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from code_repair_rl.tasks.rows import checked, rows_of
from code_repair_rl.tasks.task import Split
from code_repair_rl.tasks.vulnerabilities import (
    LabelledFunction,
    Reading,
    cwe_id,
    joined,
    language_of,
    split_named_in,
    unique,
    with_line_feeds,
)

SOURCE = "primevul"

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_CALLED = re.compile(r"([A-Za-z_~][\w:~]*)\s*\(")
_NO_NAMES = {"__attribute__", "__declspec", "if", "for", "while", "switch", "return", "sizeof", "defined", "alignas"}


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore")  # commit messages, hashes, urls: nothing that we read

    idx: int | str
    project: str = Field(min_length=1)
    commit_id: str = Field(min_length=1)
    target: int = Field(ge=0, le=1)
    func: str = Field(min_length=1)
    cwe: list[str] = []
    file_name: str | None = None
    cve: str | None = None

    @field_validator("cwe", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        if value is None:
            return []
        if isinstance(value, str):
            try:
                found = ast.literal_eval(value) if value.strip().startswith("[") else [value] if value.strip() else []
            except (ValueError, SyntaxError):
                raise ValueError(f"not a list of CWEs ({value!r})") from None
            return found
        return value


def read_primevul(path: Path, name: str = "", *, paired: bool | None = None) -> Reading:
    """The functions of a PrimeVul file.

    Args:
        path: JSON Lines or Parquet.
        name: of the file within its folder, where it is one of several (`paired/test-00000-of-00001`).
        paired: whether every function has its other side in the file; by the file's name (`…_paired.jsonl`) and its
            folder's (`paired/…`) where None. In an unpaired file functions with an unmistakable other side are joined,
            and the others stay.

    Raises:
        BadInput: a row that breaks the schema (names line and key), or two rows with the same `idx`.
    """
    rows = [(where, checked(_Row, row, where)) for where, row in rows_of(path)]
    split = split_named_in(path)
    functions = unique(_function(row, where, split) for where, row in rows)
    if paired is None:
        called = path.stem.lower().replace("unpaired", "")
        paired = "paired" in called or path.parent.name.lower() == "paired"
    names = _told_apart([row for _, row in rows])
    if paired:
        return joined(SOURCE, [replace(one, pair_id=name) for one, name in zip(functions, names, strict=True)])
    sides: dict[str, list[bool]] = {}
    for name, function in zip(names, functions, strict=True):
        sides.setdefault(name, []).append(function.vulnerable)
    whole = {name for name, found in sides.items() if sorted(found) == [False, True]}
    found = [replace(one, pair_id=name) if name in whole else one for one, name in zip(functions, names, strict=True)]
    return joined(SOURCE, found)


def function_name(code: str) -> str:
    """The name that a C or C++ function's header gives it; the header itself where none is found."""
    header = _COMMENT.sub(" ", code).partition("{")[0]
    names = [name for name in _CALLED.findall(header) if name not in _NO_NAMES]
    return names[0] if names else " ".join(header.split())


def _identity(row: _Row) -> str:
    return f"{row.project}/{row.commit_id[:12]}/{function_name(row.func)}"


def _told_apart(rows: Sequence[_Row]) -> list[str]:
    """Identities; functions of one name in several files of a commit are told apart by the file, where all name one."""
    names = [_identity(row) for row in rows]
    files: dict[str, set[str | None]] = {}
    for name, row in zip(names, rows, strict=True):
        files.setdefault(name, set()).add(None if row.file_name in ("", "None") else row.file_name)
    apart = {name for name, found in files.items() if len(found) > 1 and None not in found}
    return [f"{name}@{row.file_name}" if name in apart else name for name, row in zip(names, rows, strict=True)]


def _function(row: _Row, where: str, split: Split | None) -> LabelledFunction:
    path = row.file_name if row.file_name not in (None, "None") else ""
    return LabelledFunction(
        function_id=str(row.idx),
        code=with_line_feeds(row.func),
        vulnerable=row.target == 1,
        cwes=tuple(dict.fromkeys(found for text in row.cwe if (found := cwe_id(text)) is not None)),
        language=language_of(path or "function.c", row.func),
        path=path or "",
        project=row.project,
        commit=row.commit_id,
        split=split,
        where=where,
    )
