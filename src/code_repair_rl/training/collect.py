"""The rollout phase of a GRPO step: sample groups, grade, reward, replace what teaches nothing, record.

What is recorded is what is trained on: a step whose rollouts are on disk already (the run was killed after sampling)
is read back instead of sampled again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from code_repair_rl.errors import BadInput
from code_repair_rl.grading import Grader
from code_repair_rl.recipes import GrpoSection
from code_repair_rl.rewards import Reward
from code_repair_rl.rollouts import Engine, Sampling
from code_repair_rl.rollouts.again import require_a_verdict
from code_repair_rl.rollouts.agent import Agent
from code_repair_rl.rollouts.agent_metrics import agent_metrics, attempt_terms
from code_repair_rl.rollouts.ask import Answer, ask, derived_seed, prompt_text, row_of
from code_repair_rl.runs import RolloutRow, RunDir, RunListener
from code_repair_rl.tasks import Task
from code_repair_rl.tasks.prompts import messages
from code_repair_rl.training.advantages import advantages, has_signal
from code_repair_rl.training.task_stream import TaskStream

Group = list[RolloutRow]


@dataclass(frozen=True, slots=True)
class Collector:
    """Makes the rollouts of each training step."""

    engine: Engine
    grader: Grader
    reward: Reward
    stream: TaskStream
    settings: GrpoSection
    hint: str
    seed: int
    run: RunDir
    listener: RunListener
    agent: Agent | None = None
    """Who works on the tasks over several answers; None: single answers."""

    def collect(self, step: int) -> list[Group]:
        """The rollouts of training step `step` (from 1), one list per group, advantages set.

        Groups without variance were replaced by fresh tasks as far as the budget reaches; the replaced ones are part
        of the answer, too (their advantages are 0), so that nothing sampled is lost from the record.

        Raises:
            BadInput: recorded rollouts of this step belong to other tasks.
            MachineryFailed: no attempt of the step got a verdict.
        """
        recorded = self.run.rollouts(step) if step in self.run.rollout_steps() else None
        groups: list[Group] = []
        wanted = self.settings.tasks_per_step
        budget = self.settings.max_resampled_groups
        while wanted:
            tasks = self.stream.take(wanted)
            fresh = self._recorded(recorded, step, tasks, len(groups)) if recorded else None
            fresh = fresh or self._sampled(step, tasks, len(groups))
            for task, group in zip(tasks, fresh, strict=True):
                if (rate := pass_rate(group)) is not None:
                    self.stream.observe(task.task_id, rate)
            groups += fresh
            silent = sum(not has_signal([row.reward for row in group]) for group in fresh)
            wanted = min(silent, budget)
            budget -= wanted
        groups = with_advantages(groups, self.settings)
        require_a_verdict([row for group in groups for row in group], f"step {step}")
        if not recorded:
            self.listener.on_rollouts(step, [row for group in groups for row in group])
        return groups

    def _sampled(self, step: int, tasks: Sequence[Task], first_group: int) -> list[Group]:
        settings = self.settings
        self.engine.refresh()
        sampling = Sampling(
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            seed=derived_seed(self.seed, "rollouts", step, first_group),
        )
        answers = ask(
            self.engine,
            self.grader,
            tasks,
            hint=self.hint,
            completions_per_task=settings.completions_per_task,
            sampling=sampling,
            on_phase=lambda phase: self.listener.on_phase(step, phase),
            agent=self.agent,
        )
        return [
            [self._row(answer, step, first_group + offset, sample) for sample, answer in enumerate(group)]
            for offset, group in enumerate(answers)
        ]

    def _row(self, answer: Answer, step: int, group: int, sample: int) -> RolloutRow:
        value = self.reward(
            answer.task,
            answer.completion.text,
            answer.verdict,
            completion_tokens=sum(answer.completion.sampled) or len(answer.completion.token_ids),
            max_new_tokens=self.settings.max_new_tokens,
            attempt=attempt_terms(answer.episode, self.agent.max_turns) if answer.episode and self.agent else {},
        )
        prompt = prompt_text(messages(answer.task, self.hint))
        row = row_of(answer, step=step, group=group, sample=sample, hint=self.hint, prompt=prompt)
        return dataclasses.replace(row, reward=value.total, reward_terms=value.terms)

    def _recorded(
        self, rows: Sequence[RolloutRow], step: int, tasks: Sequence[Task], first_group: int
    ) -> list[Group] | None:
        """The recorded groups for these tasks."""
        groups = [[row for row in rows if row.group == first_group + offset] for offset in range(len(tasks))]
        if [group[0].task_id if group else None for group in groups] != [task.task_id for task in tasks]:
            raise BadInput(
                "the recorded rollouts are not of the tasks that this run would ask",
                where=str(self.run.rollout_path(step)),
                mend="the task set has changed since: restore it, or start the run anew",
            )
        return groups


def with_advantages(groups: Sequence[Group], settings: GrpoSection) -> list[Group]:
    """The groups with their advantages filled in."""
    found = advantages([[row.reward for row in group] for group in groups], settings.scale_rewards)
    return [
        [dataclasses.replace(row, advantage=value) for row, value in zip(group, values, strict=True)]
        for group, values in zip(groups, found, strict=True)
    ]


def pass_rate(group: Sequence[RolloutRow]) -> float | None:
    """The share of passes among the answers with a verdict; None where there is none."""
    known = [row.passed for row in group if row.score is not None]
    return sum(known) / len(known) if known else None


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What a step's rollouts say in figures; answers without a verdict are counted and left out of the rest."""
    rows = [row for group in groups for row in group]
    known = [row for row in rows if row.score is not None]
    metrics = {
        "rollouts/answers": float(len(rows)),
        "rollouts/groups": float(len(groups)),
        "rollouts/groups_with_signal": float(sum(has_signal([row.reward for row in group]) for group in groups)),
        "rollouts/no_verdict": float(len(rows) - len(known)),
        "rollouts/tokens": float(sum(row.sampled_tokens for row in rows)),
        "rollouts/length": _mean([row.sampled_tokens for row in rows]),
        "rollouts/truncated": _mean([row.finish_reason == "length" for row in rows]),
        "rollouts/grading_seconds": _mean([row.wall_seconds for row in known]),
    }
    if known:
        metrics |= {
            "reward/total": _mean([row.reward or 0.0 for row in known]),
            "pass_rate": _mean([row.passed for row in known]),
            "apply_rate": _mean([bool(row.files_after) for row in known]),
        }
        metrics |= {
            f"reward/{name}": _mean([row.reward_terms.get(name, 0.0) for row in known])
            for name in sorted({name for row in known for name in row.reward_terms})
        }
        metrics |= {
            f"outcome/{name}": _mean([row.outcome == name for row in known])
            for name in sorted({row.outcome for row in known})
        }
    return metrics | agent_metrics(rows)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
