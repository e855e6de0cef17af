"""The whole journey: base model, warm start, reinforcement, a fair control, and what the comparison shows.

Every stage is a run directory of its own below the journey's, and is skipped where it is finished already, so that a
journey that was interrupted goes on when it is started again.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from code_repair_rl.errors import BadInput
from code_repair_rl.models import EMBEDDED_MODEL, embedded_model_folder, fetch_embedded_model, release_memory, settled
from code_repair_rl.pipelines.forgetting import measured_once
from code_repair_rl.pipelines.judging import run_evaluation
from code_repair_rl.pipelines.parts import require_parts
from code_repair_rl.pipelines.stages import (
    control_recipe,
    control_validates_every,
    is_finished,
    run_grpo,
    run_sft,
    starting_from,
)
from code_repair_rl.recipes import Recipe
from code_repair_rl.runs import FINISHED, RunDir, RunListener, changed_keys
from code_repair_rl.tasks import load_tasks

if TYPE_CHECKING:
    from code_repair_rl.evaluation import Comparison, EvalResult, Progress

_DECIDES_THE_BASE = ("model", "tasks", "evaluation", "agent", "sandbox", "threads", "launch")
"""The parts of a recipe on which the base model's answers depend."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage, as it is announced."""

    name: str
    """`sft`, `eval grpo` …"""
    title: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a journey found."""

    results: dict[str, EvalResult]
    """`base`, where it was judged, `sft`, `grpo` and, where it was trained, `control`, in this order."""
    comparisons: list[Comparison]
    """What reinforcement changed: against SFT, and against the control."""
    report: Path


class Watcher:
    """Told of the stages of a journey; makes the listener of each. Override what you care about."""

    def stage(self, stage: Stage) -> RunListener:
        """A stage begins; the listener is told of all within it."""
        from code_repair_rl.runs import SilentListener

        return SilentListener()

    def built(self, step: str, done: int, total: int) -> None:
        """A step of building the tasks has got this far."""

    def evaluated(self, progress: Progress) -> None:
        """An evaluation has got this far."""


def run_journey(
    recipe: Recipe,
    folder: Path,
    watcher: Watcher,
    *,
    base_of: Path | None = None,
    warm_start_of: Path | None = None,
) -> Outcome:
    """Do what of the journey is not done yet, and report.

    Args:
        recipe: of all stages.
        folder: the journey's run directory.
        watcher: told of every stage.
        base_of: a journey (of another training seed) that has asked the same base model the same tasks already: its
            answers are taken over.
        warm_start_of: a journey whose fine-tuned model, with all that was found about it, is taken over as well: what
            the seeds of reinforcement then differ by is reinforcement alone. Where that journey's models gave single
            answers and an agent works in this one, only the fine-tuned model is taken over, it is judged with the
            agent, and the base model is not judged.

    Raises:
        BadInput: `folder` holds a journey of another recipe, or the other journey asked or taught something else.
        MachineryFailed: something of ours failed; run again to go on.
    """
    from code_repair_rl.evaluation import compare
    from code_repair_rl.reporting import write_report

    recipe = settled(recipe, folder)
    taken_over = require_possible(recipe, folder, base_of, warm_start_of)
    prepare(recipe, watcher)
    run = RunDir.create(folder, recipe.model_dump(mode="json"), resume=True)
    if taken_over.base_of is not None and _has_base(taken_over.base_of):
        run.adopt_samples("base", taken_over.base_of)
    if taken_over.warm_start_of is not None:
        run.adopt_stage("sft", taken_over.warm_start_of, judged=taken_over.base_of is not None)
    results = {}
    if run.adopted("sft") is None or _has_base(run):
        results["base"] = _evaluated(recipe, "base", run, watcher)

    sft_folder, grpo_folder, control_folder = (run.path / name for name in ("sft", "grpo", "control"))
    if run.adopted("sft") is None:
        sft = run_sft(recipe, sft_folder, watcher.stage(Stage("sft", "Warm start on known-good edits (SFT)")))
        release_memory()
    else:
        sft = sft_folder / "model"
    results["sft"] = _evaluated(starting_from(recipe, sft), "sft", run, watcher)

    grpo_recipe = starting_from(recipe, sft)
    grpo = run_grpo(grpo_recipe, grpo_folder, watcher.stage(Stage("grpo", "Reinforcement by tests (GRPO)")))
    release_memory()
    results["grpo"] = _evaluated(starting_from(recipe, grpo), "grpo", run, watcher)

    stages = [run.path, sft_folder, grpo_folder]
    if recipe.control:
        more = control_recipe(recipe, sft, RunDir.open(sft_folder), RunDir.open(grpo_folder))
        title = "Control: the time of GRPO spent on more SFT"
        every = control_validates_every(recipe, RunDir.open(sft_folder), RunDir.open(grpo_folder))
        control = run_sft(more, control_folder, watcher.stage(Stage("control", title)), validate_every=every)
        release_memory()
        results["control"] = _evaluated(starting_from(recipe, control), "control", run, watcher)
        stages.append(control_folder)

    rivals = [name for name in ("sft", "control") if name in results]
    comparisons = [compare(results[rival], results["grpo"]) for rival in rivals]
    watcher.stage(Stage("report", "Report"))
    run.record_end(FINISHED)
    return Outcome(results, comparisons, write_report(stages, run.report_path))


@dataclass(frozen=True, slots=True)
class TakenOver:
    """The runs that a journey still has to take something over from."""

    base_of: RunDir | None = None
    """For the base model's answers; and, with a warm start, for what the fine-tuned model was found to be."""
    warm_start_of: RunDir | None = None


def require_possible(
    recipe: Recipe, folder: Path, base_of: Path | None, warm_start_of: Path | None, *, fresh: bool = False
) -> TakenOver:
    """See that the journey of `recipe` in `folder` can be made, and can take over what it is told to; what it has
    already it keeps.

    Args:
        recipe: of the journey to come.
        folder: where that lies, or will lie.
        base_of: see `run_journey`; so for `warm_start_of`, which gives the base's answers as well.
        fresh: what lies in `folder` will be removed first.

    Raises:
        BadInput: the recipe's reward, agent or data is none; or the other run asked or taught something else or is not
            done, or `folder` has a warm start of its own.
    """
    there = not fresh and (folder / "recipe.yaml").is_file()
    require_parts(recipe, tasks=False, data=not there and warm_start_of is None)
    mine = RunDir.open(folder) if there else None
    if warm_start_of is None:
        asked_already = mine is not None and mine.eval_samples_path("base").is_dir()
        return TakenOver(None if base_of is None or asked_already else _of_same_base(recipe, folder, base_of))
    known = None if mine is None else mine.adopted("sft")
    if known is None and mine is not None and (folder / "sft").exists():
        raise BadInput(
            "this journey has a warm start of its own", where=str(folder / "sft"), mend="name another folder for it"
        )
    if known is not None and known != str(warm_start_of.resolve()):
        raise BadInput(f"this journey's warm start is that of {known}", where=str(folder), mend="name that run")
    if mine is not None and known is not None and "sft" in mine.eval_names():
        return TakenOver()  # all is here: the base's answers came before
    other = _of_same_base(recipe, folder, warm_start_of, sft_too=True)
    return TakenOver(other if other.recipe().get("agent") == recipe.model_dump(mode="json")["agent"] else None, other)


def _of_same_base(recipe: Recipe, folder: Path, other: Path, *, sft_too: bool = False) -> RunDir:
    """The journey in `other`, if it has asked the base model what `recipe` asks it.

    With `sft_too`, also if it has fine-tuned as `recipe` does, and judged the result.

    Raises:
        BadInput: it has not, or one of the folders lies in the other.
    """
    decides = {*_DECIDES_THE_BASE, *(["sft"] if sft_too else [])}
    here, there = folder.resolve(), other.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise BadInput("a run cannot take over its own evaluation", where=str(other), mend="name another run")
    run = RunDir.open(other)
    if sft_too and run.recipe().get("agent") is None:
        decides.remove("agent")  # a model that was taught single answers may go on with an agent
    asked, was_asked = (
        {key: one.get(key) for key in decides} for one in (recipe.model_dump(mode="json"), run.recipe())
    )
    if changed := changed_keys(asked, was_asked):
        raise BadInput(
            f"that run judged or taught its model otherwise; different: {', '.join(changed)}",
            where=str(run.recipe_path),
            mend="name a run of the same recipe, or take nothing over",
        )
    if not _has_base(run) and run.adopted("sft") is None:
        raise BadInput("that run has not asked its base model", where=str(other), mend="let it go on")
    if sft_too and not (is_finished(RunDir.open(other / "sft")) and "sft" in run.eval_names()):
        raise BadInput(
            "that run has not finished and judged its fine-tuning", where=str(other / "sft"), mend="let it go on"
        )
    return run


def _has_base(run: RunDir) -> bool:
    return run.eval_samples_path("base").is_dir()


def start_anew(folder: Path) -> None:
    """Remove a journey.

    Raises:
        BadInput: `folder` is something else, which is left alone.
    """
    if not folder.exists():
        return
    if not (folder / "recipe.yaml").is_file():
        raise BadInput("this is not a run directory, so it is not removed", where=str(folder), mend="name another one")
    shutil.rmtree(folder)


def prepare(recipe: Recipe, watcher: Watcher) -> None:
    """Fetch the model and make the tasks, unless that was done."""
    if recipe.model.name == EMBEDDED_MODEL and embedded_model_folder() is None:
        watcher.stage(Stage("model", "Fetching the model"))
        fetch_embedded_model()
    try:
        load_tasks(recipe.tasks.name, limit=1)
    except BadInput:
        if Path(recipe.tasks.name).suffix:  # a file of the user's: nothing that we could build
            raise
        from code_repair_rl.synthesis import build_set

        watcher.stage(Stage("tasks", "Making the tasks"))
        build_set(
            recipe.tasks.name,
            backend=recipe.sandbox.backend,
            workers=recipe.sandbox.workers,
            progress=watcher.built,
        )


def _evaluated(recipe: Recipe, name: str, run: RunDir, watcher: Watcher) -> EvalResult:
    listener = watcher.stage(Stage(f"eval {name}", f"Evaluation: {name}"))
    result = run_evaluation(recipe, name, run, listener, watcher.evaluated)
    release_memory()
    taken_over = ("base", "sft") if run.adopted("sft") is not None else ()  # the other run knows what those forgot
    if recipe.evaluation.forgetting_tasks and name not in taken_over:
        watcher.stage(Stage(f"forgetting {name}", f"What was forgotten: {name}"))
        measured_once(recipe, name, run)
        release_memory()
    return result
