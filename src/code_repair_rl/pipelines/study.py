"""The study: does reward from tests teach more than reward from text, and more than the same time of fine-tuning?

One unit is one (recipe, seed): a model trained for the recipe's minutes from a warm start that all units of a seed
share, judged on the test split, kept as a small JSON file. Units can be run in any order, on any day, and are skipped
where they are finished; the page merges what is there.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from code_repair_rl.models import release_memory
from code_repair_rl.pipelines.forgetting import Forgetting, measured_once
from code_repair_rl.pipelines.journey import Stage, Watcher, prepare
from code_repair_rl.pipelines.judging import evaluation_tasks, run_evaluation
from code_repair_rl.pipelines.results import keep
from code_repair_rl.pipelines.stages import longer_sft, run_grpo, run_sft, starting_from
from code_repair_rl.recipes import Recipe
from code_repair_rl.runs import RunDir

UNITS = ("sft-longer", "tests-only", "similarity-only", "tests-and-gain")
"""Shipped as recipes `study/…`."""


def run_unit(recipe: Recipe, folder: Path, results: Path, watcher: Watcher) -> Path:
    """Train and judge one unit, going on where it was left.

    Args:
        recipe: of the unit; with `control` it is the one that fine-tunes longer instead of reinforcing.
        folder: of the whole study; the warm start lies beside the units.
        results: where the record goes.

    Returns:
        The record's path.

    Raises:
        BadInput: `folder` holds the same unit or warm start of another recipe.
    """
    unit = RunDir.create(folder / f"{recipe.name}-seed{recipe.seed}", recipe.model_dump(mode="json"), resume=True)
    prepare(recipe, watcher)
    warm_start = warm_start_of(recipe)
    warm_folder = folder / f"{warm_start.name}-seed{recipe.seed}"
    sft = run_sft(warm_start, warm_folder, watcher.stage(Stage("sft", "Warm start, shared by the units of this seed")))
    release_memory()
    judged = starting_from(warm_start, sft)
    listener = watcher.stage(Stage("eval sft", "Evaluation: sft"))
    unit.write_eval(
        "sft", run_evaluation(judged, "sft", RunDir.open(warm_folder), listener, watcher.evaluated).to_json()
    )
    release_memory()
    name = "control" if recipe.control else "grpo"
    listener = watcher.stage(Stage(name, recipe.description))
    if recipe.control:
        times = max(1, recipe.grpo.steps // recipe.grpo.validate_every)
        budget_seconds = 60 * (recipe.grpo.max_minutes or 0.0)
        more = longer_sft(recipe, sft, RunDir.open(warm_folder), budget_seconds)
        trained = run_sft(more, unit.path / name, listener, validated_times=times)
    else:
        trained = run_grpo(starting_from(recipe, sft), unit.path / name, listener)
    release_memory()
    listener = watcher.stage(Stage(f"eval {name}", f"Evaluation: {name}"))
    run_evaluation(starting_from(recipe, trained), name, unit, listener, watcher.evaluated)
    release_memory()
    forgotten: dict[str, Forgetting] = {}
    if recipe.evaluation.forgetting_tasks:
        watcher.stage(Stage("forgetting", "What was forgotten: correct code, ordinary coding"))
        tasks = evaluation_tasks(recipe)[: recipe.evaluation.forgetting_tasks]
        forgotten["base"] = measured_once(recipe, "base", RunDir.open(warm_folder), tasks)
        forgotten["sft"] = measured_once(judged, "sft", RunDir.open(warm_folder), tasks)
        forgotten[name] = measured_once(starting_from(recipe, trained), name, unit, tasks)
        release_memory()
    return keep(unit, results, {"sft": warm_folder}, {model: asdict(one) for model, one in forgotten.items()})


def warm_start_of(recipe: Recipe) -> Recipe:
    """What all units of a seed begin with: the same whatever the unit's reward."""
    plain = {"reward": {}, "study": False, "control": False, "name": "study-warm-start", "description": "Shared SFT."}
    return recipe.model_copy(update=plain)
