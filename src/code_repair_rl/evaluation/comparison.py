"""Is the difference real: paired comparison of evaluations on the same tasks, clustered by problem."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation.estimates import Estimate, difference, t_quantile
from code_repair_rl.evaluation.result import EvalResult, TaskResult

ASKED_ALIKE = (
    "tasks_sha256",
    "split",
    "hint",
    "temperature",
    "max_new_tokens",
    "seed",
    "grader_version",
)
"""What two results must have in common to be compared task by task: what they were asked, and how."""

POWER = 0.8
"""The power at which the smallest difference is stated: the convention."""


@dataclass(frozen=True, slots=True)
class Change:
    """One task whose pass rate differs between the two."""

    task_id: str
    problem: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """pass@k of the second minus pass@k of the first, on the tasks that both have."""

    k: int
    before: float
    after: float
    estimate: Estimate
    p_value: float
    """Two-sided: cluster-t, or McNemar's exact test (`p_method`). NaN where neither can be had."""
    p_method: str
    smallest_detectable: float
    """The true difference that this comparison would have found (95 % interval off zero) in 80 % of its repeats."""

    @property
    def shown(self) -> bool:
        """Whether the 95 % interval lies off zero."""
        return self.estimate.low > 0 or self.estimate.high < 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second result against the first."""

    before: str
    after: str
    pass_at: Mapping[int, PairedDifference]
    gained: tuple[Change, ...]
    """Tasks whose pass@1 rose, largest first."""
    lost: tuple[Change, ...]
    tasks: int
    problems: int
    left_out: int
    """Tasks without a verdict on one side."""
    seeds: int = 1
    seed_differences: tuple[float, ...] = ()
    """pass@1 difference of each pair, where several were pooled."""
    over_seeds: Estimate | None = None
    """The mean of those with a t interval over seeds: what another training seed would give. Needs two pairs."""

    @property
    def improved(self) -> bool:
        """Whether the second is shown to be better at pass@1 (the interval lies above zero)."""
        return self.pass_at[1].estimate.low > 0


def compare(before: EvalResult, after: EvalResult) -> Comparison:
    """Compare two results task by task.

    Raises:
        BadInput: they were not asked the same tasks in the same way (names what differs).
    """
    return compare_pooled([(before, after)])


@dataclass(frozen=True, slots=True)
class Judged:
    """One of several comparisons that were made together."""

    comparison: Comparison
    p_adjusted: float
    """pass@1's p value, corrected for their number (Holm); NaN where there is none."""

    @property
    def improved(self) -> bool:
        """Whether pass@1 is shown to be better among all of them: alone the interval tells, among several Holm."""
        one = self.comparison.pass_at[1]
        if self.p_adjusted == one.p_value or math.isnan(self.p_adjusted):
            return self.comparison.improved
        return one.estimate.value > 0 and self.p_adjusted < 0.05


def compare_each(before: Sequence[EvalResult], afters: Sequence[Sequence[EvalResult]]) -> list[Judged]:
    """Compare one model with several, correcting for their number.

    Args:
        before: the first model's results, one for each training seed.
        afters: of each other model as many, in the same order of seeds.

    Raises:
        BadInput: not as many on both sides, or results that were not asked the same.
    """
    for after in afters:
        if len(after) != len(before):
            raise BadInput(
                f"{len(before)} evaluations before and {len(after)} after",
                mend="name as many on both sides, in the same order of seeds",
            )
    found = [compare_pooled(list(zip(before, after, strict=True))) for after in afters]
    adjusted = holm({str(number): one.pass_at[1].p_value for number, one in enumerate(found)})
    return [Judged(one, adjusted[str(number)]) for number, one in enumerate(found)]


def compare_pooled(pairs: Sequence[tuple[EvalResult, EvalResult]]) -> Comparison:
    """Compare several pairs (one for each training seed) as one.

    Each task's difference is first averaged over the pairs, then the tasks are clustered by problem. So the same task
    under three seeds counts once, not three times, and the interval speaks of new problems for *these* trained models.
    What another training seed would give is a separate question with as many observations as there are pairs: that
    interval is in `over_seeds`.

    Raises:
        BadInput: no pairs, or results that were not asked the same tasks in the same way.
    """
    if not pairs:
        raise BadInput("nothing to compare", mend="name two evaluations")
    first = pairs[0][0]
    for result in (result for pair in pairs for result in pair):
        _same_question(first, result)
    per_pair = [_per_task(one, other) for one, other in pairs]
    shared = [task_id for task_id in per_pair[0] if all(task_id in found for found in per_pair)]
    if not shared:
        raise BadInput("the two have no task with a verdict on both sides", where=f"{first.name}, {pairs[0][1].name}")
    problems = {task.task_id: task.problem for task in first.tasks}
    samples = min(result.samples for pair in pairs for result in pair)
    ks = [k for k in first.ks() if k <= samples]
    differences = {k: d for k in ks if (d := _difference_at(k, per_pair, shared, problems)) is not None}
    by_seed = tuple(_mean([_rate(f[t][1], 1) - _rate(f[t][0], 1) for t in shared]) for f in per_pair)
    changes = [
        Change(
            t, problems[t], _mean([_rate(f[t][0], 1) for f in per_pair]), _mean([_rate(f[t][1], 1) for f in per_pair])
        )
        for t in shared
    ]
    return Comparison(
        before=first.name,
        after=pairs[0][1].name,
        pass_at=differences,
        gained=tuple(sorted((c for c in changes if c.after > c.before), key=lambda c: c.before - c.after)),
        lost=tuple(sorted((c for c in changes if c.after < c.before), key=lambda c: c.after - c.before)),
        tasks=len(shared),
        problems=len({problems[t] for t in shared}),
        left_out=len(first.tasks) - len(shared),
        seeds=len(pairs),
        seed_differences=by_seed if len(pairs) > 1 else (),
        over_seeds=difference(by_seed, [str(i) for i in range(len(pairs))]) if len(pairs) > 1 else None,
    )


def smallest_detectable(standard_error: float, df: float, power: float = POWER) -> float:
    """The true difference that a two-sided 5 % t test finds with probability `power`.

    From the noncentral t distribution, so that it holds with few clusters, too.
    """
    if not standard_error > 0 or not df > 0:
        return math.nan
    from scipy import optimize

    def excess(effect: float) -> float:
        return detection_power(effect * standard_error, standard_error, df) - power

    enough = t_quantile(df)
    while excess(enough) < 0:
        enough *= 1.5
    return float(optimize.brentq(excess, 0.0, enough)) * standard_error


def detection_power(true_difference: float, standard_error: float, df: float) -> float:
    """The probability that a two-sided 5 % t test finds `true_difference`."""
    from scipy import stats

    limit, shift = t_quantile(df), true_difference / standard_error
    wrong_side = float(stats.nct.cdf(-limit, df, shift))
    # scipy has NaN for lower tails too small to compute.
    return float(stats.nct.sf(limit, df, shift)) + (0.0 if math.isnan(wrong_side) else wrong_side)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided p of McNemar's exact test (Q. McNemar, Psychometrika 12, 1947) on the pairs that changed."""
    from scipy import stats

    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost, 0.5).pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p values of several comparisons (S. Holm, Scand. J. Statist. 6, 1979); NaN stays out and stays NaN."""
    known = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    adjusted = dict(p_values)
    largest = 0.0
    for rank, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[name] = largest
    return adjusted


def sentences(comparison: Comparison) -> list[str]:
    """What was shown and what was not, in plain words."""
    one = comparison.pass_at[1]
    said = [_verdict_sentence(comparison, one)]
    said.append(
        f"Of {comparison.tasks} tasks ({comparison.problems} problems) {len(comparison.gained)} did better and"
        f" {len(comparison.lost)} worse."
    )
    said += [_verdict_sentence(comparison, found) for k, found in comparison.pass_at.items() if k > 1]
    if comparison.over_seeds is not None:
        each = ", ".join(f"{100 * d:+.1f}" for d in comparison.seed_differences)
        over = comparison.over_seeds
        said.append(
            f"By training seed the pass@1 difference was {each} points; over seeds its 95 % interval is"
            f" [{100 * over.low:+.1f}, {100 * over.high:+.1f}] with {comparison.seeds} seeds."
        )
    if comparison.left_out:
        said.append(f"{comparison.left_out} tasks have no verdict on one side and were left out.")
    return said


def _verdict_sentence(comparison: Comparison, found: PairedDifference) -> str:
    low, high = 100 * found.estimate.low, 100 * found.estimate.high
    what = (
        f"{comparison.after} against {comparison.before}, pass@{found.k}: {100 * found.before:.1f} % to"
        f" {100 * found.after:.1f} %, {100 * found.estimate.value:+.1f} points, 95 % interval [{low:+.1f}, {high:+.1f}]"
    )
    if found.shown:
        return f"{what}: shown to be {'better' if low > 0 else 'worse'}."
    if math.isnan(found.smallest_detectable):
        return f"{what}: no difference was shown."
    return (
        f"{what}: no difference was shown; one below {100 * found.smallest_detectable:.1f} points could well have been"
        " missed."
    )


def _same_question(one: EvalResult, other: EvalResult) -> None:
    differing = [name for name in ASKED_ALIKE if getattr(one, name) != getattr(other, name)]
    if differing:
        raise BadInput(
            f"{one.name} and {other.name} were not asked the same; they differ in {', '.join(differing)}",
            mend="evaluate both on the same tasks, with the same hint, temperature, length limit and seed",
        )


_Pairs = dict[str, tuple[TaskResult, TaskResult]]


def _per_task(before: EvalResult, after: EvalResult) -> _Pairs:
    others = {task.task_id: task for task in after.tasks}
    pairs = {task.task_id: (task, others[task.task_id]) for task in before.tasks if task.task_id in others}
    return {task_id: pair for task_id, pair in pairs.items() if pair[0].graded and pair[1].graded}


def _difference_at(
    k: int, per_pair: Sequence[_Pairs], shared: Sequence[str], problems: Mapping[str, str]
) -> PairedDifference | None:
    asked = [t for t in shared if all(min(one.graded, other.graded) >= k for one, other in (f[t] for f in per_pair))]
    if not asked:
        return None
    before = [_mean([_rate(found[t][0], k) for found in per_pair]) for t in asked]
    after = [_mean([_rate(found[t][1], k) for found in per_pair]) for t in asked]
    changes = [b - a for a, b in zip(before, after, strict=True)]
    clusters = [problems[t] for t in asked]
    estimate = difference(changes, clusters)
    single = len(per_pair) == 1 and all(
        one.graded == other.graded == k for one, other in (per_pair[0][t] for t in asked)
    )
    p_value, p_method = _p_value(changes, clusters, estimate, single=single)
    return PairedDifference(
        k=k,
        before=_mean(before),
        after=_mean(after),
        estimate=estimate,
        p_value=p_value,
        p_method=p_method,
        smallest_detectable=smallest_detectable(estimate.standard_error, estimate.df),
    )


def _p_value(
    changes: Sequence[float], clusters: Sequence[str], estimate: Estimate, *, single: bool
) -> tuple[float, str]:
    """Args: `single`: each task has one yes or no on either side."""
    if single and len(set(clusters)) == len(clusters):
        return mcnemar_exact(changes.count(1.0), changes.count(-1.0)), "mcnemar-exact"
    if estimate.method == "no-variation":
        return (1.0 if estimate.value == 0 else math.nan), "no-variation"
    if estimate.method != "cluster-t":
        return math.nan, "none"
    from scipy import stats

    return float(2 * stats.t.sf(abs(estimate.value) / estimate.standard_error, estimate.df)), "cluster-t"


def _rate(task: TaskResult, k: int) -> float:
    value = task.pass_at(k)
    assert value is not None, "tasks with fewer verdicts were left out before"
    return value


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
