"""Reader for SVEN (He and Vechev, CCS 2023, arXiv:2302.05319; MIT): pairs of functions before and after a fix.

Two forms are read. The official one has a pair a row: `func_name`, `func_src_before`, `func_src_after`, `commit_link`,
`file_name`, `vul_type` (`cwe-089`). The flat one has a side a row: `func`, `cwe`, `is_vulnerable`, `pair_id`,
`file_name`, `commit`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from code_repair_rl.errors import BadInput
from code_repair_rl.tasks.rows import checked, rows_of
from code_repair_rl.tasks.vulnerabilities import (
    LabelledFunction,
    Reading,
    cwe_id,
    joined,
    language_of,
    with_line_feeds,
)

SOURCE = "sven"
LICENCE = "MIT"


def _known_cwe(value: Any) -> Any:
    found = cwe_id(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"not a CWE ({value!r})")
    return found


class _Side(BaseModel):
    model_config = ConfigDict(extra="ignore")

    func: str = Field(min_length=1)
    cwe: str
    is_vulnerable: bool
    pair_id: int | str
    file_name: str
    commit: str = Field(min_length=1)

    _cwe = field_validator("cwe", mode="before")(_known_cwe)


class _Both(BaseModel):
    model_config = ConfigDict(extra="ignore")  # func_name, and the line and character changes, which we work out

    func_src_before: str = Field(min_length=1)
    func_src_after: str = Field(min_length=1)
    commit_link: str = Field(min_length=1)
    file_name: str
    vul_type: str

    _cwe = field_validator("vul_type", mode="before")(_known_cwe)


def read_sven(path: Path, name: str = "") -> Reading:
    """The pairs of a SVEN file, in either form.

    Args:
        path: JSON Lines or Parquet.
        name: of the file within its folder, where it is one of several; the file's own name where empty.

    Raises:
        BadInput: a row that breaks both schemas (names line and key).
    """
    functions: list[LabelledFunction] = []
    for where, row in rows_of(path):
        if "func_src_before" in row or "func_src_after" in row:
            functions += _two_sides(checked(_Both, row, where), where, name or path.stem)
        elif "pair_id" in row or "is_vulnerable" in row:
            functions.append(_one_side(checked(_Side, row, where), where))
        else:
            raise BadInput(
                "neither `func_src_before` nor `pair_id` is there",
                where=where,
                mend="give SVEN's own files, or rows of func, cwe, is_vulnerable, pair_id, file_name, commit",
            )
    return joined(SOURCE, functions)


def project_of(commit: str) -> str:
    """`github.com/OWNER/NAME` of a commit's address."""
    address = commit.removeprefix("https://").removeprefix("http://")
    return address.partition("/commit")[0] or commit


def _one_side(row: _Side, where: str) -> LabelledFunction:
    side = "vulnerable" if row.is_vulnerable else "fixed"
    return _function(row.func, row.is_vulnerable, row.cwe, row.file_name, row.commit, f"{row.pair_id}", side, where)


def _two_sides(row: _Both, where: str, name: str) -> list[LabelledFunction]:
    pair_id = f"{name}-{where.rpartition(':')[2]}"
    return [
        _function(code, vulnerable, row.vul_type, row.file_name, row.commit_link, pair_id, side, where)
        for code, vulnerable, side in (
            (row.func_src_before, True, "vulnerable"),
            (row.func_src_after, False, "fixed"),
        )
    ]


def _function(
    code: str, vulnerable: bool, cwe: str, path: str, commit: str, pair_id: str, side: str, where: str
) -> LabelledFunction:
    return LabelledFunction(
        function_id=f"{pair_id}/{side}",
        code=with_line_feeds(code),
        vulnerable=vulnerable,
        cwes=(cwe,),
        language=language_of(path, code),
        path=path,
        project=project_of(commit),
        commit=commit,
        pair_id=pair_id,
        licence=LICENCE,
        where=where,
    )
