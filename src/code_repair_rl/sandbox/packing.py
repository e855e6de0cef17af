"""A job's files as the launcher takes them: kind, path, mode and size of each, and their contents in the same order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from code_repair_rl.errors import BadInput
from code_repair_rl.sandbox.job import Job


def packed(job: Job) -> tuple[list[tuple[str, str, int, int]], list[bytes]]:
    """What the launcher brings in: (kind, path, mode, size) and the contents in the same order."""
    entries: list[tuple[str, str, int, int]] = []
    contents: list[bytes] = []
    for place, folder in job.trees.items():
        for kind, path, mode, content in _tree(place, Path(folder)):
            entries.append((kind, path, mode, len(content)))
            contents.append(content)
    for path, text in job.files.items():
        content = text.encode() if isinstance(text, str) else text
        entries.append(("file", _inside(path), job.modes.get(path, 0o644) & 0o777, len(content)))
        contents.append(content)
    for path in job.collect:
        _inside(path)
    return entries, contents


def _tree(place: str, folder: Path) -> Iterator[tuple[str, str, int, bytes]]:
    if not folder.is_dir():
        raise BadInput("the folder to copy in is not there", where=str(folder))
    base = PurePosixPath(_inside(place))
    for parent, folders, names in os.walk(folder):
        here = base / Path(parent).relative_to(folder).as_posix()
        if str(here) != ".":
            yield "folder", str(here), 0o755, b""
        for name in [*names, *(name for name in folders if (Path(parent) / name).is_symlink())]:
            path = Path(parent) / name
            if path.is_symlink():
                yield "link", str(here / name), 0o777, os.fsencode(path.readlink())
            elif path.is_file():
                yield "file", str(here / name), (path.stat().st_mode & 0o777) | 0o644, path.read_bytes()


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise BadInput("a job's paths are relative and stay inside its folder", where=path)
    return path
