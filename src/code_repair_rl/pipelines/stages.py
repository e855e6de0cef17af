"""The stages of a journey, each a run of its own: warm start, reinforcement, evaluation.

A stage that is finished is not done again, and one that was cut short goes on where it stopped.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from code_repair_rl.errors import BadInput
from code_repair_rl.grading import Grader
from code_repair_rl.recipes import AgentSection, Recipe
from code_repair_rl.rewards import Reward, RewardWeights
from code_repair_rl.rollouts import Engine, Sampling
from code_repair_rl.rollouts.agent import Agent
from code_repair_rl.rollouts.ask import ask, derived_seed, fitting
from code_repair_rl.runs import CompositeListener, RunDir, RunListener, RunRecorder
from code_repair_rl.tasks import Split, Task
from code_repair_rl.tasks.classification import is_classification, load_as_asked
from code_repair_rl.tasks.difficulty import PassRate, easiest_first, hardest_first, pass_rates, within
from code_repair_rl.tasks.draw import draw

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from code_repair_rl.evaluation import EvalResult, Progress
    from code_repair_rl.rollouts.local import LocalEngine
    from code_repair_rl.rollouts.vllm import VllmEngine
    from code_repair_rl.training.sft import Example

FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to be sampled from and trained."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    engine: LocalEngine | VllmEngine


def load(recipe: Recipe) -> Loaded:
    """The recipe's model, its tokenizer, and an engine that samples from these very weights."""
    from code_repair_rl.models import load_model, load_tokenizer, settle_process
    from code_repair_rl.rollouts.local import LocalEngine
    from code_repair_rl.rollouts.vllm import VllmEngine

    settle_process(recipe.threads)
    tokenizer = load_tokenizer(recipe.model.name)
    model = load_model(recipe.model.name, trainable=True)
    if recipe.launch.vllm is not None:
        return Loaded(model, tokenizer, VllmEngine(recipe.launch.vllm, tokenizer))
    copy_dtype = None if recipe.model.autocast == "none" else recipe.model.autocast
    return Loaded(model, tokenizer, LocalEngine(model, tokenizer, copy_dtype=copy_dtype))


def training_tasks(recipe: Recipe, engine: Engine, listener: RunListener | None = None) -> list[Task]:
    """The tasks of the train split that fit into the recipe's prompt budget and its range of pass rates, in its order.

    Args:
        listener: told how many are used, and how many prompts are too long (`tasks/used`, `tasks/too_long`).

    Raises:
        BadInput: none fits, or the pass rates of the recipe's model were not recorded.
    """
    rates = _rates(recipe)
    every = load_as_asked(recipe.tasks.name, recipe.tasks.labels, split=Split.TRAIN)
    low, high = recipe.tasks.pass_rates
    rated = within(every, rates, lowest=low, highest=high) if (low, high) != (0.0, 1.0) else every
    found = draw(rated, recipe.tasks.limit, recipe.seed)
    if not found:
        raise BadInput(
            f"none of the {len(every)} training tasks has a pass rate of {recipe.tasks.rated_by} in [{low}, {high}]"
            if every
            else "the set has no training tasks",
            where="tasks",
            mend="widen tasks.pass_rates, or record more with `crrl tasks difficulty`" if every else None,
        )
    ordered = {"easiest-first": easiest_first, "hardest-first": hardest_first}.get(recipe.tasks.order)
    found = ordered(found, rates) if ordered is not None else found
    kept, left_out = fitting(found, engine, recipe.tasks.hint, recipe.tasks.max_prompt_tokens)
    if not kept:
        raise BadInput(
            f"all {left_out} training tasks have prompts of more than {recipe.tasks.max_prompt_tokens} tokens",
            where="tasks.max_prompt_tokens",
            mend="raise it",
        )
    if listener is not None:
        listener.on_metrics(0, {"tasks/used": len(kept), "tasks/too_long": left_out})
    return kept


def _rates(recipe: Recipe) -> Mapping[str, PassRate]:
    """The recorded pass rates by which the recipe chooses and orders tasks; none where it does not.

    Raises:
        BadInput: none were recorded for its model and hint level.
    """
    name = recipe.tasks.rated_by
    if name is None:
        return {}
    rates = pass_rates(name, recipe.tasks.hint)
    if not rates:
        raise BadInput(
            f"no pass rates of {name} with the hint {recipe.tasks.hint} were recorded",
            where="tasks.rated_by",
            mend="evaluate the model on the train split and run `crrl tasks difficulty EVALUATION`",
        )
    return rates


def evaluation_tasks(recipe: Recipe) -> list[Task]:
    """The tasks on which the recipe's models are judged: the same for every model and training seed."""
    section = recipe.evaluation
    found = load_as_asked(recipe.tasks.name, recipe.tasks.labels, split=Split(section.split))
    return draw(found, section.tasks, section.seed)


def agent_of(section: AgentSection | None) -> Agent | None:
    """Who works on tasks in a recipe with this section; None where the model is asked for single answers.

    Raises:
        BadInput: an adapter is named that is not there.
    """
    from code_repair_rl.rollouts.agent_programs import program_named
    from code_repair_rl.rollouts.repair_loop import RepairLoop

    if section is None:
        return None
    if section.name == "repair-loop":
        return RepairLoop(section.max_turns, section.undo, section.max_feedback_characters)
    from code_repair_rl.rollouts.jailed_agent import JailedAgent

    return JailedAgent(
        program_named(section.name),
        max_turns=section.max_turns,
        deadline_seconds=section.deadline_seconds,
        context_tokens=section.context_tokens,
        concurrency=section.at_once,
    )


def grader_of(recipe: Recipe) -> Grader:
    """The grader that the recipe asks for."""
    if recipe.sandbox.ray is not None:
        from code_repair_rl.grading.ray_grader import RayGrader

        return RayGrader(recipe.sandbox.ray, recipe.sandbox.backend, recipe.sandbox.workers)
    return Grader(backend=recipe.sandbox.backend, workers=recipe.sandbox.workers)


def is_finished(run: RunDir) -> bool:
    """Whether a training stage has ended and left its model."""
    return (run.path / "model").is_dir() and any(session.get("status") == FINISHED for session in run.environment())


def run_sft(recipe: Recipe, folder: Path, listener: RunListener, *, validated_times: int = 0) -> Path:
    """Fine-tune the recipe's model on known-good edits, or on curated conversations.

    Args:
        folder: the stage's run directory.
        validated_times: how often to measure on the validation split over the whole training; the best weights are
            then the result. 0: the last ones are.

    Returns:
        The folder of the resulting model.
    """
    run = _begun(recipe, folder)
    if is_finished(run):
        return run.path / "model"
    from code_repair_rl.training.sft import train_sft

    with _recorded(run, listener, recipe.sft.steps) as listener:
        loaded = load(recipe)
        found = _sft_examples(recipe, loaded, listener)
        with grader_of(recipe) as grader:
            validator = Validator(recipe, loaded.engine, grader, listener) if validated_times else None
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
                validate_every=math.ceil(recipe.sft.steps / max(validated_times, 1)),
                launch=recipe.launch,
            )


def _begun(recipe: Recipe, folder: Path) -> RunDir:
    """The stage's run; of several processes the first one makes it."""

    def make() -> RunDir:
        return RunDir.create(folder, recipe.model_dump(mode="json"), resume=True)

    if recipe.launch.kind == "single":
        return make()
    from code_repair_rl.training import launch, together

    launch.join(recipe.launch)
    return together.on_first(make)


def _sft_examples(recipe: Recipe, loaded: Loaded, listener: RunListener) -> list[Example]:
    """What there is to learn: known-good edits, curated conversations, or both."""
    from code_repair_rl.training.curated import curated_examples
    from code_repair_rl.training.sft import examples

    section = recipe.sft
    found = curated_examples(Path(section.data), loaded.tokenizer) if section.data is not None else []
    if section.data is None or section.with_known_good:
        tasks = training_tasks(recipe, loaded.engine, listener)
        found += examples(tasks, loaded.engine.encode, loaded.tokenizer, recipe.tasks.hint)
    return found


def run_grpo(recipe: Recipe, folder: Path, listener: RunListener) -> Path:
    """Train the recipe's model with GRPO, rewarded by the tests.

    Returns:
        The folder of the resulting model: the best one by validation.
    """
    run = _begun(recipe, folder)
    if is_finished(run):
        return run.path / "model"
    from code_repair_rl.training.collect import Collector
    from code_repair_rl.training.grpo import train_grpo
    from code_repair_rl.training.task_stream import TaskStream

    settings = recipe.grpo
    with _recorded(run, listener, settings.steps) as listener, grader_of(recipe) as grader:
        loaded = load(recipe)
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
    from code_repair_rl.training.callbacks import training_seconds

    return longer_sft(recipe, sft_model, sft_run, training_seconds(grpo_run))


def longer_sft(recipe: Recipe, sft_model: Path, sft_run: RunDir, budget_seconds: float) -> Recipe:
    """SFT that goes on from `sft_model` for so many seconds of training.

    Raises:
        BadInput: no time to train, or the first SFT has recorded none.
    """
    from code_repair_rl.training.callbacks import STEP_SECONDS

    step_seconds = [row.values[STEP_SECONDS] for row in sft_run.metrics() if STEP_SECONDS in row.values]
    if not budget_seconds or not step_seconds:
        raise BadInput("a compute-matched control needs a finished SFT run and a time", where=str(sft_run.path))
    # The time budget ends it; the steps only have to reach past that.
    steps = 10 + math.ceil(1.5 * budget_seconds / statistics.median(step_seconds))
    settings = recipe.sft.model_copy(
        update={"steps": steps, "max_minutes": budget_seconds / 60, "warmup_steps": recipe.grpo.warmup_steps}
    )
    model = recipe.model.model_copy(update={"name": str(sft_model)})
    # Another seed: the order must not repeat the one of the warm start.
    return recipe.model_copy(update={"model": model, "sft": settings, "seed": recipe.seed + 1_000_003})


def starting_from(recipe: Recipe, model: Path) -> Recipe:
    """The recipe with another model to start from."""
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"name": str(model)})})


def reward_of(recipe: Recipe) -> Reward:
    """The reward that the recipe's weights make.

    Raises:
        BadInput: an unknown term, or weights that break the rule that passing outranks failing outside a study.
    """
    return Reward(RewardWeights.from_recipe({**recipe.reward, "study": recipe.study}))


def run_evaluation(
    recipe: Recipe, name: str, run: RunDir, listener: RunListener, on_batch: Callable[[Progress], None] | None = None
) -> EvalResult:
    """Judge the recipe's model on its evaluation tasks; the result is `run`'s evaluation `name`.

    A finished evaluation is read back, an interrupted one goes on.

    Args:
        listener: told of the result once it is there, as a run without steps.
        on_batch: told of the progress.
    """
    from code_repair_rl.evaluation import EvalResult, evaluate
    from code_repair_rl.evaluation.classification import keep_classification

    if name in run.eval_names():
        return EvalResult.read(run.eval_path(name))
    section = recipe.evaluation
    tasks = evaluation_tasks(recipe)
    loaded = load(recipe)
    with grader_of(recipe) as grader:
        result = evaluate(
            loaded.engine,
            tasks,
            grader,
            name=name,
            model=recipe.model.name,
            task_set=recipe.tasks.name,
            hint=recipe.tasks.hint,
            samples=section.samples,
            sampling=Sampling(section.temperature, section.max_new_tokens, section.seed),
            samples_path=run.eval_samples_path(name),
            max_prompt_tokens=recipe.tasks.max_prompt_tokens,
            on_batch=on_batch,
            agent=agent_of(recipe.agent),
        )
    if is_classification(tasks):
        keep_classification(run, result, tasks)
    run.write_eval(name, result.to_json())
    listener.on_start(run, 0)
    listener.on_eval(name, result.to_json())
    listener.on_end(FINISHED)
    return result


class Validator:
    """Measures the policy's pass rate on the validation split: the same tasks and seeds every time."""

    def __init__(self, recipe: Recipe, engine: Engine, grader: Grader, listener: RunListener) -> None:
        settings = recipe.grpo
        found = load_as_asked(recipe.tasks.name, recipe.tasks.labels, split=Split.VALIDATION)
        kept, _ = fitting(found, engine, recipe.tasks.hint, recipe.tasks.max_prompt_tokens)
        self._tasks = draw(kept, settings.validation_tasks, recipe.evaluation.seed)
        self._engine, self._grader, self._listener = engine, grader, listener
        self._hint, self._samples = recipe.tasks.hint, settings.validation_samples
        self._agent = agent_of(recipe.agent)
        self._sampling = Sampling(
            recipe.evaluation.temperature,
            recipe.evaluation.max_new_tokens,
            derived_seed(recipe.evaluation.seed, "validation"),
        )

    def __call__(self, step: int) -> float:
        """The pass rate now; answers without a verdict are left out."""
        from code_repair_rl.training.callbacks import VALIDATION

        self._listener.on_phase(step, "validate")
        self._engine.refresh()
        answers = ask(
            self._engine,
            self._grader,
            self._tasks,
            hint=self._hint,
            completions_per_task=self._samples,
            sampling=self._sampling,
            agent=self._agent,
        )
        known = [one.verdict.passed for group in answers for one in group if one.verdict.score is not None]
        found = sum(known) / len(known) if known else 0.0
        self._listener.on_metrics(step, {VALIDATION: found})
        return found


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
