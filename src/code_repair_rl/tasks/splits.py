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
    place = int.from_bytes(hashlib.sha256(problem.encode()).digest()[:8], "big") % 100
    if place < train:
        return Split.TRAIN
    return Split.VALIDATION if place < train + validation else Split.TEST
