"""Rows of published data sets: JSON Lines, Parquet, a folder of either, or the hub where one is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from code_repair_rl.errors import BadInput, MachineryFailed, first_complaint

HUB_PREFIX = "hub:"
"""What marks a source as a name on the hub; nothing is asked of the network without it."""

_SUFFIXES = (".jsonl", ".json", ".parquet")
_Row = TypeVar("_Row", bound=BaseModel)


def is_data_set(source: str) -> bool:
    """Whether a source names rows: a hub name, a file of rows, or a folder that has such files and nothing else of
    use."""
    path = Path(source).expanduser()
    return source.startswith(HUB_PREFIX) or (path.suffix in _SUFFIXES and path.is_file()) or bool(files_in(path))


def data_set_rows(source: str, *, split: str = "train", data_dir: str | None = None) -> Iterator[tuple[str, Any]]:
    """Place (`FILE:ROW`, 1-based) and content of every row.

    Args:
        source: a `.jsonl` or `.parquet` file, a folder of them, or `hub:OWNER/NAME`.
        split: of the hub's data set; local files hold one split each.
        data_dir: of the hub's data set.

    Raises:
        BadInput: nothing is there, or a row is no object; the error names file and row.
        MachineryFailed: the hub cannot be reached.
    """
    if source.startswith(HUB_PREFIX):
        yield from _hub_rows(source.removeprefix(HUB_PREFIX), split, data_dir)
        return
    path = Path(source).expanduser()
    files = files_in(path) if path.is_dir() else [path]
    if not files:
        raise BadInput("there are no .jsonl or .parquet files in this folder", where=source)
    for file in files:
        yield from rows_of(file)


def rows_of(path: Path) -> Iterator[tuple[str, Any]]:
    """Place (`FILE:LINE`) and content of every row of a JSON Lines or Parquet file.

    Raises:
        BadInput: the file cannot be read, or a row is no JSON object.
    """
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=str(path)) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadInput(f"not JSON ({error})", where=where) from error
        if not isinstance(row, dict):
            raise BadInput("a row is a JSON object", where=where)
        yield where, row


def checked(schema: type[_Row], row: Any, where: str) -> _Row:
    """A row under its schema.

    Raises:
        BadInput: naming file, line and key.
    """
    try:
        return schema.model_validate(row)
    except ValidationError as error:
        raise BadInput(first_complaint(error), where=where) from error


def files_in(folder: Path) -> list[Path]:
    """The files of rows in a folder and in those within it; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.rglob("*") if path.suffix in (".jsonl", ".parquet") and path.is_file())


def _hub_rows(name: str, split: str, data_dir: str | None) -> Iterator[tuple[str, Any]]:
    import datasets

    try:
        found = datasets.load_dataset(name, data_dir=data_dir, split=split)
    except Exception as error:
        # The library raises its own errors, huggingface_hub's, and those of three HTTP clients.
        first_line = next(iter(str(error).strip().splitlines()), repr(error))
        raise MachineryFailed(
            f"the data set could not be had from the hub: {first_line}",
            where=f"{HUB_PREFIX}{name} (split {split})",
            mend="check the name and the network, or fetch its Parquet or JSON Lines files elsewhere and name those",
        ) from error
    for number, row in enumerate(found, start=1):
        yield f"{HUB_PREFIX}{name}/{split}:{number}", row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"cannot be read ({error})", where=str(path)) from error
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{path}:{number}", row
