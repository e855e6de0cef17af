"""Rejection sampling, first half: many attempts at each task, graded and kept, in a run directory like any other.

The second half, choosing among them, is `curate`. An interruption costs at most one batch: what is on disk is read
back, what had no verdict is graded again, and only attempts that our own machinery lost are made again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from code_repair_rl.rollouts.again import another_chance, require_a_verdict
from code_repair_rl.rollouts.agent import Agent
from code_repair_rl.rollouts.ask import Answer, ask, derived_seed, prompt_text, row_of
from code_repair_rl.rollouts.completion import Engine, Sampling
from code_repair_rl.runs import RunDir
from code_repair_rl.tasks import HintLevel, Task
from code_repair_rl.tasks.prompts import messages

if TYPE_CHECKING:
    from code_repair_rl.grading import Grader

BATCH_TASKS = 16
"""Tasks per batch: what an interruption can cost."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far sampling is, told after every batch."""

    done: int
    """Tasks."""
    total: int
    passed: int
    graded: int
    """Attempts with a verdict so far, and how many of them passed."""
    solved: int
    """Tasks with at least one pass."""
    read_back: bool


def sample_rollouts(
    engine: Callable[[], Engine],
    grader: Grader,
    tasks: Sequence[Task],
    run: RunDir,
    *,
    hint: HintLevel | str,
    samples: int,
    sampling: Sampling,
    agent: Agent | None = None,
    batch_tasks: int = BATCH_TASKS,
    on_batch: Callable[[Progress], None] | None = None,
) -> Progress:
    """Attempt every task `samples` times, batch by batch; each batch is one step of the run's rollouts.

    Args:
        engine: makes the engine, when there is the first batch to sample: going on with a finished run needs none.
        grader: gives the verdicts.
        tasks: in this order; the order is part of what the seed means.
        run: where the rows are kept, and where those of an earlier start are found.
        hint: how much of the fault's place the prompt gives away.
        samples: attempts per task.
        sampling: temperature, length limit and seed.
        agent: who attempts them; None asks for single answers.
        batch_tasks: tasks per batch.
        on_batch: told after each batch.

    Raises:
        MachineryFailed: no attempt of a batch got a verdict.
    """
    held: list[Engine] = []

    def attempt(some: Sequence[Task], count: int, *said: object) -> list[list[Answer]]:
        """Fresh attempts, under a seed of what was said and asked."""
        if not held:
            held.append(engine())
        seed = derived_seed(sampling.seed, *said, *(task.task_id for task in some))
        seeded = dataclasses.replace(sampling, seed=seed)
        return ask(held[0], grader, some, hint=hint, completions_per_task=count, sampling=seeded, agent=agent)

    progress = Progress(0, len(tasks), 0, 0, 0, read_back=True)
    recorded = set(run.rollout_steps())
    for number, start in enumerate(range(0, len(tasks), batch_tasks)):
        batch, step = tasks[start : start + batch_tasks], number + 1
        if step in recorded:
            found = run.rollouts(step)
            by_id = {task.task_id: task for task in batch}
            rows = another_chance(found, by_id, grader, lambda some, count, which: attempt(some, count, "again", which))
            if rows != found:
                run.write_rollouts(step, rows)
        else:
            groups = attempt(batch, samples, "rollout")
            rows = [
                row_of(answer, step=step, group=group, sample=sample, hint=hint, prompt=prompt)
                for group, answers in enumerate(groups)
                for prompt in [prompt_text(messages(batch[group], hint))]
                for sample, answer in enumerate(answers)
            ]
            run.write_rollouts(step, rows)
        require_a_verdict(rows, f"{run.path}, step {step}")
        known = [row for row in rows if row.score is not None]
        progress = Progress(
            done=progress.done + len(batch),
            total=len(tasks),
            passed=progress.passed + sum(row.passed for row in known),
            graded=progress.graded + len(known),
            solved=progress.solved + len({row.task_id for row in known if row.passed}),
            read_back=step in recorded,
        )
        if on_batch is not None:
            on_batch(progress)
    return progress
