"""Which split a problem belongs to."""

from __future__ import annotations

import hashlib

from code_repair_rl.tasks.task import Split


def split_of(problem: str, *, train: int = 65, validation: int = 10) -> Split:
    """The split of a problem: by its name's hash alone, so that it never moves when others come or go.

    Args:
        problem: its name.
        train: per cent of problems for training.
        validation: per cent for validation; the rest is for testing.
    """
    place = _hash(problem) % 100
    if place < train:
        return Split.TRAIN
    return Split.VALIDATION if place < train + validation else Split.TEST


def held_out(name: str, share: float) -> bool:
    """Whether something is held out: by its name's hash alone, `share` (0 to 1) of all names. What a smaller share
    holds out, a larger one does, too."""
    return _hash(f"hold-out/{name}") < share * 2**64


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
