"""What an experiment with classifiers leaves for good: one small JSON file, and the tables made of it alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation.classification import ClassificationResult, classification_path
from code_repair_rl.evaluation.classification_summary import PAIR_OUTCOMES, compare_classifiers, summarise
from code_repair_rl.home import write_atomically
from code_repair_rl.pipelines.records import machine_of
from code_repair_rl.runs import RunDir, training_seconds

SCHEMA_VERSION = 1
_CURVES = ("pass_rate", "reward/total", "reward/evidence", "train/loss")


def record(name: str, evaluations: Sequence[tuple[RunDir, str]], trainings: Mapping[str, RunDir]) -> dict[str, Any]:
    """What is worth keeping.

    Args:
        name: of the experiment.
        evaluations: the run and name of each evaluation; each is compared with the one before it.
        trainings: stage to its run.

    Raises:
        BadInput: an evaluation is not there, or two were not asked the same.
    """
    results = [ClassificationResult.read(classification_path(run, one)) for run, one in evaluations]
    if not results:
        raise BadInput("there is no evaluation to keep", where=name)
    first = results[0]
    session = evaluations[0][0].environment()[-1]
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "machine": machine_of(session),
        "asked": {
            "task_set": Path(first.task_set).name,
            "split": first.split,
            "tasks": len(first.tasks),
            "problems": len({task.problem for task in first.tasks}),
            "left_out": first.left_out,
            "tasks_sha256": first.tasks_sha256,
            "samples": first.samples,
            "temperature": first.temperature,
            "labels": list(first.labels),
            "notes": list(first.notes),
        },
        "models": {one.name: _rounded(_model(one)) for one in results},
        "differences": [
            _rounded(
                {
                    "before": before.name,
                    "after": after.name,
                    "one_sample": _triple(compare_classifiers(before, after)),
                    "majority": _triple(compare_classifiers(before, after, votes=2)),
                }
            )
            for before, after in pairwise(results)
        ],
        "training": {stage: _training(run) for stage, run in trainings.items()},
    }


def keep(folder: Path, kept: Mapping[str, Any]) -> Path:
    """Write a record into `folder`, under its name."""
    path = folder / f"{kept['name']}.json"
    write_atomically(path, json.dumps(kept, separators=(",", ":")) + "\n")
    return path


def table(kept: Mapping[str, Any]) -> str:
    """A record as Markdown."""
    asked = kept["asked"]
    lines = [
        f"## `{kept['name']}`",
        "",
        f"{asked['tasks']} tasks of {asked['problems']} problems ({asked['task_set']}, {asked['split']} split),"
        f" {asked['samples']} answers each at temperature {asked['temperature']}. Brackets: 95 % intervals by problem."
        + (f" {asked['left_out']} tasks were left out: their prompts are too long." if asked.get("left_out") else ""),
        "",
        *(f"**{note}**\n" if "NOTHING" in note else f"{note}\n" for note in asked["notes"]),
        "| | balanced accuracy | macro-F1 | MCC | evidence F1 | readable | calibration error |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    baselines: dict[str, Any] = {}
    for name, model in kept["models"].items():
        for who, scores in model["scores"].items():
            cells = [_cell(scores[key]) for key in ("balanced_accuracy", "macro_f1", "mcc")]
            if who in ("random", "majority class", "bag of words"):
                baselines[who] = [*cells, "", "", ""]
                continue
            single = who == "one sample"
            evidence = model["evidence"]
            cells += [_cell(evidence["f1"]) if single and evidence else "", _cell(model["readable"]) if single else ""]
            lines.append(f"| {name}, {who} | {' | '.join([*cells, '' if single else _cell(model['calibration'])])} |")
    lines += [f"| {who} | {' | '.join(cells)} |" for who, cells in baselines.items()]
    known = [model["evidence"] for model in kept["models"].values() if model["evidence"]]
    if known:
        lines.append(f"| citing every line | | | | {_cell(known[0]['every_line'])} | | |")
        lines.append(f"| one line at random | | | | {_cell(known[0]['random_line'])} | | |")
    lines += ["", "| balanced accuracy of the majority of | " + " | ".join(_ks(kept)) + " |"]
    lines.append("| --- |" + " --- |" * len(_ks(kept)))
    for name, model in kept["models"].items():
        for vote, by_k in model["curve"].items():
            lines.append(f"| {name}, {vote} | {' | '.join(_cell(by_k[k]) for k in _ks(kept))} |")
    lines += ["", *_pairs_table(kept), ""]
    for one in kept["differences"]:
        lines.append(
            f"{one['after']} against {one['before']}, balanced accuracy: one answer {_signed(one['one_sample'])}, "
            f"majority {_signed(one['majority'])}."
        )
    return "\n".join(lines) + "\n"


def _pairs_table(kept: Mapping[str, Any]) -> list[str]:
    """Outcomes over pairs and VD-S, one model a row."""
    pairs = {name: model["pairs"] for name, model in kept["models"].items()}
    with_pairs = {
        name: model for name, model in kept["models"].items() if "unreadable" in pairs[name].get("majority", ())
    }
    if not with_pairs:
        return []
    columns = [name.replace("_", " ") for name in PAIR_OUTCOMES]
    lines = [f"| pairs, majority | {' | '.join(columns)} | VD-S |", "| --- |" + " --- |" * (len(columns) + 1)]
    for name, model in with_pairs.items():
        outcomes = model["pairs"]["majority"]
        cells = [_cell(outcomes[key]) for key in PAIR_OUTCOMES]
        lines.append(f"| {name}, {outcomes['pairs']} pairs | {' | '.join(cells)} | {_cell(model['vd_s'])} |")
    return lines


def _model(result: ClassificationResult) -> dict[str, Any]:
    found = summarise(result)
    plain = found.to_json()
    scores = {
        name: {key: _triple(getattr(one, key)) for key in ("accuracy", "balanced_accuracy", "macro_f1", "mcc")}
        for name, one in found.scores.items()
    }
    evidence = found.evidence
    return {
        "scores": scores,
        "curve": {vote: {str(k): _triple(one) for k, one in by_k.items()} for vote, by_k in found.curve.items()},
        "pairs": {
            name: {key: _triple(one) for key, one in pairs.rates.items()} | {"pairs": pairs.pairs}
            for name, pairs in found.pairs.items()
        },
        "vd_s": _triple(found.vd_s) if found.vd_s else None,
        "evidence": {
            key: _triple(getattr(evidence, key))
            for key in ("precision", "recall", "f1", "corrected", "misquoted", "every_line", "random_line")
        }
        if evidence
        else None,
        "calibration": _triple(found.calibration.error),
        "uncalibrated": found.calibration.left_out,
        "confusion": plain["confusion"],
        "readable": _triple(found.readable),
        "errors": dict(found.errors),
    }


def _training(run: RunDir) -> dict[str, Any]:
    """Recipe, steps, minutes and the course of a stage."""
    rows = run.metrics()
    curve: dict[int, dict[str, float]] = {}
    for row in rows:
        seen = {name: round(row.values[name], 4) for name in _CURVES if name in row.values}
        if seen:
            curve.setdefault(row.step, {}).update(seen)
    recipe = run.recipe()
    return {
        "recipe": {key: recipe[key] for key in ("name", "seed", "reward", "sft", "grpo") if key in recipe},
        "steps": max((row.step for row in rows), default=0),
        "minutes": round(training_seconds(rows) / 60, 2),
        "curve": curve,
    }


def _triple(found: Any) -> list[float]:
    return [found.value, found.low, found.high]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None  # JSON has no word for others
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _ks(kept: Mapping[str, Any]) -> list[str]:
    first = next(iter(kept["models"].values()))
    return list(first["curve"]["majority"])


def _cell(bounds: Sequence[float | None]) -> str:
    value, low, high = bounds
    return "–" if value is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _signed(bounds: Sequence[float | None]) -> str:
    value, low, high = bounds
    return "–" if value is None else f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
