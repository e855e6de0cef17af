"""What a model forgot while it learned to repair: correct code it now breaks, ordinary coding it now finds odd.

Two measures on held-out problems, before and after training alike:

- **broken**: the repair prompt shows code that is right already. An answer that leaves it right (no edit, an edit that
  does not apply, a harmless one) is fine; one after which the tests fail broke it.
- **coding_nats_per_token**: how unlikely the model finds a correct solution when it is plainly asked to write the
  function (mean negative log-likelihood of its tokens, teacher-forced). It needs no parsing of free-form answers, and
  moves long before pass rates of a small model would.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.grading import Grader
from code_repair_rl.grading.verdict import Outcome
from code_repair_rl.home import write_atomically
from code_repair_rl.recipes import Recipe
from code_repair_rl.rollouts import Message, Sampling
from code_repair_rl.rollouts.ask import ask, derived_seed
from code_repair_rl.runs import RunDir
from code_repair_rl.tasks import HintLevel, Kind, Task

if TYPE_CHECKING:
    from code_repair_rl.pipelines.parts import Loaded

_LEFT_ALONE = (Outcome.UNCHANGED, Outcome.EDIT_REJECTED)
"""After these the code is as it was."""


@dataclass(frozen=True, slots=True)
class Forgetting:
    """What was measured."""

    healthy_answers: int
    """Answers to correct code, without those that have no verdict."""
    left_alone: float
    """Share of them that changed nothing."""
    broken: float
    """Share of them after which the tests fail."""
    solutions: int
    coding_nats_per_token: float


def healthy(task: Task) -> Task:
    """The same task with nothing left to repair.

    Raises:
        TypeError: a classification task.
    """
    return task.model_copy(update={"files": task.files_after_oracle()})


def coding_prompt(task: Task) -> list[Message]:
    """An ordinary request for the function, in words only."""
    wish = f"Write a Python function.\n\n{task.description.strip()}\n\nAnswer with the code only."
    return [{"role": "user", "content": wish}]


def measure(loaded: Loaded, grader: Grader, tasks: Sequence[Task], *, samples: int, sampling: Sampling) -> Forgetting:
    """Measure both on `tasks`; of several tasks of a problem, the solution is scored once.

    Raises:
        BadInput: no task whose oracle is an edit.
        MachineryFailed: no answer got a verdict.
    """
    repairs = [task for task in tasks if task.kind is not Kind.CLASSIFY and not isinstance(task.oracle, str)]
    if not repairs:
        raise BadInput("forgetting is measured on tasks that are repaired, and there is none", where="tasks.name")
    loaded.engine.refresh()
    groups = ask(
        loaded.engine,
        grader,
        [healthy(task) for task in repairs],
        hint=HintLevel.NONE,  # a hint would point at a fault that is not there
        completions_per_task=samples,
        sampling=sampling,
    )
    known = [one.verdict for group in groups for one in group if one.verdict.score is not None]
    if not known:
        raise MachineryFailed("no answer to correct code got a verdict", mend="see `crrl doctor`; then go on")
    alone = sum(verdict.outcome in _LEFT_ALONE for verdict in known)
    harmless = sum(verdict.passed for verdict in known)
    by_problem = {task.problem: task for task in repairs}
    return Forgetting(
        healthy_answers=len(known),
        left_alone=alone / len(known),
        broken=(len(known) - alone - harmless) / len(known),
        solutions=len(by_problem),
        coding_nats_per_token=_nats_per_token(loaded, list(by_problem.values())),
    )


def measured_once(recipe: Recipe, name: str, run: RunDir) -> Forgetting:
    """`measure` for the recipe's model on its first `evaluation.forgetting_tasks` tasks.

    Kept as `forgetting/NAME.json` in the run, and read back from there.
    """
    from code_repair_rl.pipelines.judging import evaluation_tasks
    from code_repair_rl.pipelines.parts import grader_of, load

    path = kept_path(run, name)
    if path.is_file():
        return Forgetting(**json.loads(path.read_text(encoding="utf-8")))
    section = recipe.evaluation
    tasks = evaluation_tasks(recipe)[: section.forgetting_tasks]
    sampling = Sampling(section.temperature, section.max_new_tokens, derived_seed(section.seed, "forgetting"))
    with grader_of(recipe.sandbox) as grader:
        found = measure(load(recipe, to_sample=True), grader, tasks, samples=section.samples, sampling=sampling)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(asdict(found)) + "\n")
    return found


def kept_path(run: RunDir, name: str) -> Path:
    """Where a run keeps what its model `name` forgot."""
    return run.path / "forgetting" / f"{name}.json"


def _nats_per_token(loaded: Loaded, tasks: Sequence[Task]) -> float:
    from code_repair_rl.training.score import nats_per_token

    prompts = [list(loaded.engine.encode(coding_prompt(task))) for task in tasks]
    answers = []
    for task in tasks:
        code = "\n".join(text.rstrip("\n") for text in task.files_after_oracle().values())
        answers.append(list(loaded.tokenizer.encode(f"```python\n{code}\n```", add_special_tokens=False)))
    return nats_per_token(loaded.model, prompts, answers)
