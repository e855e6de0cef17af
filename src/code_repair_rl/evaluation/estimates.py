"""Rates with honest intervals: unbiased pass@k, Wilson, and a clustered interval for few problems of uneven size.

Tasks of one problem (mutants of one function) succeed and fail together, so the problem, not the task, is what counts
as one observation. The interval used throughout is a cluster-robust t interval with the CR2 correction of the variance
and Bell-McCaffrey degrees of freedom (R. M. Bell and D. F. McCaffrey, Survey Methodology 28(2), 2002), for rates on the
logit scale, so that it stays within 0 and 1 and leans the right way near them. It was chosen by simulation against the
plain cluster-t, a Wilson interval with an effective sample size and the BCa bootstrap over problems, which falls to
89-93 % coverage with 30 problems; `benchmarks/coverage.py` repeats the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIDENCE = 0.95
_ROUNDING = 1e-18
"""A variance below this is what rounding leaves of zero (values lie in [-1, 1])."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over tasks with its 95 % interval."""

    value: float
    """NaN where nothing was observed."""
    low: float
    high: float
    tasks: int
    problems: int
    method: str
    """`wilson`, `cluster-t`, `cluster-logit-t`, `no-variation`, or `none` where an interval cannot be given."""
    standard_error: float = math.nan
    df: float = math.nan
    """Degrees of freedom of the t distribution behind the interval."""


@dataclass(frozen=True, slots=True)
class ClusteredMean:
    """A mean over observations in clusters, with its robust variance."""

    mean: float
    standard_error: float
    """CR2: unbiased where observations are independent and alike."""
    df: float
    """Bell-McCaffrey degrees of freedom under the working model that all observations of a cluster are one: uneven
    sizes leave fewer than clusters - 1."""
    clusters: int
    observations: int


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The unbiased estimate of the probability that at least one of `k` samples passes.

    1 - C(n-c, k) / C(n, k) (Chen et al. 2021, arXiv:2107.03374), exactly.

    Raises:
        ValueError: not 0 <= passed <= samples, or not 1 <= k <= samples.
    """
    if not 0 <= passed <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {passed} passes in {samples} samples is not defined")
    return 1.0 - math.comb(samples - passed, k) / math.comb(samples, k)


def hidden(groups: int) -> float:
    """The largest rate that so many groups, none of which shows it, could hide in 5 % of the cases."""
    return float(1 - 0.05 ** (1 / groups))


def wilson(passed: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval for `passed` of `total` independent trials (E. B. Wilson, JASA 22, 1927)."""
    if total == 0:
        return 0.0, 1.0
    from scipy import stats

    z = float(stats.norm.ppf(0.5 + confidence / 2))
    rate = passed / total
    centre = (rate + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    low = 0.0 if passed == 0 else centre - half
    high = 1.0 if passed == total else centre + half
    return max(0.0, low), min(1.0, high)


def clustered_mean(values: Sequence[float], clusters: Sequence[str]) -> ClusteredMean:
    """Mean of `values`, each counting the same, with the CR2 cluster-robust standard error.

    For a mean the CR2 correction divides each cluster's squared sum of residuals by 1 - (its share of observations).

    Raises:
        ValueError: no values, or not one cluster for each.
    """
    if len(values) != len(clusters) or not values:
        raise ValueError("one cluster for each of at least one value")
    sums, sizes = _by_cluster(values, clusters)
    total = float(sizes.sum())
    mean = float(sums.sum() / total)
    if len(sizes) < 2:
        return ClusteredMean(mean, math.nan, math.nan, len(sizes), len(values))
    residuals = sums - mean * sizes
    share = sizes / total
    variance = float((residuals**2 / (1 - share)).sum() / total**2)
    if variance < _ROUNDING:
        variance = 0.0
    return ClusteredMean(
        mean=mean,
        standard_error=math.sqrt(variance),
        df=bell_mccaffrey(share),
        clusters=len(sizes),
        observations=len(values),
    )


def rate(values: Sequence[float], clusters: Sequence[str]) -> Estimate:
    """The mean of values in [0, 1] with a clustered 95 % interval on the logit scale.

    Wilson's interval where every cluster holds one value that is 0 or 1: then the values are plain trials. Where all
    values are 0 (or all 1) the bound is the rate at which this many problems would all have failed (passed) in 5 % of
    the cases.
    """
    n, groups = len(values), len(set(clusters))
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, 0, "none")
    if groups == n and all(value in (0.0, 1.0) for value in values):
        low, high = wilson(int(sum(values)), n)
        value = sum(values) / n
        return Estimate(value, low, high, n, groups, "wilson", math.sqrt(value * (1 - value) / n), n - 1)
    found = clustered_mean(values, clusters)
    if groups < 2:
        return Estimate(found.mean, 0.0, 1.0, n, groups, "none")
    if found.standard_error == 0 or found.mean in (0.0, 1.0):
        slack = hidden(groups)
        low, high = max(0.0, found.mean - slack), min(1.0, found.mean + slack)
        return Estimate(found.mean, low, high, n, groups, "no-variation", 0.0, groups - 1)
    logit = math.log(found.mean / (1 - found.mean))
    half = t_quantile(found.df) * found.standard_error / (found.mean * (1 - found.mean))
    return Estimate(
        found.mean,
        _expit(logit - half),
        _expit(logit + half),
        n,
        groups,
        "cluster-logit-t",
        found.standard_error,
        found.df,
    )


def difference(values: Sequence[float], clusters: Sequence[str]) -> Estimate:
    """The mean of paired differences (in [-1, 1]) with a clustered 95 % t interval.

    Where nothing differs at all the bound is the share of problems that could differ and yet none of this many did, in
    5 % of the cases.
    """
    n, groups = len(values), len(set(clusters))
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, 0, "none")
    found = clustered_mean(values, clusters)
    if groups < 2:
        return Estimate(found.mean, -1.0, 1.0, n, groups, "none")
    if found.standard_error == 0:
        slack = hidden(groups)
        low, high = max(-1.0, found.mean - slack), min(1.0, found.mean + slack)
        return Estimate(found.mean, low, high, n, groups, "no-variation", 0.0, groups - 1)
    half = t_quantile(found.df) * found.standard_error
    low, high = max(-1.0, found.mean - half), min(1.0, found.mean + half)
    return Estimate(found.mean, low, high, n, groups, "cluster-t", found.standard_error, found.df)


def t_quantile(df: float, confidence: float = CONFIDENCE) -> float:
    """The two-sided quantile of Student's t."""
    from scipy import stats

    return float(stats.t.ppf(0.5 + confidence / 2, df))


def _by_cluster(values: Sequence[float], clusters: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    names = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    index = [names[name] for name in clusters]
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64)).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def bell_mccaffrey(share: NDArray[np.float64]) -> float:
    """Satterthwaite degrees of freedom of the CR2 variance of a mean, from each cluster's share of it, `(G,)`."""
    # Covariance of the clusters' residual sums g_j'y, where g_j = 1_j - share_j, then weighted by the CR2 correction.
    # Working model: the sum of a cluster has its size squared for variance.
    spread = share**2
    covariance = np.diag(spread) - np.outer(share, spread) - np.outer(spread, share)
    covariance += np.outer(share, share) * spread.sum()
    weight = 1 / np.sqrt(1 - share)
    weighted = covariance * np.outer(weight, weight)
    return float(np.trace(weighted) ** 2 / (weighted**2).sum())


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
