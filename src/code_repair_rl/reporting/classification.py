"""Classifiers for the report: label scores beside baselines, votes of several answers, reliability, confusion."""

from __future__ import annotations

from typing import Any, Protocol

from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation.classification import ClassificationResult, classification_path
from code_repair_rl.evaluation.classification_summary import ClassificationSummary, summarise
from code_repair_rl.reporting.packing import rounded
from code_repair_rl.runs import RunDir


class Bounded(Protocol):
    """A figure with its interval."""

    @property
    def value(self) -> float:
        """The figure."""
        ...

    @property
    def low(self) -> float:
        """The interval's lower end."""
        ...

    @property
    def high(self) -> float:
        """The interval's upper end."""
        ...


def classifications(run: RunDir, label: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The run's classification results as the page shows them, and what could not be read."""
    found, notes = [], []
    for name in run.eval_names():
        path = classification_path(run, name)
        if not path.is_file():
            continue
        try:
            result = ClassificationResult.read(path)
            found.append({"run": label, **_plain(result, summarise(result))})
        except BadInput as error:
            notes.append(f"classification/{name}.json is not shown: {error.what}")
    return found, notes


def _plain(result: ClassificationResult, found: ClassificationSummary) -> dict[str, Any]:
    return {
        "name": result.name,
        "model": result.model.rpartition("/")[2],
        "taskSet": result.task_set.rpartition("/")[2],
        "split": result.split,
        "tasks": len(result.tasks),
        "problems": len({task.problem for task in result.tasks}),
        "samples": result.samples,
        "temperature": result.temperature,
        "leftOut": result.left_out,
        "notes": list(result.notes),
        "claims": found.claims,
        "scores": [
            [name, *map(_triple, (one.balanced_accuracy, one.macro_f1, one.mcc, one.accuracy))]
            for name, one in found.scores.items()
        ],
        "curve": {name: [[k, *_triple(one)] for k, one in by_k.items()] for name, by_k in found.curve.items()},
        "pairs": [[name, one.pairs, *map(_triple, one.rates.values())] for name, one in found.pairs.items()],
        "vdS": _triple(found.vd_s) if found.vd_s is not None else None,
        "evidence": _evidence(found),
        "calibration": _triple(found.calibration.error),
        "uncalibrated": found.calibration.left_out,
        "bins": [[rounded(one.share), *_triple(one.accuracy), one.tasks] for one in found.calibration.bins],
        "confusion": {
            "labels": list(found.confusion.labels),
            "counts": [[rounded(count, 1) for count in row] for row in found.confusion.counts],
        },
        "readable": _triple(found.readable),
        "errors": dict(found.errors),
    }


def _evidence(found: ClassificationSummary) -> list[list[Any]]:
    one = found.evidence
    if one is None:
        return []
    return [
        ["cited lines", *map(_triple, (one.precision, one.recall, one.f1, one.corrected, one.misquoted))],
        ["citing every line", None, None, _triple(one.every_line), [0.0, 0.0, 0.0], None],
        ["one line at random", None, None, _triple(one.random_line), None, None],
    ]


def _triple(found: Bounded) -> list[float | None]:
    return [rounded(found.value), rounded(found.low), rounded(found.high)]
