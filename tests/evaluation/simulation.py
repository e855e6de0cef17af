"""Simulated evaluations with realistic clustering: uneven problems of different difficulty, tasks that differ."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from code_repair_rl.evaluation import difference, plan, rate

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """Per task: pass rates under two models, and the problem."""

    before: Array
    after: Array
    problem: NDArray[np.int64]
    true_before: Array
    true_after: Array


@dataclass(frozen=True)
class Simulated:
    rate: float
    paired: float
    found: float
    """How often the paired interval lay off zero."""
    standard_error: float
    df: float
    """Means over the repeats."""
    truth: float
    """The true paired difference."""
    answer_variance: float
    """Mean over tasks of p(1-p), of both models."""
    gain_spread: float
    """Standard deviation of the true gain that all tasks of a problem share."""
    problems: list[list[str]] = field(repr=False, default_factory=list)
    """Of each task, in the first repeats."""


def draw(
    rng: np.random.Generator, problems: int, mean: float, gain: float, samples: int = 4, size_matters: bool = False
) -> Drawn:
    """Sizes 1 to about 25 (mean 6), problem difficulty Beta with concentration 3, tasks spread around it, a gain that
    differs by problem; where `size_matters`, larger problems are harder."""
    sizes = rng.negative_binomial(2, 2 / 7, problems) + 1
    centre = rng.beta(3 * mean, 3 * (1 - mean), problems)
    if size_matters:
        centre = centre ** (0.6 + 0.05 * sizes)
    gains = gain * rng.normal(1.0, 1.5, problems)
    problem = np.repeat(np.arange(problems), sizes)
    at = centre[problem]
    before = rng.beta(np.maximum(3 * at, 1e-3), np.maximum(3 * (1 - at), 1e-3))
    after = np.clip(before + gains[problem], 0, 1)
    drawn = rng.binomial(samples, before) / samples, rng.binomial(samples, after) / samples
    return Drawn(*drawn, problem, before, after)


def coverage(
    *, repeats: int, problems: int, mean: float, seed: int, gain: float = 0.1, size_matters: bool = False
) -> Simulated:
    """How often 95 % intervals hold the truth, which is the mean over very many problems."""
    rng = np.random.default_rng(seed)
    many = draw(rng, 200_000, mean, gain, size_matters=size_matters)
    truth, true_difference = float(many.before.mean()), float((many.after - many.before).mean())
    held, held_paired, off_zero, errors, dfs = 0, 0, 0, 0.0, 0.0
    problems_seen = []
    for _ in range(repeats):
        drawn = draw(rng, problems, mean, gain, size_matters=size_matters)
        clusters = [str(p) for p in drawn.problem]
        one = rate(list(drawn.before), clusters)
        two = difference(list(drawn.after - drawn.before), clusters)
        held += one.low <= truth <= one.high
        held_paired += two.low <= true_difference <= two.high
        off_zero += two.low > 0 or two.high < 0
        errors += two.standard_error
        dfs += two.df
        problems_seen.append(clusters)
    spread = [p * (1 - p) for p in (many.true_before, many.true_after)]
    gains = many.true_after - many.true_before - true_difference
    sums, squares, sizes = (np.bincount(many.problem, x) for x in (gains, gains**2, np.ones_like(gains)))
    # The mean product of two different tasks of one problem.
    shared = (sums**2 - squares).sum() / (sizes**2 - sizes).sum()
    return Simulated(
        held / repeats,
        held_paired / repeats,
        off_zero / repeats,
        errors / repeats,
        dfs / repeats,
        true_difference,
        float(np.concatenate(spread).mean()),
        float(np.sqrt(shared)),
        problems_seen[:100],
    )


def planned_power(found: Simulated, samples: int = 4) -> float:
    """What the planning line says from the assumptions alone, averaged over sets as they were drawn."""
    plans = [plan(problems, samples, found.answer_variance, found.gain_spread) for problems in found.problems]
    return float(np.mean([one.power(found.truth) for one in plans]))
