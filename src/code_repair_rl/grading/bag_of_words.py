"""What the words alone give away: logistic regression over the words of the code.

A baseline for every table, and the leak test of every set: where the identifiers alone tell the labels apart, a model
that seems to reason about code may only know names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from code_repair_rl.grading.label_scores import Scored, certain, label_scores
from code_repair_rl.tasks.classification import code_of
from code_repair_rl.tasks.task import Split, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LEAK_SHARE = 0.20

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_WORD = re.compile(r"[A-Za-z_]\w*|\d+|[^\w\s]")
_PENALTY = 1.0
_MOST_WORDS = 20_000
_STEPS = 60


def leak_bound(labels: int) -> float:
    """Where the upper 95 % bound of a bag of identifiers' balanced accuracy exceeds this, nothing is claimed on a set.

    A fifth of the way from chance to certainty: 0.60 for two labels, 0.36 for five.
    """
    return 1 / labels + _LEAK_SHARE * (1 - 1 / labels)


@dataclass(frozen=True, slots=True)
class BagOfWords:
    """A fitted classifier."""

    labels: tuple[str, ...]
    vocabulary: Mapping[str, int]
    weights: NDArray[np.float64]
    """`(V + 1, L)`; the last row is the intercept."""
    identifiers_only: bool

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest label of each text."""
        if len(self.labels) == 1:
            return [self.labels[0]] * len(texts)
        scores = _features(texts, self.vocabulary, self.identifiers_only) @ self.weights[:-1] + self.weights[-1]
        return [self.labels[place] for place in scores.argmax(axis=1)]


def fit(texts: Sequence[str], labels: Sequence[str], *, identifiers_only: bool = False) -> BagOfWords:
    """Softmax regression with an L2 penalty on whether a word occurs, labels weighted to count the same.

    Args:
        texts: code, at least one.
        labels: the label of each.
        identifiers_only: leave out numbers, operators and punctuation.
    """
    import numpy as np
    from scipy.optimize import minimize

    names = tuple(sorted(set(labels)))
    counts = Counter(word for text in texts for word in set(_words(text, identifiers_only)))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    common = [word for word in ranked if counts[word] > 1][:_MOST_WORDS] or ranked
    vocabulary = {word: place for place, word in enumerate(common)}
    features = _features(texts, vocabulary, identifiers_only)
    truth = np.array([names.index(label) for label in labels])
    importance = (len(labels) / (len(names) * np.bincount(truth)))[truth]
    hot = np.eye(len(names))[truth]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(len(vocabulary) + 1, len(names))
        scores = features @ weights[:-1] + weights[-1]
        scores -= scores.max(axis=1, keepdims=True)
        probabilities = np.exp(scores)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        error = (probabilities - hot) * importance[:, None]
        gradient = np.vstack([features.T @ error + _PENALTY * weights[:-1], error.sum(axis=0)[None]])
        likelihood = -(importance * np.log(probabilities[np.arange(len(truth)), truth] + 1e-12)).sum()
        return float(likelihood + 0.5 * _PENALTY * (weights[:-1] ** 2).sum()), gradient.ravel()

    start = np.zeros((len(vocabulary) + 1) * len(names))
    if len(names) > 1:
        start = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x
    return BagOfWords(names, vocabulary, start.reshape(len(vocabulary) + 1, len(names)), identifiers_only)


def predicted_by_words(training: Sequence[Task], tasks: Sequence[Task]) -> list[str]:
    """The labels that a bag of words, fitted on `training`, gives `tasks`."""
    model = fit([code_of(task)[1] for task in training], [str(task.oracle) for task in training])
    return model.predict([code_of(task)[1] for task in tasks])


def leak(tasks: Sequence[Task]) -> Scored | None:
    """Balanced accuracy of a bag of identifiers, fitted on the training split and measured on the others.

    Returns:
        None where there is nothing to fit or to measure.
    """
    training = [task for task in tasks if task.split is Split.TRAIN]
    held_out = [task for task in tasks if task.split is not Split.TRAIN]
    if not training or len({task.oracle for task in held_out}) < 2:
        return None
    model = fit([code_of(t)[1] for t in training], [str(t.oracle) for t in training], identifiers_only=True)
    said = model.predict([code_of(task)[1] for task in held_out])
    scores = label_scores(
        [str(task.oracle) for task in held_out], [certain(label) for label in said], [task.problem for task in held_out]
    )
    return scores.balanced_accuracy


def leak_stamp(measured: Scored | None, labels: int) -> dict[str, Any] | None:
    """What `leak` found and whether it lets anything be claimed where so many labels occur, as stamped on tasks."""
    if measured is None:
        return None
    low, value, high = (round(bound, 4) for bound in (measured.low, measured.value, measured.high))
    return {"balanced_accuracy": value, "low": low, "high": high, "claims": high <= leak_bound(labels)}


def _features(texts: Sequence[str], vocabulary: Mapping[str, int], identifiers_only: bool) -> NDArray[np.float64]:
    """`(texts, V)` sparse matrix: 1 where the word occurs."""
    import numpy as np
    from scipy.sparse import csr_matrix

    rows, columns = [], []
    for row, text in enumerate(texts):
        for word in set(_words(text, identifiers_only)):
            if word in vocabulary:
                rows.append(row)
                columns.append(vocabulary[word])
    found: NDArray[np.float64] = csr_matrix(
        (np.ones(len(rows)), (rows, columns)), shape=(len(texts), max(1, len(vocabulary)))
    )
    return found


def _words(text: str, identifiers_only: bool) -> list[str]:
    return (_IDENTIFIER if identifiers_only else _WORD).findall(text)
