"""Evaluations for the report: the table, the paired comparisons in words, the breakdowns."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation import (
    Comparison,
    Estimate,
    EvalResult,
    breakdown,
    by_difficulty,
    compare,
    compare_pooled,
    difficulties,
    holm,
    sentences,
    summary,
)
from code_repair_rl.reporting.curves import interval
from code_repair_rl.reporting.packing import rounded
from code_repair_rl.runs import RunDir, alike

PAIRS = (("base", "sft"), ("sft", "grpo"), ("control", "grpo"), ("base", "grpo"))
"""What is compared with what, where evaluations of these names are there."""

SHOWN_CHANGES = 25


@dataclass(frozen=True, slots=True)
class Evaluations:
    """The evaluations of one run by name, and what could not be read as one."""

    results: Mapping[str, EvalResult]
    notes: tuple[str, ...]


def read_evaluations(run: RunDir) -> Evaluations:
    """Every `eval/*.json` of a run; other JSON that lies there becomes a note."""
    results, notes = {}, []
    for name in run.eval_names():
        try:
            results[name] = EvalResult.from_json(run.read_eval(name), where=str(run.eval_path(name)))
        except BadInput as error:
            notes.append(f"eval/{name}.json is not shown: {error.what}")
    return Evaluations(results, tuple(notes))


def table_row(
    run: str, name: str, result: EvalResult, model: str, task_set: str, reference: EvalResult | None = None
) -> dict[str, Any]:
    """One line of the summary table.

    Args:
        run: the run's label.
        name: the evaluation's.
        result: what was found.
        model: as it is shown; so is `task_set`.
        reference: whose answers tell how hard the tasks are; only where it was asked the same ones.
    """
    found = summary(result)
    return {
        "run": run,
        "name": name,
        "model": model,
        "taskSet": task_set,
        "split": result.split,
        "hint": result.hint,
        "temperature": result.temperature,
        "samplesPerTask": result.samples,
        "agent": result.agent,
        "passWithin": {str(k): interval(estimate) for k, estimate in found.pass_within.items()},
        "isolation": result.isolation,
        "unsafe": result.stamped_unsafe,
        "tasks": found.tasks,
        "problems": found.problems,
        "noVerdict": found.no_verdict,
        "leftOut": result.left_out,
        "passAt": {str(k): interval(estimate) for k, estimate in found.pass_at.items()},
        "format": interval(found.format_rate),
        "apply": interval(found.apply_rate),
        "rightPlace": interval(found.right_place_rate),
        "editPrecision": interval(found.edit_precision),
        "truncated": interval(found.truncated_rate),
        "tokens": rounded(found.mean_tokens, 1),
        "outcomes": dict(found.outcomes),
        "byOperator": _bars(breakdown(result, "operator")),
        "byLines": _bars(breakdown(result, "lines")),
        "difficultyOf": reference.name if reference is not None else None,
        "byDifficulty": _bars(_by_difficulty(result, reference)),
    }


def matrix(results: Sequence[tuple[str, str, EvalResult]]) -> dict[str, Any]:
    """Every task's passes in every evaluation, side by side.

    Args:
        results: label of the run, name of the evaluation, and what it found.

    Returns:
        `columns`, `[run, name]` each, and `rows`, a task's id, problem and operator and, per column, `[passed, graded]`
        (null where the evaluation did not ask it).
    """
    tasks: dict[str, list[Any]] = {}
    cells: dict[str, dict[int, list[int]]] = {}
    for number, (_, _, result) in enumerate(results):
        for task in result.tasks:
            tasks.setdefault(task.task_id, [task.task_id, task.problem, task.operator])
            cells.setdefault(task.task_id, {})[number] = [task.passed, task.graded]
    return {
        "columns": [[run, name] for run, name, _ in results],
        "rows": [[*told, [cells[task_id].get(n) for n in range(len(results))]] for task_id, told in tasks.items()],
    }


def _by_difficulty(result: EvalResult, reference: EvalResult | None) -> Mapping[str, Estimate]:
    if reference is None or reference.tasks_sha256 != result.tasks_sha256 or reference.hint != result.hint:
        return {}
    return by_difficulty(result, difficulties(reference), is_reference=reference is result)


@dataclass(frozen=True, slots=True)
class Reported:
    """One run of the report."""

    label: str
    recipe: Mapping[str, Any]
    results: Mapping[str, EvalResult]


def comparisons(
    reported: Sequence[Reported],
) -> tuple[list[dict[str, Any]], list[str]]:
    """Every paired comparison that the evaluations allow, with p values corrected over all of them (Holm).

    Pooled are runs whose recipes differ in the training seed alone; what they share (a warm start that was taken over)
    counts once.

    Returns:
        The comparisons, and a note for each that was left out, saying why.
    """
    found: dict[str, Comparison] = {}
    notes: list[str] = []
    reported = [run for run in reported if run.results]
    runs = [(run.label, run.results) for run in reported]
    for label, results in runs:
        prefix = f"{label}: " if len(runs) > 1 else ""
        for before, after in _pairs_of(list(results)):
            _try(found, notes, f"{prefix}{before} → {after}", [(results[before], results[after])])
    if len(runs) > 1:
        for seeds in alike(reported, _but_the_seed):
            for before, after in PAIRS:
                pooled = _different(
                    [run for run in seeds if before in run.results and after in run.results], before, after
                )
                if len(pooled) > 1:
                    which = ", ".join(run.label for run in pooled) if len(pooled) < len(reported) else ""
                    title = f"{len(pooled)} runs pooled{f' ({which})' if which else ''}: {before} → {after}"
                    _try(found, notes, title, [(run.results[before], run.results[after]) for run in pooled])
        (first_label, first), *others = runs
        for label, results in others:
            for name in (n for n in results if n in first):
                _try(found, notes, f"{name}: {first_label} → {label}", [(first[name], results[name])])
    adjusted = holm({title: one.pass_at[1].p_value for title, one in found.items() if 1 in one.pass_at})
    return [_plain(title, one, adjusted.get(title)) for title, one in found.items()], notes


def _but_the_seed(run: Reported) -> dict[str, Any]:
    return {key: value for key, value in run.recipe.items() if key not in ("seed", "threads")}


def _different(runs: Sequence[Reported], before: str, after: str) -> list[Reported]:
    """The runs, but of those that share both results the first alone."""
    found: list[Reported] = []
    for run in runs:
        mine = [run.results[name].tasks for name in (before, after)]
        if mine not in ([one.results[name].tasks for name in (before, after)] for one in found):
            found.append(run)
    return found


def _pairs_of(names: Sequence[str]) -> list[tuple[str, str]]:
    known = [(before, after) for before, after in PAIRS if before in names and after in names]
    if known:
        return known
    return list(itertools.pairwise(names))


def _try(
    found: dict[str, Comparison], notes: list[str], title: str, pairs: Sequence[tuple[EvalResult, EvalResult]]
) -> None:
    try:
        one = compare(*pairs[0]) if len(pairs) == 1 else compare_pooled(pairs)
    except BadInput as error:
        notes.append(f"{title} is not compared: {error.what}")
        return
    if 1 in one.pass_at:
        found[title] = one


def _plain(title: str, one: Comparison, adjusted: float | None) -> dict[str, Any]:
    first = one.pass_at[1]
    return {
        "title": title,
        "sentences": sentences(one),
        "shown": first.shown,
        "better": first.estimate.value > 0,
        "difference": interval(first.estimate),
        "p": rounded(first.p_value, 5),
        "pAdjusted": rounded(adjusted, 5),
        "pMethod": first.p_method,
        "smallest": rounded(first.smallest_detectable),
        "gained": [[c.task_id, rounded(c.before, 3), rounded(c.after, 3)] for c in one.gained[:SHOWN_CHANGES]],
        "lost": [[c.task_id, rounded(c.before, 3), rounded(c.after, 3)] for c in one.lost[:SHOWN_CHANGES]],
        "moreGained": max(0, len(one.gained) - SHOWN_CHANGES),
        "moreLost": max(0, len(one.lost) - SHOWN_CHANGES),
    }


def _bars(groups: Mapping[str, Estimate]) -> list[list[Any]]:
    return [[label, *interval(estimate), estimate.tasks] for label, estimate in groups.items()]
