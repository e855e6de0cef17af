"""Group-relative advantages: how much better an answer is than the policy's own other answers to the same task.

The policy is its own baseline: with rewards r_1 … r_G of one task's answers, the advantage of answer i is
A_i = r_i - mean(r) (Shao et al. 2024, arXiv 2402.03300). Dividing by the group's standard deviation, as the original
GRPO does, weighs tasks that are nearly always or never solved most; Dr. GRPO (Liu et al. 2025, arXiv 2503.20783)
leaves it out, and so do we by default.

An answer without a verdict has no reward. It takes no part in its group's mean or deviation, and has no advantage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Scale = Literal["none", "group", "batch"]

_EPSILON = 1e-4
"""Added to a standard deviation before dividing by it, as TRL does."""


def advantages(groups: Sequence[Sequence[float | None]], scale: Scale = "none") -> list[list[float | None]]:
    """The advantage of every answer, None where its reward is None.

    Args:
        groups: rewards per task, per answer.
        scale: divide by nothing, by the group's or by the whole batch's standard deviation.
    """
    scored = [[reward for reward in group if reward is not None] for group in groups]
    batch_deviation = _deviation([reward for group in scored for reward in group])
    return [
        _centred(group, known, 1.0 if scale == "none" else _divisor(known, batch_deviation, scale))
        for group, known in zip(groups, scored, strict=True)
    ]


def has_signal(rewards: Sequence[float | None]) -> bool:
    """Whether a group teaches anything: at least two of its known rewards differ."""
    known = {reward for reward in rewards if reward is not None}
    return len(known) > 1


def _centred(group: Sequence[float | None], known: Sequence[float], divisor: float) -> list[float | None]:
    if len(set(known)) <= 1:  # exactly zero, not zero up to rounding
        return [None if reward is None else 0.0 for reward in group]
    mean = math.fsum(known) / len(known)
    return [None if reward is None else (reward - mean) / divisor for reward in group]


def _divisor(known: Sequence[float], batch_deviation: float, scale: Scale) -> float:
    return (batch_deviation if scale == "batch" else _deviation(known)) + _EPSILON


def _deviation(values: Sequence[float]) -> float:
    """Sample standard deviation (n - 1); 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
