"""Large file trees, kept once by content: a thousand tasks on one library cost one copy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from code_repair_rl.errors import BadInput
from code_repair_rl.home import home, write_atomically


class StoredTree(Mapping[str, str]):
    """A stored tree with some files laid over it; read from the cache folder when it is first looked into.

    Args:
        digest: what `store_tree` gave.
        overlay: path to text of the files that differ from the stored ones, or come on top.
    """

    def __init__(self, digest: str, overlay: Mapping[str, str]) -> None:
        self.digest = digest
        self.overlay = dict(overlay)

    def __getitem__(self, path: str) -> str:
        if path in self.overlay:
            return self.overlay[path]
        return _loaded(str(_path(self.digest)))[path]

    def __iter__(self) -> Iterator[str]:
        stored = _loaded(str(_path(self.digest)))
        yield from stored
        yield from (path for path in self.overlay if path not in stored)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StoredTree) and other.digest == self.digest:
            return other.overlay == self.overlay
        return isinstance(other, Mapping) and dict(self) == dict(other)

    def __repr__(self) -> str:
        return f"StoredTree({self.digest[:12]}, overlay={list(self.overlay)})"

    __hash__ = None  # type: ignore[assignment]

    def as_json(self) -> dict[str, object]:
        """How a task file names it."""
        return {"tree": self.digest, "overlay": self.overlay}


def store_tree(files: Mapping[str, str]) -> str:
    """Keep a tree in the cache folder; the digest of its content is its name. Storing it again does nothing."""
    body = json.dumps(dict(sorted(files.items())), ensure_ascii=False).encode()
    digest = hashlib.sha256(body).hexdigest()
    path = _path(digest)
    if not path.is_file():
        write_atomically(path, body)
    return digest


def _path(digest: str) -> Path:
    return home() / "trees" / f"{digest}.json"


@lru_cache(maxsize=16)
def _loaded(path: str) -> dict[str, str]:
    file = Path(path)
    try:
        body = file.read_bytes()
    except FileNotFoundError:
        raise BadInput(
            "a task names a stored tree that is not in the cache folder",
            where=path,
            mend="build the set on this machine with `crrl tasks build`",
        ) from None
    if hashlib.sha256(body).hexdigest() != file.stem:
        raise BadInput("a stored tree is damaged", where=path, mend="delete the file and build the set again")
    tree: dict[str, str] = json.loads(body)
    return tree
