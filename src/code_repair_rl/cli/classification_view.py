"""A classifier's figures on the terminal: label scores beside baselines, votes, pairs, evidence, calibration."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from code_repair_rl.evaluation import Estimate
    from code_repair_rl.evaluation.classification import ClassificationResult
    from code_repair_rl.evaluation.classification_summary import ClassificationSummary
    from code_repair_rl.grading.label_scores import Scored


def print_classification(result: ClassificationResult, console: Console | None = None) -> None:
    """Everything that was found, what has to be said of it first."""
    from code_repair_rl.evaluation.classification_summary import FALSE_POSITIVES, summarise
    from code_repair_rl.tasks.classification import BENIGN

    out = console or Console(highlight=False)
    found = summarise(result)
    for note in result.notes:
        out.print(note, style="yellow" if "NOTHING" in note else None, markup=False)
    _print_scores(out, found)
    _print_curve(out, found)
    _print_pairs(out, found)
    _print_evidence(out, found)
    out.print(
        f"answers that could be read: {_bounds(found.readable)}"
        + "".join(f"; {kind} {count}" for kind, count in found.errors.items()),
        markup=False,
    )
    unread = f" ({found.calibration.left_out} tasks without a readable answer left out)"
    out.print(
        f"expected calibration error of the vote share: {_number(found.calibration.error)}"
        f"{unread if found.calibration.left_out else ''}"
    )
    if found.vd_s is not None:
        benign = sum(task.truth == BENIGN for task in result.tasks)
        none = f"; of {benign} benign tasks that is none" if benign * FALSE_POSITIVES < 1 else ""
        out.print(f"VD-S (false negatives at 0.5 % false positives{none}): {_number(found.vd_s)}")
    if result.left_out:
        out.print(f"{result.left_out} tasks were left out: their prompts are too long")


def _print_scores(out: Console, found: ClassificationSummary) -> None:
    table = Table("", "balanced accuracy", "macro-F1", "MCC", "accuracy", box=None, pad_edge=False)
    for name, one in found.scores.items():
        cells = (one.balanced_accuracy, one.macro_f1, one.mcc, one.accuracy)
        table.add_row(name, *map(_number, cells))
    out.print(table)


def _print_curve(out: Console, found: ClassificationSummary) -> None:
    ks = sorted({k for one in found.curve.values() for k in one})
    if len(ks) < 2:
        return
    table = Table("balanced accuracy, answers voting", *map(str, ks), box=None, pad_edge=False)
    for name, by_k in found.curve.items():
        table.add_row(name, *(_number(by_k[k]) for k in ks))
    out.print(table)


def _print_pairs(out: Console, found: ClassificationSummary) -> None:
    from code_repair_rl.evaluation.classification_summary import PAIR_OUTCOMES

    if not found.pairs:
        return
    columns = [name.replace("_", " ") for name in PAIR_OUTCOMES]
    table = Table("pairs", *columns, box=None, pad_edge=False)
    for name, one in found.pairs.items():
        table.add_row(f"{name} ({one.pairs})", *map(_bounds, one.rates.values()))
    out.print(table)


def _print_evidence(out: Console, found: ClassificationSummary) -> None:
    one = found.evidence
    if one is None:
        return
    table = Table("evidence", "precision", "recall", "F1", "above citing all", "misquoted", box=None, pad_edge=False)
    table.add_row("model", *map(_bounds, (one.precision, one.recall, one.f1, one.corrected, one.misquoted)))
    table.add_row("citing every line", "", "", _bounds(one.every_line), "0", "")
    table.add_row("one line at random", "", "", _bounds(one.random_line), "", "")
    out.print(table)


def _number(found: Scored) -> str:
    return "–" if math.isnan(found.value) else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _bounds(found: Estimate) -> str:
    if math.isnan(found.value):
        return "–"
    return f"{100 * found.value:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"
