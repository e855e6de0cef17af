"""A run's course in figures: per step from its rollouts, and whatever its metrics say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from code_repair_rl.evaluation import Estimate, rate
from code_repair_rl.reporting.packing import rounded
from code_repair_rl.runs import MetricsRow, RolloutRow


def step_figures(step: int, rows: Sequence[RolloutRow]) -> dict[str, Any]:
    """What one step's rollouts show. Rows without a verdict leave all but their own count."""
    graded = [row for row in rows if row.score is not None]
    rewarded = [row for row in graded if row.reward is not None]
    terms: dict[str, list[float]] = defaultdict(list)
    for row in graded:
        for name, value in row.reward_terms.items():
            terms[name].append(value)
    groups: dict[int, set[float]] = defaultdict(set)
    for row in rewarded:
        groups[row.group].add(round(row.reward or 0.0, 9))
    passes = rate([float(row.passed) for row in graded], [row.problem for row in graded])
    return {
        "step": step,
        "pass": interval(passes),
        "reward": _mean([row.reward or 0.0 for row in rewarded]),
        "terms": {name: _mean(values) for name, values in sorted(terms.items())},
        "outcomes": dict(Counter(row.outcome for row in rows)),
        "tokens": _mean([float(len(row.token_ids)) for row in graded]),
        "truncated": _mean([float(row.finish_reason == "length") for row in graded]),
        "noVerdict": _mean([float(row.score is None) for row in rows]),
        "flatGroups": _mean([float(len(rewards) == 1) for rewards in groups.values()]),
        "logprob": _mean([value for row in graded for value in row.logprobs]),
        "gradingSeconds": _mean([row.wall_seconds for row in graded]),
    }


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


def _mean(values: Sequence[float]) -> float | None:
    return rounded(sum(values) / len(values), 5) if values else None
