"""Reader for users' own labelled functions: one JSON object a line, unknown keys refused."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from code_repair_rl.errors import BadInput
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


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: str = Field(min_length=1)
    label: str
    """`benign`, `vulnerable`, or a CWE (which is vulnerable)."""
    id: str | None = None
    cwe: str | None = None
    """For a fixed function the CWE that was removed; for a vulnerable one instead of a CWE in `label`."""
    pair: str | None = None
    lines: list[int] | None = None
    project: str = ""
    commit: str = ""
    path: str = ""
    split: Split | None = None
    licence: str = "NOASSERTION"

    @model_validator(mode="after")
    def _sound(self) -> _Row:
        if self.label not in ("benign", "vulnerable") and cwe_id(self.label) is None:
            raise ValueError(f"label: {self.label!r} is neither benign nor vulnerable nor a CWE")
        if self.cwe is not None and cwe_id(self.cwe) is None:
            raise ValueError(f"cwe: {self.cwe!r} is not a CWE")
        count = with_line_feeds(self.code).count("\n")
        for number in self.lines or ():
            if not 1 <= number <= count:
                raise ValueError(f"lines: the code has {count} lines, and none is {number}")
        return self


def read_labelled(path: Path, name: str = "") -> Reading:
    """The functions of a user's file; its name is the source's.

    Args:
        path: JSON Lines or Parquet.
        name: of the file within its folder, where it is one of several: begins the ids of rows without one.

    Raises:
        BadInput: a row that breaks the schema, or an id that occurs twice; the error names line and key.
    """
    functions = []
    for where, row in rows_of(path):
        if isinstance(row.get("lines"), list) and str(row.get("code", "")).startswith(("\n", "\r")):
            # Leading empty lines are cut off, which would move the numbers.
            raise BadInput("code: begins with an empty line, and `lines` counts from it", where=where)
        functions.append(_function(checked(_Row, row, where), where, name, split_named_in(path)))
    return joined(path.stem, unique(functions))


def _function(row: _Row, where: str, name: str, split: Split | None) -> LabelledFunction:
    line = where.rpartition(":")[2]
    named = cwe_id(row.cwe) if row.cwe else cwe_id(row.label)
    return LabelledFunction(
        function_id=row.id or (f"{name}:{line}" if name else line),
        code=with_line_feeds(row.code),
        vulnerable=row.label != "benign",
        cwes=(named,) if named else (),
        language=language_of(row.path, row.code),
        path=row.path,
        project=row.project,
        commit=row.commit,
        pair_id=row.pair,
        lines=tuple(sorted(set(row.lines))) if row.lines is not None else None,
        split=row.split or split,
        licence=row.licence,
        where=where,
    )
