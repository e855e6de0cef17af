"""Ask a model every task, grade the answers, keep each one, and go on after an interruption without sampling again."""

from __future__ import annotations

import dataclasses
import difflib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from code_repair_rl.edits import changed_tokens, holds_an_edit
from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation.result import NOT_IN_OLDER_FILES, EvalResult, SampleResult, TaskResult, tasks_digest
from code_repair_rl.grading import Outcome, TestStatus, grader_version
from code_repair_rl.grading.visible import has_visible_tests, visible_names
from code_repair_rl.home import write_atomically
from code_repair_rl.rollouts.again import another_chance, require_a_verdict
from code_repair_rl.rollouts.agent import Agent
from code_repair_rl.rollouts.agent_metrics import answers_of
from code_repair_rl.rollouts.ask import Answer, ask, derived_seed, fitting, prompt_text, row_of
from code_repair_rl.rollouts.completion import Engine, FinishReason, Sampling
from code_repair_rl.runs import RolloutRow, read_rows, write_rows
from code_repair_rl.tasks import HintLevel, Kind, Task, messages

if TYPE_CHECKING:
    from code_repair_rl.grading import Grader

BATCH_TASKS = 64
"""Tasks per batch: what an interruption can cost, and what is sampled together. The local engine lets waiting prompts
take the places of finished ones, so that more prompts than places are faster, and take no more memory."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an evaluation is, told after every batch."""

    done: int
    """Tasks."""
    total: int
    passed: int
    graded: int
    """Samples with a verdict so far, and how many of them passed."""
    sampled_tokens: int
    """In this batch; 0 where it was read back."""
    wall_seconds: float
    """Of this batch."""
    read_back: bool


def evaluate(
    engine: Engine,
    tasks: Sequence[Task],
    grader: Grader,
    *,
    name: str,
    model: str,
    task_set: str,
    hint: HintLevel | str,
    samples: int,
    sampling: Sampling,
    samples_path: Path | None = None,
    batch_tasks: int = BATCH_TASKS,
    max_prompt_tokens: int | None = None,
    on_batch: Callable[[Progress], None] | None = None,
    agent: Agent | None = None,
    model_digest: str = "",
    dtype: str = "",
) -> EvalResult:
    """Evaluate a model on `tasks`.

    Tasks are asked in batches, each under a seed of its own (from `sampling.seed` and the ids in it), so that the
    samples of a batch depend on nothing before it: the same seed gives the same samples, also across interruptions.

    Args:
        engine: samples; holds the model.
        tasks: in this order; the order is part of what the seed means.
        grader: gives the verdicts.
        name: of the result.
        model: what the engine holds, as a person names it (goes into the result and guards against mixing).
        task_set: what the tasks are, as a person names it.
        hint: how much of the fault's place the prompt gives away.
        samples: answers per task.
        sampling: temperature, length limit and seed.
        samples_path: a folder for every completion, batch by batch; what it already holds of this same evaluation is
            read back instead of sampled again (answers without a verdict are graded again). None keeps nothing.
        batch_tasks: tasks per batch.
        max_prompt_tokens: tasks with longer prompts are left out and counted, unless the agent words its own.
        on_batch: told after each batch.
        agent: who works on the tasks over several answers; `samples` are then its attempts.
        model_digest: names the state of the weights, where the model's name does not (guards against mixing, too).
        dtype: what the engine samples in; so does this.

    Raises:
        BadInput: no tasks, or `samples_path` holds another evaluation (names what differs).
        MachineryFailed: no attempt of the agent in a batch got a verdict.
    """
    kept = list(tasks)
    if max_prompt_tokens is not None:
        kept, _ = fitting(tasks, engine, hint, max_prompt_tokens, agent)
    if not kept:
        raise BadInput("there are no tasks to evaluate on", where=task_set, mend="choose another split or set")
    asked = {
        "model": model,
        "tasks_sha256": tasks_digest(kept),
        "hint": str(HintLevel(hint)),
        "samples": samples,
        "sampling": dataclasses.asdict(sampling),
        "batch_tasks": batch_tasks,
        "grader_version": grader_version(*kept),
        "agent": agent.description if agent is not None else None,
        **{key: value for key, value in (("model_digest", model_digest), ("dtype", dtype)) if value},
    }
    if samples_path is not None:
        _guard(samples_path, asked)
    results: list[TaskResult] = []
    isolation: set[str] = set()
    wall_seconds = 0.0
    for number, batch in enumerate(_batches(kept, batch_tasks)):
        started = time.monotonic()
        path = samples_path / f"batch-{number:05d}.parquet" if samples_path is not None else None
        seed = derived_seed(sampling.seed, "evaluation", *(task.task_id for task in batch))
        seeded = dataclasses.replace(sampling, seed=seed)
        read_back = path is not None and path.is_file()
        if path is not None and read_back:
            found = read_rows(path)
            attempt = partial(_attempt, engine, grader, hint, seeded, agent)
            rows = another_chance(found, {task.task_id: task for task in batch}, grader, attempt)
        else:
            found = []
            rows = _ask_batch(engine, batch, grader, hint, samples, seeded, number * batch_tasks, agent)
        if path is not None and rows != found:
            write_rows(path, rows)
        if agent is not None:
            require_a_verdict(rows, str(path or name))
        seconds = time.monotonic() - started
        wall_seconds += seconds
        isolation |= {row.isolation for row in rows}
        results += _task_results(batch, rows)
        if on_batch is not None:
            on_batch(_progress(results, len(kept), rows, seconds, read_back))
    return EvalResult(
        name=name,
        model=model,
        task_set=task_set,
        split="+".join(sorted({task.split.value for task in kept})),
        tasks_sha256=str(asked["tasks_sha256"]),
        hint=str(asked["hint"]),
        samples=samples,
        temperature=sampling.temperature,
        max_new_tokens=sampling.max_new_tokens,
        seed=sampling.seed,
        isolation=_isolation(isolation),
        grader_version=str(asked["grader_version"]),
        wall_seconds=round(wall_seconds, 3),
        tasks=tuple(results),
        left_out=len(tasks) - len(kept),
        agent=agent.description if agent is not None else "",
        model_digest=model_digest,
        dtype=dtype,
        max_prompt_tokens=max_prompt_tokens,
    )


def sample_result(task: Task, row: RolloutRow) -> SampleResult:
    """What the statistics need of one graded answer."""
    return SampleResult(
        outcome=row.outcome,
        passed=row.passed,
        verdict=row.score is not None,
        formatted=holds_an_edit(row.text) if task.kind is not Kind.CLASSIFY else row.edit_error is None,
        applied=row.outcome not in (Outcome.EDIT_REJECTED, Outcome.NO_VERDICT),
        truncated=row.finish_reason == FinishReason.LENGTH,
        tokens=row.sampled_tokens,
        right_place=_right_place(task, row.files_after),
        edit_precision=edit_precision(task, row.files_after),
        turns=len(answers_of(row)),
        holds_up=_holds_up(task, row),
    )


def _holds_up(task: Task, row: RolloutRow) -> bool:
    """Whether an answer holds up by what an agent may see: it changes the code, and the visible tests pass."""
    if row.outcome in (Outcome.EDIT_REJECTED, Outcome.UNCHANGED, Outcome.NO_VERDICT, Outcome.SYNTAX_ERROR):
        return False
    names = visible_names(task)
    seen = [test.status for test in row.tests if test.visible or test.name in names]
    if not seen:
        return not has_visible_tests(task)
    return all(status == TestStatus.PASSED for status in seen)


def edit_precision(task: Task, after: Mapping[str, str]) -> float | None:
    """Tokens that the oracle changes, divided by those that the edit changes, at most 1; None without a change."""
    if not after or isinstance(task.oracle, str):
        return None
    mine = changed_tokens(task.files, after)
    return min(1.0, changed_tokens(task.files, task.files_after_oracle()) / mine) if mine else None


def changed_lines(before: str, after: str) -> set[int]:
    """The 1-based lines of `before` that an edit touches; an insertion touches the lines on both sides of it."""
    one, other = before.splitlines(), after.splitlines()
    touched: set[int] = set()
    for tag, i1, i2, _, _ in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag == "insert":
            touched |= {i1, i1 + 1}
        elif tag != "equal":
            touched |= set(range(i1 + 1, i2 + 1))
    return touched


def _attempt(
    engine: Engine,
    grader: Grader,
    hint: HintLevel | str,
    sampling: Sampling,
    agent: Agent | None,
    tasks: Sequence[Task],
    count: int,
    which: str = "",
) -> list[list[Answer]]:
    """Fresh attempts; `which` tells a later chance from every other."""
    if which:
        sampling = dataclasses.replace(sampling, seed=derived_seed(sampling.seed, "again", which))
    return ask(engine, grader, tasks, hint=hint, completions_per_task=count, sampling=sampling, agent=agent)


def _ask_batch(
    engine: Engine,
    batch: Sequence[Task],
    grader: Grader,
    hint: HintLevel | str,
    samples: int,
    sampling: Sampling,
    first_group: int,
    agent: Agent | None,
) -> list[RolloutRow]:
    answers = _attempt(engine, grader, hint, sampling, agent, batch, samples)
    rows = []
    for index, group in enumerate(answers):
        prompt = prompt_text(messages(batch[index], hint))
        rows += [
            row_of(answer, step=0, group=first_group + index, sample=sample, hint=hint, prompt=prompt)
            for sample, answer in enumerate(group)
        ]
    return rows


def _task_results(batch: Sequence[Task], rows: Sequence[RolloutRow]) -> list[TaskResult]:
    by_task: dict[str, list[RolloutRow]] = {task.task_id: [] for task in batch}
    for row in rows:
        by_task[row.task_id].append(row)
    return [
        TaskResult(
            task_id=task.task_id,
            problem=task.problem,
            operator=str(task.origin.detail.get("operator", "")),
            lines=sum(len(text.splitlines()) for text in task.files.values()),
            samples=tuple(sample_result(task, row) for row in by_task[task.task_id]),
        )
        for task in batch
    ]


def _guard(folder: Path, asked: Mapping[str, Any]) -> None:
    """Refuse to mix two evaluations in one folder."""
    path = folder / "asked.json"
    if not path.is_file():
        write_atomically(path, json.dumps(asked, indent=1) + "\n")
        return
    try:
        earlier = json.loads(path.read_text())
    except ValueError as error:
        raise BadInput(f"is not JSON ({error})", where=str(path), mend=f"delete {folder}") from error
    if not isinstance(earlier, dict):
        raise BadInput("is not a JSON object", where=str(path), mend=f"delete {folder}")
    unknown = {key: asked[key] for key in NOT_IN_OLDER_FILES if key in asked}
    changed = [key for key, value in asked.items() if {**unknown, **earlier}.get(key) != value]
    if changed:
        raise BadInput(
            f"another evaluation of that name is there; they differ in {', '.join(changed)}",
            where=str(folder),
            mend="choose another name, or delete the folder",
        )


def _progress(
    results: Sequence[TaskResult], total: int, rows: Sequence[RolloutRow], seconds: float, read_back: bool
) -> Progress:
    return Progress(
        done=len(results),
        total=total,
        passed=sum(task.passed for task in results),
        graded=sum(task.graded for task in results),
        sampled_tokens=0 if read_back else sum(row.sampled_tokens for row in rows),
        wall_seconds=seconds,
        read_back=read_back,
    )


def _batches(tasks: Sequence[Task], size: int) -> Iterator[Sequence[Task]]:
    for start in range(0, len(tasks), size):
        yield tasks[start : start + size]


def _isolation(tiers: set[str]) -> str:
    """The tier to stamp on the result: the unsafe one wherever it was used."""
    if "unsafe-local" in tiers:
        return "unsafe-local"
    return "+".join(sorted(tiers - {"none"})) or "none"


def _right_place(task: Task, after: Mapping[str, str]) -> bool | None:
    """Whether the answer touches a line that the oracle touches; None where it changed nothing or did not apply."""
    if not after or isinstance(task.oracle, str):
        return None
    touched = {
        (path, line)
        for path in {*after, *task.files}
        for line in changed_lines(task.files.get(path, ""), after.get(path, ""))
    }
    if not touched:
        return None
    wanted = {
        (path, line)
        for path, text in task.oracle.items()
        for line in changed_lines(task.files.get(path, ""), text or "")
    }
    return bool(touched & wanted)
