"""What several answers say together: the majority, and a vote weighted by how well the answers' evidence agrees.

At test time nobody knows the truth, so the weight of an answer is what can be seen: the share of its citations that are
in the code as quoted, times the share of the readable answers, itself among them, that cite the same lines. An answer
that cites nothing is taken to cite one line called "nothing", so that benign answers are weighed the same way.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from code_repair_rl.evaluation.classification import LabelledSample
from code_repair_rl.grading.label_scores import UNREADABLE

Vote = Callable[[Sequence[LabelledSample]], Mapping[str, float]]
"""Answers to a distribution over labels: the winner has 1, tied ones share it."""

_MOST_SUBSETS = 200
_NOTHING = 0


def majority(samples: Sequence[LabelledSample]) -> Mapping[str, float]:
    """The most frequent label; answers that could not be read do not vote."""
    return _winners(Counter(one.label for one in samples if one.label is not None))


def evidence_weighted(samples: Sequence[LabelledSample]) -> Mapping[str, float]:
    """The label with the most weight of evidence."""
    readable = [one for one in samples if one.label is not None]
    support = Counter(line for one in readable for line in _lines(one))
    weights: dict[str, float] = {}
    for one in readable:
        assert one.label is not None
        weights[one.label] = weights.get(one.label, 0.0) + _weight(one, support, len(readable))
    if not any(weights.values()):
        return majority(samples)
    return _winners(weights)


def with_k(samples: Sequence[LabelledSample], k: int, vote: Vote, seed: str) -> Mapping[str, float]:
    """What a vote of `k` of the answers says on average over which `k` they are.

    All subsets where there are at most two hundred, else as many drawn by `seed`.

    Raises:
        ValueError: fewer than `k` answers.
    """
    if not 1 <= k <= len(samples):
        raise ValueError(f"a vote of {k} needs at least that many answers, not {len(samples)}")
    if math.comb(len(samples), k) <= _MOST_SUBSETS:
        subsets: list[tuple[LabelledSample, ...]] = list(itertools.combinations(samples, k))
    else:
        rng = random.Random(seed)
        subsets = [tuple(rng.sample(list(samples), k)) for _ in range(_MOST_SUBSETS)]
    total: dict[str, float] = {}
    for subset in subsets:
        for label, share in vote(subset).items():
            total[label] = total.get(label, 0.0) + share / len(subsets)
    return total


def shares(samples: Sequence[LabelledSample]) -> Mapping[str, float]:
    """Label to its share of all answers; those that could not be read have a share, too."""
    counts = Counter(one.label if one.label is not None else UNREADABLE for one in samples)
    return {label: count / len(samples) for label, count in counts.items()}


def _weight(sample: LabelledSample, support: Mapping[int, int], voters: int) -> float:
    cited = len(sample.cited) + sample.misquoted
    valid = len(sample.cited) / cited if cited else 1.0
    lines = _lines(sample)
    if not lines:
        return 0.0
    return valid * sum(support[line] / voters for line in lines) / len(lines)


def _lines(sample: LabelledSample) -> tuple[int, ...]:
    """Cited lines; `_NOTHING` for an answer that cites none, and no line for one that misquotes all."""
    if sample.cited or sample.misquoted:
        return sample.cited
    return (_NOTHING,)


def _winners(weights: Mapping[str, float]) -> Mapping[str, float]:
    if not weights:
        return {UNREADABLE: 1.0}
    most = max(weights.values())
    first = [label for label, weight in weights.items() if weight >= most - 1e-12]
    return {label: 1 / len(first) for label in first}
