"""The stages of a journey, each a run of its own: warm start, reinforcement, evaluation.

A stage that is finished is not done again, and one that was cut short goes on where it stopped.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from code_repair_rl.errors import BadInput
from code_repair_rl.models import settled
from code_repair_rl.pipelines.judging import Validator
from code_repair_rl.pipelines.parts import (
    Loaded,
    agent_of,
    grader_of,
    load,
    require_parts,
    reward_of,
    training_tasks,
)
from code_repair_rl.recipes import Recipe
from code_repair_rl.runs import (
    FINISHED,
    STEP_SECONDS,
    CompositeListener,
    RunDir,
    RunListener,
    RunRecorder,
    training_seconds,
)

if TYPE_CHECKING:
    from code_repair_rl.training.sft import Example


def is_finished(run: RunDir) -> bool:
    """Whether a training stage has ended and left its model."""
    return (run.path / "model").is_dir() and any(session.get("status") == FINISHED for session in run.environment())


def run_sft(recipe: Recipe, folder: Path, listener: RunListener, *, validate_every: int = 0) -> Path:
    """Fine-tune the recipe's model on known-good edits, or on curated conversations.

    Args:
        folder: the stage's run directory.
        validate_every: steps between measurements on the validation split; the best weights are then the result.
            0: the last ones are.

    Returns:
        The folder of the resulting model.
    """
    recipe, run = _begun(recipe, folder, tasks=_learns_from_tasks(recipe), data=True)
    if is_finished(run):
        return run.path / "model"
    from code_repair_rl.training.sft import train_sft

    with _recorded(run, listener, recipe.sft.steps) as listener:
        loaded = _loaded(recipe)
        found = _sft_examples(recipe, loaded, listener)
        with grader_of(recipe.sandbox) as grader:
            validator = Validator(recipe, loaded.engine, grader, listener) if validate_every else None
            return train_sft(
                loaded.model,
                loaded.tokenizer,
                found,
                settings=recipe.sft,
                model_settings=recipe.model,
                seed=recipe.seed,
                run=run,
                listener=listener,
                validate=validator,
                validate_every=max(validate_every, 1),
                launch=recipe.launch,
            )


def _begun(recipe: Recipe, folder: Path, *, tasks: bool = True, data: bool = False) -> tuple[Recipe, RunDir]:
    """The recipe with the precision chosen, and the stage's run; of several processes the first one makes both.

    Args:
        tasks: whether they are needed; so for `data`, which is the recipe's `sft.data`.
    """

    def make() -> tuple[Recipe, RunDir]:
        if not (folder / "recipe.yaml").exists():
            require_parts(recipe, tasks=tasks, data=data)
        chosen = settled(recipe, folder)
        return chosen, RunDir.create(folder, chosen.model_dump(mode="json"), resume=True)

    if recipe.launch.kind == "single":
        return make()
    from code_repair_rl.training import launch, together

    launch.join(recipe.launch)
    return together.on_first(make)


def _loaded(recipe: Recipe, *, served: bool = False) -> Loaded:
    """The recipe's model as this process of the job will hold it; `served` as in `load`."""
    if recipe.launch.kind == "single":
        return load(recipe, served=served)
    from code_repair_rl.training import launch

    with launch.loading(recipe.launch, recipe.model):
        return load(recipe, served=served)


def _learns_from_tasks(recipe: Recipe) -> bool:
    """Whether fine-tuning takes the known-good edits of tasks."""
    return recipe.sft.data is None or recipe.sft.with_known_good


def _sft_examples(recipe: Recipe, loaded: Loaded, listener: RunListener) -> list[Example]:
    """What there is to learn: known-good edits, curated conversations, or both."""
    from code_repair_rl.training.curated import curated_examples
    from code_repair_rl.training.sft import examples

    section = recipe.sft
    found = curated_examples(Path(section.data), loaded.tokenizer) if section.data is not None else []
    if _learns_from_tasks(recipe):
        tasks = training_tasks(recipe, loaded.engine, listener)
        found += examples(tasks, loaded.engine.encode, loaded.tokenizer, recipe.tasks.hint)
    return found


def run_grpo(recipe: Recipe, folder: Path, listener: RunListener) -> Path:
    """Train the recipe's model with GRPO, rewarded by the tests.

    Returns:
        The folder of the resulting model: the best one by validation.
    """
    if recipe.launch.vllm is not None and not is_finished(RunDir(folder.absolute())):
        from code_repair_rl.training.push import require_sender

        require_sender()
    recipe, run = _begun(recipe, folder)
    if is_finished(run):
        return run.path / "model"
    from code_repair_rl.training.collect import Collector
    from code_repair_rl.training.grpo import train_grpo
    from code_repair_rl.training.task_stream import TaskStream

    settings = recipe.grpo
    with _recorded(run, listener, settings.steps) as listener, grader_of(recipe.sandbox) as grader:
        loaded = _loaded(recipe, served=True)
        collector = Collector(
            engine=loaded.engine,
            grader=grader,
            reward=reward_of(recipe),
            stream=TaskStream(
                training_tasks(recipe, loaded.engine, listener),
                recipe.seed,
                settings.difficulty,
                shuffled=recipe.tasks.order == "shuffled",
            ),
            settings=settings,
            hint=recipe.tasks.hint,
            seed=recipe.seed,
            run=run,
            listener=listener,
            agent=agent_of(recipe.agent),
        )
        return train_grpo(
            loaded.model,
            loaded.tokenizer,
            collector,
            settings=settings,
            model_settings=recipe.model,
            seed=recipe.seed,
            run=run,
            listener=listener,
            validate=Validator(recipe, loaded.engine, grader, listener) if settings.validation_tasks else None,
            launch=recipe.launch,
        )


def control_recipe(recipe: Recipe, sft_model: Path, sft_run: RunDir, grpo_run: RunDir) -> Recipe:
    """SFT that goes on for as long as GRPO trained: what the same time would have given without reinforcement.

    Raises:
        BadInput: one of the runs has recorded no training time.
    """
    return longer_sft(recipe, sft_model, sft_run, training_seconds(grpo_run.metrics()))


def longer_sft(recipe: Recipe, sft_model: Path, sft_run: RunDir, budget_seconds: float) -> Recipe:
    """SFT that goes on from `sft_model` for so many seconds of training.

    Raises:
        BadInput: no time to train, or the first SFT has recorded none.
    """
    # The time budget ends it; the steps only have to reach past that.
    steps = 10 + math.ceil(1.5 * _steps_in(budget_seconds, sft_run))
    settings = recipe.sft.model_copy(
        update={"steps": steps, "max_minutes": budget_seconds / 60, "warmup_steps": recipe.grpo.warmup_steps}
    )
    model = recipe.model.model_copy(update={"name": str(sft_model)})
    # Another seed: the order must not repeat the one of the warm start.
    return recipe.model_copy(update={"model": model, "sft": settings, "seed": recipe.seed + 1_000_003})


def control_validates_every(recipe: Recipe, sft_run: RunDir, grpo_run: RunDir) -> int:
    """Steps between measurements of the control, so that it is looked at as often as GRPO was; 0 where that was not."""
    from code_repair_rl.training.callbacks import VALIDATION

    times = sum(VALIDATION in row.values and row.step > 0 for row in grpo_run.metrics())
    if not times or not recipe.grpo.validation_tasks:
        return 0
    return max(1, math.floor(_steps_in(training_seconds(grpo_run.metrics()), sft_run) / times))


def _steps_in(seconds: float, sft_run: RunDir) -> float:
    step_seconds = [row.values[STEP_SECONDS] for row in sft_run.metrics() if STEP_SECONDS in row.values]
    if not seconds or not step_seconds:
        raise BadInput("a compute-matched control needs a finished SFT run and a time", where=str(sft_run.path))
    return seconds / statistics.median(step_seconds)


def starting_from(recipe: Recipe, model: Path) -> Recipe:
    """The recipe with another model to start from."""
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"name": str(model)})})


@contextmanager
def _recorded(run: RunDir, listener: RunListener, steps: int) -> Iterator[RunListener]:
    """Hold the run, record it, and tell how it ended; of several processes the first one does."""
    if os.environ.get("RANK", "0") != "0":
        yield CompositeListener()
        return
    everyone = CompositeListener(RunRecorder(), listener)
    with run.exclusively():
        everyone.on_start(run, steps)
        try:
            yield everyone
        except KeyboardInterrupt:
            everyone.on_end("interrupted")
            raise
        except BaseException:
            everyone.on_end("failed")
            raise
        everyone.on_end(FINISHED)
