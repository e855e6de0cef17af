"""Paths in a tree: which are legal, and how they are written on a line of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from code_repair_rl.edits.errors import EditError, EditErrorKind

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
# A bare path on a line of its own must not be mistaken for prose: no white space, quotes or markup, a dot or a slash
# somewhere, and no punctuation at its end. Everything else is written in quotes.
_BARE = re.compile(r"[^\s\"'`<>*|:]*+")
_LONGEST_BARE = 1024


def check_path(path: str, *, line: int | None = None) -> str:
    """Give `path` back if it names a file inside a tree.

    Raises:
        EditError: `PATH_OUTSIDE`, if it is empty, absolute, has a drive or a NUL, or a component `.`, `..` or nothing;
            or if no file can have the name: half of a surrogate pair, or more bytes than file systems take.
    """
    if path and not _DRIVE.match(path) and "\0" not in path and not _BAD_PARTS & set(path.split("/")) and _fits(path):
        return path
    shown = path[:200].encode(errors="backslashreplace").decode()
    raise EditError(
        EditErrorKind.PATH_OUTSIDE,
        f"{shown!r} does not name a file inside the tree",
        line=line,
        path=shown or None,
        hint="write the path relative to the root of the tree, with slashes, without '.' or '..', and not too long",
    )


_BAD_PARTS = {"", ".", ".."}
_LONGEST_NAME_BYTES = 255
_LONGEST_PATH_BYTES = 4095
"""Both as on Linux, and about so elsewhere."""


def _fits(path: str) -> bool:
    try:
        data = path.encode()
    except UnicodeEncodeError:
        return False
    if len(data) <= _LONGEST_NAME_BYTES:
        return True
    return len(data) <= _LONGEST_PATH_BYTES and max(map(len, data.split(b"/"))) <= _LONGEST_NAME_BYTES


def write_path(path: str) -> str:
    """`path` as one line: bare where that reads back as itself, else as a JSON string."""
    return path if _reads_as_bare(path) else json.dumps(path, ensure_ascii=True)


def read_path(line: str) -> str | None:
    """The path that a line of its own names, or None if the line is no such line.

    Bare (`src/a.py`), as a JSON string, in back-ticks or bold, after hashes of a heading, with a colon behind.
    A leading `./` is dropped.
    """
    text = line.strip(" \t\r")
    if not text or len(text) > 4 * _LONGEST_BARE:
        return None
    if _reads_as_bare(text):
        return text
    if text.startswith('"'):
        return _json_path(text)
    if text.startswith("#"):
        text = text.lstrip("#").lstrip(" ")
    for _ in range(2):  # **`path`**: with the colon inside or outside
        text = text.removesuffix(":")
        for mark in ("**", "`"):
            if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
                text = text[len(mark) : -len(mark)]
                break
    text = text.removeprefix("./")
    return text if _reads_as_bare(text) else None


def is_protected(path: str, protected: Iterable[str]) -> bool:
    """Whether `path`, or a folder above it, is one of `protected` (paths or shell patterns; `*` crosses slashes)."""
    parts = path.split("/")
    parents = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return any(fnmatchcase(parent, pattern.rstrip("/")) for pattern in protected for parent in parents)


def _json_path(text: str) -> str | None:
    try:
        value = json.loads(text.removesuffix(":"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, str) else None


def _reads_as_bare(text: str) -> bool:
    return (
        0 < len(text) <= _LONGEST_BARE
        and ("." in text or "/" in text)
        and text[-1] not in ".,;!?/"
        and not text.startswith(("#", "./", "-", "=", "+", "@"))
        and _BARE.fullmatch(text) is not None
        and text.isprintable()
    )
