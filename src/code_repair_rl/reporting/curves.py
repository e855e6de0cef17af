"""A run's course in figures: per step from its rollouts, and whatever its metrics say."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from code_repair_rl.evaluation import Estimate, rate
from code_repair_rl.evaluation.estimates import clustered_mean, t_quantile
from code_repair_rl.reporting.packing import rounded
from code_repair_rl.runs import MetricsRow, RolloutRow


def step_figures(step: int, rows: Sequence[RolloutRow]) -> dict[str, Any]:
    """What one step's rollouts show. Rows without a verdict leave all but their own count."""
    graded = [row for row in rows if row.score is not None]
    rewarded = [row for row in graded if row.reward is not None]
    terms: dict[str, list[float]] = defaultdict(list)
    term_problems: dict[str, list[str]] = defaultdict(list)
    for row in graded:
        for name, value in row.reward_terms.items():
            terms[name].append(value)
            term_problems[name].append(row.problem)
    groups: dict[int, set[float]] = defaultdict(set)
    for row in rewarded:
        groups[row.group].add(round(row.reward or 0.0, 9))
    passes = rate([float(row.passed) for row in graded], [row.problem for row in graded])
    return {
        "step": step,
        "pass": interval(passes),
        "reward": mean_interval([row.reward or 0.0 for row in rewarded], [row.problem for row in rewarded]),
        "terms": {name: mean_interval(values, term_problems[name]) for name, values in sorted(terms.items())},
        "outcomes": dict(Counter(row.outcome for row in rows)),
        "tokens": mean_interval([float(row.sampled_tokens) for row in graded], [row.problem for row in graded]),
        "truncated": _mean([float(row.finish_reason == "length") for row in graded]),
        "noVerdict": _mean([float(row.score is None) for row in rows]),
        "flatGroups": _mean([float(len(rewards) == 1) for rewards in groups.values()]),
        "surprise": _surprise(graded),
        "turns": _mean([_answers(row) for row in graded if row.turns or row.ending is not None]),
        "gradingSeconds": _mean([row.wall_seconds for row in graded]),
    }


def _answers(row: RolloutRow) -> float:
    """Of an attempt; one that needed a single answer has no turns on record."""
    return float(sum(turn.role == "assistant" for turn in row.turns)) if row.turns else 1.0


def metric_series(metrics: Sequence[MetricsRow]) -> dict[str, dict[str, list[Any]]]:
    """Metric name to its steps and values."""
    series: dict[str, dict[str, list[Any]]] = {}
    for row in metrics:
        for name, value in row.values.items():
            found = series.setdefault(name, {"x": [], "y": []})
            found["x"].append(row.step)
            found["y"].append(rounded(value, 6))
    return dict(sorted(series.items()))


def interval(estimate: Estimate) -> list[float | None]:
    """`[value, low, high]`."""
    return [rounded(estimate.value), rounded(estimate.low), rounded(estimate.high)]


def mean_interval(values: Sequence[float], clusters: Sequence[str]) -> list[float | None]:
    """`[mean, low, high]`, 95 % by cluster-robust t; without bounds where there are fewer than two clusters."""
    if not values:
        return [None, None, None]
    found = clustered_mean(values, clusters)
    half = t_quantile(found.df) * found.standard_error if found.df > 0 else math.nan
    return [rounded(number, 5) for number in (found.mean, found.mean - half, found.mean + half)]


def reward_against_truth(rows: Iterable[tuple[int, int, float, bool]]) -> dict[str, Any] | None:
    """How well the reward tells the answers that pass from those that do not.

    Args:
        rows: of each answer that has both its step, its group, its reward, and whether it passed.

    Returns:
        `points`, one `[mean reward, pass rate, how many groups]` for each pair of values; `ordered`, the share of
        pairs of a passing and a failing answer in which the passing one has the higher reward (ties count half);
        `highestFailing` and `lowestPassing` rewards. None without answers of both kinds.
    """
    from scipy import stats

    groups: dict[tuple[int, int], list[tuple[float, bool]]] = defaultdict(list)
    for step, group, reward, passed in rows:
        groups[step, group].append((reward, passed))
    flat = [pair for group in groups.values() for pair in group]
    good = [reward for reward, passed in flat if passed]
    bad = [reward for reward, passed in flat if not passed]
    if not good or not bad:
        return None
    ranks = stats.rankdata([*good, *bad])
    above = float(ranks[: len(good)].sum()) - len(good) * (len(good) + 1) / 2
    points = Counter(
        (round(sum(r for r, _ in group) / len(group), 2), round(sum(p for _, p in group) / len(group), 3))
        for group in groups.values()
    )
    return {
        "points": [[reward, rate, count] for (reward, rate), count in sorted(points.items())],
        "ordered": rounded(above / (len(good) * len(bad))),
        "highestFailing": rounded(max(bad)),
        "lowestPassing": rounded(min(good)),
        "answers": len(flat),
    }


def _surprise(rows: Sequence[RolloutRow]) -> list[float | None]:
    """Mean of -log p over the sampled tokens of an answer, then over answers: an estimate of the policy's entropy."""
    known = [(row, row.sampled_tokens) for row in rows]
    values = [(-sum(row.logprobs) / tokens, row.problem) for row, tokens in known if tokens]
    finite = [(value, problem) for value, problem in values if math.isfinite(value)]
    return mean_interval([value for value, _ in finite], [problem for _, problem in finite])


def _mean(values: Sequence[float]) -> float | None:
    return rounded(sum(values) / len(values), 5) if values else None
