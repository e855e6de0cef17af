"""What a journey leaves for good: a small JSON file for each recipe and seed, under `docs/results/` and committed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation import Comparison, Estimate, EvalResult, at_equal_tokens, compare, summary
from code_repair_rl.evaluation.equal_tokens import can_be_compared
from code_repair_rl.home import write_atomically
from code_repair_rl.pipelines.forgetting import kept_path
from code_repair_rl.runs import RunDir, changed_keys, training_seconds

ORDER = ("base", "sft", "control", "grpo")
"""The models of a journey, as tables list them."""

RIVALS = ("sft", "control")
"""What `grpo` is compared with."""

SCHEMA_VERSION = 1


def record(run: RunDir) -> dict[str, Any]:
    """What is worth keeping of a finished journey.

    Raises:
        BadInput: the run has not judged the model that it is about.
    """
    results = {name: EvalResult.read(run.eval_path(name)) for name in ORDER if name in run.eval_names()}
    last = results.get("grpo")
    if last is None:
        raise BadInput("this journey is not finished", where=str(run.path), mend="start it again: it goes on")
    folders = {stage: run.path / stage for stage in ("sft", "grpo", "control")}
    session = RunDir.open(folders["grpo"]).environment()[-1]
    forgotten = {name: kept_path(run, name) for name in results}
    return {
        "schema_version": SCHEMA_VERSION,
        "recipe": run.recipe(),
        "warm_start_of": Path(adopted).name if (adopted := run.adopted("sft")) else None,
        "machine": machine_of(session),
        "asked": {
            key: getattr(last, key)
            for key in ("task_set", "split", "tasks_sha256", "hint", "samples", "temperature", "isolation")
        },
        "problems": [task.problem for task in last.tasks],
        "models": {name: _model(result) for name, result in results.items()},
        "differences": [_difference(compare(results[name], last)) for name in RIVALS if name in results],
        "at_equal_tokens": _against_single_answers(run, results),
        "forgetting": {
            name: {key: round(one, 4) for key, one in json.loads(path.read_text("utf-8")).items()}
            for name, path in forgotten.items()
            if path.is_file()
        },
        "training": {
            stage: _training(RunDir.open(folder))
            for stage, folder in folders.items()
            if (folder / "recipe.yaml").is_file()
        },
    }


def _against_single_answers(run: RunDir, results: Mapping[str, EvalResult]) -> list[dict[str, Any]]:
    """An agent's models against single answers of the run that its warm start is of, as far as they can be compared."""
    adopted = run.adopted("sft")
    if adopted is None or not results["grpo"].agent or not (Path(adopted) / "recipe.yaml").is_file():
        return []
    other = RunDir.open(adopted)
    found = []
    for mine, theirs in (("sft", "sft"), ("grpo", "sft"), ("grpo", "grpo"), ("grpo", "control")):
        if mine not in results or theirs not in other.eval_names():
            continue
        single = EvalResult.read(other.eval_path(theirs))
        if can_be_compared(results[mine], single):
            compared = at_equal_tokens(results[mine], single)
            figures = {key: bounds(getattr(compared, key)) for key in ("agent", "rival", "difference", "best_of")}
            apart = [round(one, 4) for one in compared.apart]
            tokens = {key: round(getattr(compared, key), 1) for key in ("tokens", "agent_tokens", "answers")}
            found.append({"agent_of": mine, "single_of": theirs, **figures, **tokens, "apart": apart})
    return found


def machine_of(session: Mapping[str, Any]) -> dict[str, Any]:
    """What a record keeps of the environment that a run was started in."""
    return {key: session.get(key) for key in ("git", "processor", "cores", "gpus", "python", "libraries")}


def keep(run: RunDir, folder: Path) -> Path:
    """Write a journey's record into `folder`, under its recipe's name and seed.

    Raises:
        BadInput: as for `record`; or another recipe's record of that name and seed is there.
    """
    kept = record(run)
    path = folder / f"{kept['recipe']['name']}-seed{kept['recipe']['seed']}.json"
    if path.is_file() and (
        changed := changed_keys(settings_of(json.loads(path.read_text("utf-8"))), settings_of(kept))
    ):
        raise BadInput(
            f"a record of other settings is there, which would be lost; different: {', '.join(changed)}",
            where=str(path),
            mend="run another seed, or move the record away",
        )
    write_atomically(path, json.dumps(kept, separators=(",", ":")) + "\n")
    return path


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records in a folder, by recipe and seed.

    Raises:
        BadInput: a file is no record.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema version {kept['schema_version']}")
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"this is no record of a run ({error})", where=str(path), mend="delete it") from error
        found.append(kept)
    return sorted(found, key=lambda kept: (kept["recipe"]["name"], kept["recipe"]["seed"]))


def settings_of(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without what may differ between seeds that are looked at together."""
    found = {key: value for key, value in kept["recipe"].items() if key not in ("seed", "threads", "description")}
    if "evaluation" in found:  # what else was measured changes no figure
        found["evaluation"] = {key: value for key, value in found["evaluation"].items() if key != "forgetting_tasks"}
    return found


def _model(result: EvalResult) -> dict[str, Any]:
    found = summary(result)
    return {
        "passed": [task.passed for task in result.tasks],
        "graded": [task.graded for task in result.tasks],
        "pass_at": {str(k): bounds(estimate) for k, estimate in found.pass_at.items()},
        "pass_within": {str(k): bounds(estimate) for k, estimate in found.pass_within.items()},
        "format": bounds(found.format_rate),
        "apply": bounds(found.apply_rate),
        "outcomes": dict(found.outcomes),
        "mean_tokens": round(found.mean_tokens, 2),
        "no_verdict": found.no_verdict,
        "wall_seconds": result.wall_seconds,
    }


def _difference(found: Comparison) -> dict[str, Any]:
    return {
        "before": found.before,
        "after": found.after,
        "gained": len(found.gained),
        "lost": len(found.lost),
        "pass_at": {
            str(k): {"estimate": bounds(one.estimate), "smallest_detectable": round(one.smallest_detectable, 4)}
            for k, one in found.pass_at.items()
        },
    }


def _training(run: RunDir) -> dict[str, Any]:
    """Steps, minutes and the curve of a stage."""
    wanted = ("pass_rate", "reward/total", "validation/pass_rate", "train/loss", "train/entropy", "train/kl")
    curve: dict[int, dict[str, float]] = {}
    for row in run.metrics():
        seen = {name: round(row.values[name], 4) for name in wanted if name in row.values}
        curve.setdefault(row.step, {}).update(seen)
    minutes = round(training_seconds(run.metrics()) / 60, 2)
    return {"steps": max(curve, default=0), "minutes": minutes, "curve": curve}


def bounds(estimate: Estimate) -> list[float]:
    """Value, low, high."""
    plain = asdict(estimate)
    return [round(plain[key], 4) for key in ("value", "low", "high")]
