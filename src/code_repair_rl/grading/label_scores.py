"""How good labels are, with intervals: balanced accuracy, macro-F1, Matthews' correlation, accuracy.

What is scored is one distribution over labels for each task: a single prediction, the shares of several samples, or a
baseline that guesses. All scores are functions of the confusion matrix that these add up to, and so they get a common
interval: the jackknife over problems, each left out in turn (B. Efron and C. Stein, Annals of Statistics 9, 1981), with
Student's t on one degree of freedom less than problems.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

Distribution = Mapping[str, float]
"""Label to probability; adds up to 1. What is in no label set (`unreadable`) counts as wrong."""

UNREADABLE = "unreadable"
"""The label of an answer that could not be read; never the truth."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A score with its 95 % interval."""

    value: float
    """NaN where it is not defined (no task, or one class only)."""
    low: float
    high: float
    """Both equal to the score's own limits where fewer than two problems are there."""


@dataclass(frozen=True, slots=True)
class LabelScores:
    """The scores of one classifier on one set of tasks."""

    accuracy: Scored
    balanced_accuracy: Scored
    """Mean recall over the labels that occur."""
    macro_f1: Scored
    """Mean F1 over the labels that occur."""
    mcc: Scored
    """Matthews' correlation for any number of labels (J. Gorodkin, Computational Biology and Chemistry 28, 2004)."""
    tasks: int
    problems: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """True labels in rows, predicted ones in columns."""

    labels: tuple[str, ...]
    counts: tuple[tuple[float, ...], ...]
    """`(L, L)`; rows of labels that never are the truth are zero."""


def label_scores(
    truths: Sequence[str], predicted: Sequence[Distribution], problems: Sequence[str], labels: Sequence[str] = ()
) -> LabelScores:
    """All scores of one classifier.

    Args:
        truths: the right label of each task.
        predicted: what the classifier says of each.
        problems: what each task is clustered by.
        labels: the whole label set, where known; needed by nothing but the order.
    """
    per_problem, _ = _matrices(truths, predicted, problems, labels)
    return LabelScores(
        accuracy=interval(per_problem, _accuracy, (0.0, 1.0)),
        balanced_accuracy=interval(per_problem, _balanced_accuracy, (0.0, 1.0)),
        macro_f1=interval(per_problem, _macro_f1, (0.0, 1.0)),
        mcc=interval(per_problem, _mcc, (-1.0, 1.0)),
        tasks=len(truths),
        problems=len(set(problems)),
    )


def difference_of_balanced_accuracy(
    truths: Sequence[str], before: Sequence[Distribution], after: Sequence[Distribution], problems: Sequence[str]
) -> Scored:
    """How much balanced accuracy `after` has more than `before` on the same tasks, with the paired interval."""
    import numpy as np

    labels = sorted({label for one in (*before, *after) for label in one} | set(truths))
    one, other = (_matrices(truths, said, problems, labels)[0] for said in (before, after))
    both = np.stack([one, other], axis=1)
    return interval(both, lambda pair: _balanced_accuracy(pair[1]) - _balanced_accuracy(pair[0]), (-1.0, 1.0))


def confusion(truths: Sequence[str], predicted: Sequence[Distribution], labels: Sequence[str] = ()) -> Confusion:
    """The confusion matrix over all tasks."""
    matrices, names = _matrices(truths, predicted, ["all"] * len(truths), labels)
    total = matrices.sum(axis=0)
    return Confusion(names, tuple(tuple(float(value) for value in row) for row in total))


def certain(label: str) -> Distribution:
    """A prediction without doubt."""
    return {label: 1.0}


def interval(
    per_problem: Matrix, score: Callable[[Matrix], float], limits: tuple[float, float], confidence: float = 0.95
) -> Scored:
    """A score of the sum of `per_problem` (problems in the first axis), with its jackknife interval.

    Problems without which the score is not defined are passed over. Where nothing varies, the bound is what this many
    problems could hide in 5 % of the cases, as elsewhere.
    """
    from scipy import stats

    total = per_problem.sum(axis=0)
    value = score(total)
    if math.isnan(value) or len(per_problem) < 2:
        return Scored(value, *limits)
    left_out = [found for one in per_problem if not math.isnan(found := score(total - one))]
    count = len(left_out)
    if count < 2:
        return Scored(value, *limits)
    mean = sum(left_out) / count
    error = math.sqrt((count - 1) / count * sum((found - mean) ** 2 for found in left_out))
    if error < 1e-12:
        half = (1 - (1 - confidence) ** (1 / count)) * (limits[1] - limits[0])
    else:
        half = float(stats.t.ppf(0.5 + confidence / 2, count - 1)) * error
    return Scored(value, max(limits[0], value - half), min(limits[1], value + half))


def _matrices(
    truths: Sequence[str], predicted: Sequence[Distribution], problems: Sequence[str], labels: Sequence[str]
) -> tuple[Matrix, tuple[str, ...]]:
    """`(problems, L, L)` confusion, and the labels."""
    import numpy as np

    if not len(truths) == len(predicted) == len(problems):
        raise ValueError("one prediction and one problem for each task")
    seen = sorted({*truths, *(label for one in predicted for label in one)} - set(labels) - {UNREADABLE})
    unreadable = [UNREADABLE] if UNREADABLE in labels or any(UNREADABLE in one for one in predicted) else []
    names = tuple(dict.fromkeys([*(label for label in labels if label != UNREADABLE), *seen, *unreadable]))
    place = {name: index for index, name in enumerate(names)}
    cluster = {problem: index for index, problem in enumerate(dict.fromkeys(problems))}
    found = np.zeros((len(cluster), len(names), len(names)))
    for truth, one, problem in zip(truths, predicted, problems, strict=True):
        for label, share in one.items():
            found[cluster[problem], place[truth], place[label]] += share
    return found, names


def _accuracy(matrix: Matrix) -> float:
    total = float(matrix.sum())
    return float(matrix.trace()) / total if total > 0 else math.nan


def _balanced_accuracy(matrix: Matrix) -> float:
    truth = matrix.sum(axis=1)
    there = truth > 1e-9
    if there.sum() < 2:
        return math.nan
    return float((matrix.diagonal()[there] / truth[there]).mean())


def _macro_f1(matrix: Matrix) -> float:
    truth, said = matrix.sum(axis=1), matrix.sum(axis=0)
    there = truth > 1e-9
    if there.sum() < 2:
        return math.nan
    return float((2 * matrix.diagonal()[there] / (truth[there] + said[there])).mean())


def _mcc(matrix: Matrix) -> float:
    truth, said = matrix.sum(axis=1), matrix.sum(axis=0)
    total = float(matrix.sum())
    if total <= 0 or (truth > 1e-9).sum() < 2:
        return math.nan
    covariance = float(matrix.trace()) * total - float((truth * said).sum())
    spread = (total**2 - float((said**2).sum())) * (total**2 - float((truth**2).sum()))
    # A classifier that always says the same has no correlation with anything; the convention is 0.
    return covariance / math.sqrt(spread) if spread > 1e-9 * total**4 else 0.0
