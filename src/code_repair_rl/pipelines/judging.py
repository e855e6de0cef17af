"""How good a recipe's model is: validation while it is trained, evaluation when it is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.grading import Grader, grader_version
from code_repair_rl.pipelines.parts import agent_of, grader_of, load
from code_repair_rl.recipes import Recipe
from code_repair_rl.rollouts import Engine, Sampling
from code_repair_rl.rollouts.ask import ask, derived_seed, fitting
from code_repair_rl.runs import FINISHED, RunDir, RunListener
from code_repair_rl.tasks import Split, Task
from code_repair_rl.tasks.classification import is_classification, load_as_asked
from code_repair_rl.tasks.draw import draw

if TYPE_CHECKING:
    from code_repair_rl.evaluation import EvalResult, Progress


def evaluation_tasks(recipe: Recipe) -> list[Task]:
    """The tasks on which the recipe's models are judged: the same for every model and training seed."""
    section = recipe.evaluation
    found = load_as_asked(recipe.tasks.name, recipe.tasks.labels, split=Split(section.split))
    return draw(found, section.tasks, section.seed)


def run_evaluation(
    recipe: Recipe, name: str, run: RunDir, listener: RunListener, on_batch: Callable[[Progress], None] | None = None
) -> EvalResult:
    """Judge the recipe's model on its evaluation tasks; the result is `run`'s evaluation `name`.

    A finished evaluation is read back, an interrupted one goes on; answers without a verdict are graded again.

    Args:
        listener: told of the result once it is there, as a run without steps.
        on_batch: told of the progress.
    """
    from code_repair_rl.evaluation import EvalResult, evaluate

    found = EvalResult.read(run.eval_path(name)) if name in run.eval_names() else None
    if found is not None and not _lacks_verdicts(run, found):
        return found
    section = recipe.evaluation
    tasks = evaluation_tasks(recipe)
    if found is not None and not can_be_completed(run, found, tasks):
        return found
    loaded = load(recipe, to_sample=True)
    with grader_of(recipe.sandbox) as grader:
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
    keep_evaluation(run, result, tasks, listener)
    return result


def can_be_completed(run: RunDir, result: EvalResult, tasks: Sequence[Task]) -> bool:
    """Whether some of a finished evaluation's answers have no verdict, and this grader could grade them again.

    Args:
        tasks: those that were asked.
    """
    return _lacks_verdicts(run, result) and result.grader_version == grader_version(*tasks)


def _lacks_verdicts(run: RunDir, result: EvalResult) -> bool:
    lacking = any(task.graded < result.samples for task in result.tasks)
    return lacking and run.eval_samples_path(result.name).is_dir()


def keep_evaluation(run: RunDir, result: EvalResult, tasks: Sequence[Task], listener: RunListener) -> None:
    """Write down a finished evaluation under its name, with its labels where labels were asked for, and tell of it.

    Args:
        tasks: those that were asked.
        listener: told of the result as a run without steps.
    """
    from code_repair_rl.evaluation import EvalResult
    from code_repair_rl.evaluation.classification import keep_classification

    if result.name in run.eval_names():  # some answers were graded again: sampling took what it took
        before = EvalResult.read(run.eval_path(result.name))
        if sum(task.graded for task in before.tasks) == sum(task.graded for task in result.tasks):
            return
        result = dataclasses.replace(result, wall_seconds=before.wall_seconds)
    if is_classification(tasks):
        keep_classification(run, result, tasks)
    run.write_eval(result.name, result.to_json())
    tell_of(run, result, listener)


def tell_of(run: RunDir, result: EvalResult, listener: RunListener) -> None:
    """Tell a listener of a finished evaluation, as of a run without steps."""
    listener.on_start(run, 0)
    listener.on_eval(result.name, result.to_json())
    listener.on_end(FINISHED)


class Validator:
    """Measures the policy's pass rate on the validation split: the same tasks and seeds every time."""

    def __init__(self, recipe: Recipe, engine: Engine, grader: Grader, listener: RunListener) -> None:
        settings = recipe.grpo
        found = load_as_asked(recipe.tasks.name, recipe.tasks.labels, split=Split.VALIDATION)
        self._agent = agent_of(recipe.agent)
        kept, _ = fitting(found, engine, recipe.tasks.hint, recipe.tasks.max_prompt_tokens, self._agent)
        self._tasks = draw(kept, settings.validation_tasks, recipe.evaluation.seed)
        if not self._tasks:
            raise BadInput(
                f"none of the {len(found)} validation tasks has a prompt of at most {recipe.tasks.max_prompt_tokens}"
                " tokens"
                if found
                else "the set has no validation tasks",
                where="tasks",
                mend="set grpo.validation_tasks to 0" + (", or raise tasks.max_prompt_tokens" if found else ""),
            )
        self._engine, self._grader, self._listener = engine, grader, listener
        self._hint, self._samples = recipe.tasks.hint, settings.validation_samples
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
        if not known:
            evidence = next(one.verdict.evidence for group in answers for one in group)
            raise MachineryFailed(
                f"no answer to the validation tasks got a verdict ({'; '.join(evidence)[-300:]})",
                where=f"step {step}",
                mend="see `crrl doctor`; then resume",
            )
        found = sum(known) / len(known)
        self._listener.on_metrics(step, {VALIDATION: found})
        return found
