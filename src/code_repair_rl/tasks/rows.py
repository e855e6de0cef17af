"""Rows of published data sets: JSON Lines, Parquet, a folder of either, or the hub where one is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.tasks.vulnerabilities import checked, rows_of

__all__ = ["HUB_PREFIX", "checked", "data_set_rows", "is_data_set", "rows_of"]

HUB_PREFIX = "hub:"
"""What marks a source as a name on the hub; nothing is asked of the network without it."""

_SUFFIXES = (".jsonl", ".json", ".parquet")


def is_data_set(source: str) -> bool:
    """Whether a source names rows: a hub name, a file of rows, or a folder that has such files and nothing else of
    use."""
    path = Path(source).expanduser()
    return source.startswith(HUB_PREFIX) or (path.suffix in _SUFFIXES and path.is_file()) or bool(_files_in(path))


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
    files = _files_in(path) if path.is_dir() else [path]
    if not files:
        raise BadInput("there are no .jsonl or .parquet files in this folder", where=source)
    for file in files:
        yield from rows_of(file)


def _files_in(folder: Path) -> list[Path]:
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
