"""Checkpoints that are whole or named as damaged: a folder with a manifest of sizes and SHA-256 sums."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from code_repair_rl.errors import BadInput
from code_repair_rl.home import built_atomically, write_atomically

MANIFEST = "crrl-manifest.json"
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint folder and the training step after which it was taken."""

    step: int
    path: Path

    def damage(self) -> str | None:
        """What is wrong with it (the first thing found), or None where every file is as it was written."""
        try:
            files = json.loads((self.path / MANIFEST).read_text())["files"]
            expected = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
        except FileNotFoundError:
            return "has no manifest"
        except (ValueError, KeyError, TypeError, AttributeError):
            return "its manifest is damaged"
        for name, (size, _) in expected.items():
            file = self.path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != size:
                return f"{name} has {file.stat().st_size} bytes instead of {size}"
        for name, (_, digest) in expected.items():
            if _sha256(self.path / name) != digest:
                return f"{name} is not what was written (SHA-256 differs)"
        return None


def folder_name(step: int) -> str:
    """`step-000012`."""
    return f"step-{step:06d}"


@contextmanager
def new_checkpoint(parent: Path, step: int) -> Iterator[Path]:
    """A scratch folder to write weights and state into; becomes `parent/step-NNNNNN` when the block ends well."""
    with built_atomically(parent / folder_name(step)) as scratch:
        yield scratch
        _write_manifest(scratch)


def adopt_checkpoint(parent: Path, step: int, folder: Path) -> Checkpoint:
    """Make a folder that something else wrote (a trainer) a checkpoint: add the manifest, then move it into place.

    `folder` must be on the same file system as `parent`.

    Raises:
        BadInput: `folder` is not a folder.
    """
    if not folder.is_dir():
        raise BadInput("is not a folder", where=str(folder))
    with new_checkpoint(parent, step) as scratch:
        for entry in folder.iterdir():
            entry.replace(scratch / entry.name)
    shutil.rmtree(folder, ignore_errors=True)
    return Checkpoint(step, parent / folder_name(step))


def list_checkpoints(parent: Path) -> list[Checkpoint]:
    """All checkpoints, oldest first, good or not."""
    if not parent.is_dir():
        return []
    matches = ((entry, _NAME.fullmatch(entry.name)) for entry in parent.iterdir() if entry.is_dir())
    return sorted((Checkpoint(int(m[1]), entry) for entry, m in matches if m), key=lambda c: c.step)


def _write_manifest(folder: Path) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    entries = {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in files}
    write_atomically(folder / MANIFEST, json.dumps({"schema_version": 1, "files": entries}, indent=1) + "\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
