"""From tasks to graded answers: sample, grade, and write down what happened as rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from code_repair_rl.edits import EditError, Tolerance, parse
from code_repair_rl.grading import Outcome, Verdict
from code_repair_rl.rollouts.agent import Agent, recorded_turns
from code_repair_rl.rollouts.completion import Completion, Engine, FinishReason, Sampling
from code_repair_rl.rollouts.episode import Ending, Episode
from code_repair_rl.runs import RolloutRow, TestRecord
from code_repair_rl.tasks import HintLevel, Task
from code_repair_rl.tasks.prompts import messages

if TYPE_CHECKING:
    from code_repair_rl.grading import Grader


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion for one task, with its verdict."""

    task: Task
    completion: Completion
    verdict: Verdict
    episode: Episode | None = None
    """How an agent came to it; None for a single answer."""


def derived_seed(*parts: object) -> int:
    """A 63-bit seed from anything with a stable `str`: the same parts give the same seed, on any machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def prompt_text(conversation: Iterable[Mapping[str, Any]]) -> str:
    """A conversation as a person reads it, and as it is recorded: `[role]` above each message."""
    return "\n\n".join(f"[{message['role']}]\n{message['content'] or ''}" for message in conversation)


def fitting(
    tasks: Sequence[Task], engine: Engine, hint: HintLevel | str, max_prompt_tokens: int, agent: Agent | None
) -> tuple[list[Task], int]:
    """The tasks whose prompts fit into the budget, and how many were left out; all, where the agent words its own."""
    if agent is not None and agent.words_its_prompt:
        return list(tasks), 0
    kept = [task for task in tasks if len(engine.encode(messages(task, hint))) <= max_prompt_tokens]
    return kept, len(tasks) - len(kept)


def ask(
    engine: Engine,
    grader: Grader,
    tasks: Sequence[Task],
    *,
    hint: HintLevel | str,
    completions_per_task: int,
    sampling: Sampling,
    on_phase: Callable[[str], None] | None = None,
    agent: Agent | None = None,
) -> list[list[Answer]]:
    """Sample answers to every task and grade them.

    Args:
        agent: who works on the tasks over several answers; what it leaves behind is graded. None: each task is asked
            once per completion.
        on_phase: told `sample` and `grade` as they begin.

    Returns:
        Per task, in the order given, its answers in the order sampled.
    """
    tell = on_phase or (lambda phase: None)
    if agent is not None:
        episodes = agent.attempt(
            engine,
            grader,
            tasks,
            hint=hint,
            attempts_per_task=completions_per_task,
            sampling=sampling,
            on_phase=tell,
        )
        tell("grade")
        return _graded(grader, tasks, episodes)
    tell("sample")
    prompts = [engine.encode(messages(task, hint)) for task in tasks]
    completions = engine.generate(prompts, completions_per_prompt=completions_per_task, sampling=sampling)
    tell("grade")
    jobs = [(task, one.text) for task, group in zip(tasks, completions, strict=True) for one in group]
    verdicts = iter(grader.grade_many(jobs))
    return [
        [Answer(task, one, next(verdicts)) for one in group] for task, group in zip(tasks, completions, strict=True)
    ]


def _graded(grader: Grader, tasks: Sequence[Task], groups: Sequence[Sequence[Episode]]) -> list[list[Answer]]:
    """What the episodes left behind, judged by all tests. A failure of ours has no verdict."""
    jobs = [
        (task, episode.patch)
        for task, group in zip(tasks, groups, strict=True)
        for episode in group
        if episode.ending is not Ending.INFRASTRUCTURE
    ]
    verdicts = iter(grader.grade_many(jobs))
    return [
        [
            Answer(
                task,
                episode.completion() if episode.turns else Completion((), (), (), episode.patch, FinishReason.LENGTH),
                Verdict(Outcome.NO_VERDICT, evidence=(episode.evidence,))
                if episode.ending is Ending.INFRASTRUCTURE
                else next(verdicts),
                episode,
            )
            for episode in group
        ]
        for task, group in zip(tasks, groups, strict=True)
    ]


def row_of(answer: Answer, *, step: int, group: int, sample: int, hint: HintLevel | str, prompt: str) -> RolloutRow:
    """The row that records an answer; reward and advantage are left open.

    Args:
        answer: the answer.
        step: of the run.
        group: of the step.
        sample: within the group.
        hint: how much the prompt gave away.
        prompt: the task's, as text; an agent's program that words its own has that recorded.
    """
    task, completion, verdict, episode = answer.task, answer.completion, answer.verdict, answer.episode
    opening = None
    if episode is not None and episode.opening:
        prompt = prompt_text(episode.opening)
        opening = json.dumps({"messages": episode.opening, "tools": episode.tools}, ensure_ascii=False)
    patch, after = _patch_of(task, completion.text, verdict)
    return RolloutRow(
        step=step,
        task_id=task.task_id,
        problem=task.problem,
        split=task.split.value,
        group=group,
        sample=sample,
        hint=str(HintLevel(hint).value),
        prompt=prompt,
        prompt_ids=completion.prompt_ids,
        token_ids=completion.token_ids,
        logprobs=completion.logprobs,
        sampled=completion.sampled,
        text=completion.text,
        finish_reason=completion.finish_reason.value,
        **verdict_columns(verdict),
        patch=patch,
        files_before=dict(task.files),
        files_after=after,
        operator=str(task.origin.detail.get("operator", "")),
        opening=opening,
        **(_attempt_columns(episode) if episode is not None else {}),
    )


def _attempt_columns(episode: Episode) -> dict[str, Any]:
    counts = {name: getattr(episode, name) for name in ("forks", "rewrites", "broken_tool_calls")}
    return {
        "turns": recorded_turns(episode),
        "ending": episode.ending.value,
        "ending_note": episode.evidence,
        "agent_counts": {name: count for name, count in counts.items() if count},
    }


def verdict_columns(verdict: Verdict) -> dict[str, Any]:
    """What a row records of a verdict."""
    return {
        "outcome": verdict.outcome.value,
        "passed": verdict.passed,
        "score": verdict.score,
        "tests": tuple(
            TestRecord(name=test.name, status=test.status.value, visible=test.visible, detail=test.detail)
            for test in verdict.tests
        ),
        "edit_error": verdict.edit_error,
        "tolerance": verdict.tolerance,
        "evidence": verdict.evidence,
        "wall_seconds": verdict.wall_seconds,
        "isolation": verdict.isolation,
    }


def _patch_of(task: Task, text: str, verdict: Verdict) -> tuple[str | None, dict[str, str]]:
    """The edit and the files after it, as they were graded: as loosely matched, and nothing where it was rejected."""
    if verdict.outcome is Outcome.EDIT_REJECTED:
        return None, {}
    tolerance = Tolerance(verdict.tolerance) if verdict.tolerance else Tolerance.INDENTATION
    try:
        patch = parse(text)
        return str(patch), patch.apply(task.files, tolerance=tolerance)
    except EditError:
        return None, {}
