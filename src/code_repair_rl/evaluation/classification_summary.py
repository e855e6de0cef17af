"""The figures of a classifier: label scores beside baselines, pairs, VD-S, evidence, calibration, votes of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation.classification import (
    BAG_OF_WORDS,
    MAJORITY_CLASS,
    ClassificationResult,
    ClassifiedTask,
    is_vulnerable,
)
from code_repair_rl.evaluation.estimates import Estimate, hidden, rate
from code_repair_rl.evaluation.votes import Vote, evidence_weighted, majority, shares, with_k
from code_repair_rl.grading.label_scores import (
    UNREADABLE,
    Confusion,
    Distribution,
    LabelScores,
    Scored,
    certain,
    confusion,
    difference_of_balanced_accuracy,
    interval,
    label_scores,
)
from code_repair_rl.tasks.classification import BENIGN, ENOUGH_CITED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FALSE_POSITIVES = 0.005
"""The rate of false positives that VD-S tolerates (Ding et al. 2024, arXiv:2403.18624)."""

RANDOM = "random"
ONE_SAMPLE = "one sample"
VOTES: Mapping[str, Vote] = {"majority": majority, "evidence-weighted": evidence_weighted}

_BINS = 10
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class PairOutcomes:
    """PrimeVul's four outcomes over pairs, and what could not be read; the rates add up to 1."""

    both_right: Estimate
    """P-C: the vulnerable side vulnerable, the fixed side benign."""
    both_vulnerable: Estimate
    """P-V."""
    both_benign: Estimate
    """P-B."""
    reversed: Estimate
    """P-R: the vulnerable side benign, the fixed side vulnerable."""
    unreadable: Estimate
    """An answer to one of the sides could not be read."""
    pairs: int

    @property
    def rates(self) -> dict[str, Estimate]:
        """Every outcome by its name."""
        return {name: getattr(self, name) for name in PAIR_OUTCOMES}


PAIR_OUTCOMES = ("both_right", "both_vulnerable", "both_benign", "reversed", "unreadable")


@dataclass(frozen=True, slots=True)
class Evidence:
    """Cited lines against those that decide, where these are known; unreadable answers have cited nothing."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    corrected: Estimate
    """F1 above what citing every line gives."""
    misquoted: Estimate
    """Share of citations that are not in the code as quoted."""
    every_line: Estimate
    """Baseline: the F1 of citing every line."""
    random_line: Estimate
    """Baseline: the expected F1 of citing one line at random."""


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of the reliability plot."""

    low: float
    high: float
    """Vote shares in `(low, high]`."""
    tasks: int
    share: float
    """Mean vote share."""
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class Calibration:
    """Vote share of the winning label against how often it is right."""

    error: Scored
    """Expected calibration error over ten bins of equal width."""
    bins: tuple[Bin, ...]
    left_out: int
    """Tasks without a single readable answer: there is no verdict that could be right."""


@dataclass(frozen=True, slots=True)
class ClassificationSummary:
    """All figures of one classifier."""

    scores: Mapping[str, LabelScores]
    """`one sample`, `majority of N`, `evidence-weighted of N` and the baselines."""
    curve: Mapping[str, Mapping[int, Scored]]
    """Vote to number of answers to balanced accuracy: what more computing at test time buys."""
    pairs: Mapping[str, PairOutcomes]
    """For one sample and for the majority; empty without pairs."""
    vd_s: Scored | None
    """False negative rate at `FALSE_POSITIVES`; None without both labels."""
    evidence: Evidence | None
    calibration: Calibration
    confusion: Confusion
    """Of the majority."""
    readable: Estimate
    errors: Mapping[str, int]
    """Kind of unreadable answer to their number."""
    claims: bool
    """Whether anything may be claimed on these tasks (`notes` say why not)."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def summarise(result: ClassificationResult) -> ClassificationSummary:
    """All figures.

    Raises:
        BadInput: no tasks, or a task without an answer.
    """
    tasks = result.tasks
    if not tasks or any(not task.samples for task in tasks):
        raise BadInput("a classification result needs tasks with answers", where=result.name)
    count = min(len(task.samples) for task in tasks)
    ks = [k for k in (1, 2, 4, 8, 16, 32) if k <= count]
    curves = {
        name: {k: [with_k(task.samples, k, vote, f"{task.task_id}/{k}") for task in tasks] for k in ks}
        for name, vote in VOTES.items()
    }
    single = [shares(task.samples) for task in tasks]
    whole = [majority(task.samples) for task in tasks]
    predictions: dict[str, Sequence[Distribution]] = {ONE_SAMPLE: single}
    if count > 1:
        predictions[f"majority of {count}"] = whole
        predictions[f"evidence-weighted of {count}"] = [evidence_weighted(task.samples) for task in tasks]
    predictions |= _baselines(result)
    return ClassificationSummary(
        scores={name: _scores(result, said) for name, said in predictions.items()},
        curve={
            name: {k: _scores(result, said).balanced_accuracy for k, said in by_k.items()}
            for name, by_k in curves.items()
        },
        pairs={
            name: pairs
            for name, said in ((ONE_SAMPLE, single), ("majority", whole))
            if (pairs := pair_outcomes(tasks, said)) is not None
        },
        vd_s=vd_s(tasks),
        evidence=_evidence(tasks),
        calibration=calibration(tasks),
        confusion=confusion([task.truth for task in tasks], whole, result.labels),
        readable=_over_samples(tasks, [[float(s.label is not None) for s in task.samples] for task in tasks]),
        errors=_errors(tasks),
        claims=not any("NOTHING IS CLAIMED" in note for note in result.notes),
    )


def compare_classifiers(before: ClassificationResult, after: ClassificationResult, *, votes: int = 1) -> Scored:
    """How much balanced accuracy the second gained on the same tasks, with the interval of the paired difference.

    Args:
        votes: 1 compares single answers; more the majority of all answers there are.

    Raises:
        BadInput: they were not asked the same.
    """
    if before.tasks_sha256 != after.tasks_sha256:
        raise BadInput("the two were not asked the same tasks", where=f"{before.name}, {after.name}")
    both = [[shares(t.samples) if votes == 1 else majority(t.samples) for t in one.tasks] for one in (before, after)]
    truths, problems = [task.truth for task in before.tasks], [task.problem for task in before.tasks]
    return difference_of_balanced_accuracy(truths, both[0], both[1], problems)


def pair_outcomes(tasks: Sequence[ClassifiedTask], said: Sequence[Distribution]) -> PairOutcomes | None:
    """PrimeVul's pair-wise outcomes; sides that are answered by chance count by their shares.

    Returns:
        None where there is no whole pair.
    """
    sides: dict[tuple[str, str], dict[bool, tuple[float, float]]] = {}
    for task, one in zip(tasks, said, strict=True):
        if task.pair is not None:
            benign = one.get(BENIGN, 0.0)
            claimed = sum(share for label, share in one.items() if label not in (BENIGN, UNREADABLE))
            sides.setdefault((task.problem, task.pair), {})[is_vulnerable(task.truth)] = (claimed, benign)
    whole = {place: both for place, both in sides.items() if len(both) == 2}
    if not whole:
        return None
    problems = [problem for problem, _ in whole]

    def both(of_vulnerable: int, of_fixed: int) -> Estimate:
        return rate([one[True][of_vulnerable] * one[False][of_fixed] for one in whole.values()], problems)

    claimed, benign = 0, 1
    return PairOutcomes(
        both_right=both(claimed, benign),
        both_vulnerable=both(claimed, claimed),
        both_benign=both(benign, benign),
        reversed=both(benign, claimed),
        unreadable=rate([1 - sum(one[True]) * sum(one[False]) for one in whole.values()], problems),
        pairs=len(whole),
    )


def vd_s(tasks: Sequence[ClassifiedTask]) -> Scored | None:
    """PrimeVul's VD-S: the false negative rate where at most half a per cent of benign code is called vulnerable.

    A task's score is the share of its answers that claim a vulnerability; an answer that could not be read counts as
    wrong, so that on benign code it is a claim. The interval is the percentile bootstrap over problems, as the score
    jumps and no jackknife holds; where nothing varies, the bound is what this many problems could hide.
    """
    import numpy as np

    problems = {problem: place for place, problem in enumerate(dict.fromkeys(task.problem for task in tasks))}
    scores = np.array([sum(_claims(task, s.label) for s in task.samples) / len(task.samples) for task in tasks])
    truth = np.array([is_vulnerable(task.truth) for task in tasks])
    cluster = np.array([problems[task.problem] for task in tasks])
    value = _missed(scores, truth, np.ones(len(tasks)))
    if math.isnan(value):
        return None
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(problems), [1 / len(problems)] * len(problems), size=_RESAMPLES)
    found = [v for counts in drawn if not math.isnan(v := _missed(scores, truth, counts[cluster].astype(float)))]
    low, high = map(float, np.quantile(found, [0.025, 0.975])) if found else (0.0, 1.0)
    if high - low < 1e-12:
        slack = hidden(len(problems))
        low, high = max(0.0, value - slack), min(1.0, value + slack)
    return Scored(value, low, high)


def _claims(task: ClassifiedTask, label: str | None) -> bool:
    return is_vulnerable(label) or (label is None and not is_vulnerable(task.truth))


def calibration(tasks: Sequence[ClassifiedTask]) -> Calibration:
    """How well vote shares tell how often the majority is right, where there is a verdict at all."""
    import numpy as np

    unread = sum(all(one.label is None for one in task.samples) for task in tasks)
    tasks = [task for task in tasks if any(one.label is not None for one in task.samples)]
    confidences, rights = [], []
    for task in tasks:
        share, winners = shares(task.samples), majority(task.samples)
        confidences.append(max((share.get(label, 0.0) for label in winners), default=0.0))
        rights.append(winners.get(task.truth, 0.0))
    places = [min(_BINS - 1, max(0, math.ceil(c * _BINS) - 1)) for c in confidences]
    problems = {problem: place for place, problem in enumerate(dict.fromkeys(task.problem for task in tasks))}
    sums = np.zeros((len(problems), 3, _BINS))
    for task, place, confidence, right in zip(tasks, places, confidences, rights, strict=True):
        sums[problems[task.problem], :, place] += (1.0, confidence, right)
    bins = []
    for place in range(_BINS):
        inside = [n for n in range(len(tasks)) if places[n] == place]
        if inside:
            accuracy = rate([rights[n] for n in inside], [tasks[n].problem for n in inside])
            mean = sum(confidences[n] for n in inside) / len(inside)
            bins.append(Bin(place / _BINS, (place + 1) / _BINS, len(inside), mean, accuracy))
    return Calibration(interval(sums, _calibration_error, (0.0, 1.0)), tuple(bins), unread)


def _calibration_error(sums: NDArray[np.float64]) -> float:
    count, confidence, right = sums
    return float(abs(confidence - right).sum() / count.sum()) if count.sum() else math.nan


def _missed(scores: NDArray[np.float64], truth: NDArray[np.bool_], weight: NDArray[np.float64]) -> float:
    """The weighted false negative rate at the lowest threshold that keeps the false positive rate within bounds."""
    vulnerable, benign = float(weight[truth].sum()), float(weight[~truth].sum())
    if not vulnerable or not benign:
        return math.nan
    best = 1.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        if threshold <= 0:
            break
        claimed = scores >= threshold
        if float(weight[claimed & ~truth].sum()) / benign > FALSE_POSITIVES:
            break
        best = 1.0 - float(weight[claimed & truth].sum()) / vulnerable
    return best


def _scores(result: ClassificationResult, said: Sequence[Distribution]) -> LabelScores:
    tasks = result.tasks
    return label_scores([task.truth for task in tasks], said, [task.problem for task in tasks], result.labels)


def _baselines(result: ClassificationResult) -> dict[str, Sequence[Distribution]]:
    labels = result.labels or tuple(sorted({task.truth for task in result.tasks}))
    found: dict[str, Sequence[Distribution]] = {
        RANDOM: [{label: 1 / len(labels) for label in labels} for _ in result.tasks]
    }
    for name in (MAJORITY_CLASS, BAG_OF_WORDS):
        if all(name in task.baselines for task in result.tasks):
            found[name] = [certain(task.baselines[name]) for task in result.tasks]
    return found


def _evidence(tasks: Sequence[ClassifiedTask]) -> Evidence | None:
    known = [task for task in tasks if task.decisive]
    if not known:
        return None

    def over(name: str) -> Estimate:
        return _over_samples(known, [[float(getattr(s, name) or 0.0) for s in task.samples] for task in known])

    citing = [(task, s) for task in tasks for s in task.samples if s.cited or s.misquoted]
    problems = [task.problem for task in known]
    return Evidence(
        precision=over("precision"),
        recall=over("recall"),
        f1=over("f1"),
        corrected=over("corrected"),
        misquoted=rate([s.misquoted / (len(s.cited) + s.misquoted) for _, s in citing], [t.problem for t, _ in citing]),
        every_line=rate([2 * t.decisive / t.written / (1 + t.decisive / t.written) for t in known], problems),
        random_line=rate([_random_line(task) for task in known], problems),
    )


def _random_line(task: ClassifiedTask) -> float:
    recall = 1 / min(task.decisive, ENOUGH_CITED)
    return task.decisive / task.written * 2 * recall / (1 + recall)


def _over_samples(tasks: Sequence[ClassifiedTask], values: Sequence[Sequence[float]]) -> Estimate:
    """Mean over tasks of the mean over a task's answers."""
    return rate([sum(one) / len(one) for one in values], [task.problem for task in tasks])


def _errors(tasks: Sequence[ClassifiedTask]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for task in tasks:
        for sample in task.samples:
            if sample.error is not None:
                counts[sample.error] = counts.get(sample.error, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
