"""How often 95 % intervals hold the truth, by method, with few problems of uneven size: why we use the one we use.

Simulated evaluations: 30 problems of 1 to about 25 tasks, difficulty Beta by problem and by task, four samples per
task, a gain that differs by problem. Compared: the cluster-t interval as it is mostly used (CR1, G-1 degrees of
freedom), the BCa bootstrap over problems, and ours (CR2, Bell-McCaffrey degrees of freedom, logit scale for rates).

    python benchmarks/coverage.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from code_repair_rl.evaluation import difference, rate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.evaluation.simulation import coverage, draw, planned_power

Array = NDArray[np.float64]
Interval = tuple[float, float]
BOOTSTRAPS = 1000


def ours_for_rates(values: Array, problem: Array, rng: np.random.Generator) -> Interval:
    found = rate(list(values), [str(p) for p in problem])
    return found.low, found.high


def ours_for_differences(values: Array, problem: Array, rng: np.random.Generator) -> Interval:
    found = difference(list(values), [str(p) for p in problem])
    return found.low, found.high


def plain_cluster_t(values: Array, problem: Array, rng: np.random.Generator) -> Interval:
    sums, sizes = np.bincount(problem, weights=values), np.bincount(problem)
    groups, mean = len(sizes), values.mean()
    error = np.sqrt(groups / (groups - 1) * ((sums - mean * sizes) ** 2).sum()) / len(values)
    half = stats.t.ppf(0.975, groups - 1) * error
    return mean - half, mean + half


def bca_bootstrap(values: Array, problem: Array, rng: np.random.Generator) -> Interval:
    sums, sizes = np.bincount(problem, weights=values), np.bincount(problem)
    groups, mean = len(sizes), values.mean()
    drawn = rng.integers(0, groups, (BOOTSTRAPS, groups))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    below = (means < mean).mean() + (means == mean).mean() / 2
    bias = stats.norm.ppf(np.clip(below, 1 / BOOTSTRAPS, 1 - 1 / BOOTSTRAPS))
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    lean = without.mean() - without
    skew = (lean**3).sum() / (6 * (lean**2).sum() ** 1.5 + 1e-300)
    z = bias + stats.norm.ppf([0.025, 0.975])
    low, high = np.quantile(means, stats.norm.cdf(bias + z / (1 - skew * z)))
    return low, high


def covered(
    methods: dict[str, Callable[[Array, Array, np.random.Generator], Interval]],
    *,
    mean: float,
    paired: bool,
    size_matters: bool,
    repeats: int,
) -> dict[str, float]:
    rng = np.random.default_rng(0)
    many = draw(rng, 200_000, mean, 0.1, size_matters=size_matters)
    truth = float((many.after - many.before).mean() if paired else many.before.mean())
    held = dict.fromkeys(methods, 0)
    for _ in range(repeats):
        one = draw(rng, 30, mean, 0.1, size_matters=size_matters)
        values = one.after - one.before if paired else one.before
        for name, method in methods.items():
            low, high = method(values, one.problem, rng)
            held[name] += low <= truth <= high
    return {name: count / repeats for name, count in held.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="300 repeats in place of 2,000")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    repeats = 300 if options.quick else 2000
    details: dict[str, dict[str, float]] = {}
    for paired in (False, True):
        methods = {
            "ours": ours_for_differences if paired else ours_for_rates,
            "cluster-t (CR1)": plain_cluster_t,
            "BCa bootstrap": bca_bootstrap,
        }
        for mean in (0.4,) if paired else (0.05, 0.1, 0.4, 0.6):
            for size_matters in (False, True):
                case = f"{'difference at' if paired else 'rate'} {mean}{', larger problems harder' * size_matters}"
                details[case] = covered(methods, mean=mean, paired=paired, size_matters=size_matters, repeats=repeats)
    worst = {name: max(abs(found[name] - 0.95) for found in details.values()) for name in methods}
    # How many times farther from 95 % the bootstrap strays at its worst.
    ratios = {"BCa bootstrap's worst error / ours": worst["BCa bootstrap"] / max(worst["ours"], 1e-3)}
    power = {}
    for gain in (0.05, 0.11, 0.15):  # rates end at 0 and 1, which takes a part of it: 0.11 leaves 10 points
        one = coverage(repeats=repeats, problems=30, mean=0.4, seed=6, gain=gain)
        power[f"{100 * one.truth:.1f} points"] = {"found": one.found, "planned": planned_power(one)}
    if options.json:
        figures = {"repeats": repeats, "coverage": details, "worst": worst, "power": power}
        print(json.dumps({"ratios": ratios, "details": figures}))
        return
    print(f"{'coverage of 95 % intervals, ' + str(repeats) + ' repeats':46}" + "".join(f"{n:>18}" for n in methods))
    for case, found in details.items():
        print(f"{case:46}" + "".join(f"{100 * found[name]:17.1f}%" for name in methods))
    print(f"{'farthest from 95 %':46}" + "".join(f"{100 * worst[name]:16.1f}pt" for name in methods))
    for gain_shown, one_power in power.items():
        print(
            f"a true gain of {gain_shown}: found in {100 * one_power['found']:.1f} % of the repeats,"
            f" planned {100 * one_power['planned']:.1f} %"
        )


if __name__ == "__main__":
    main()
