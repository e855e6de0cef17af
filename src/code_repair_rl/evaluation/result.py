"""What an evaluation found: every task's samples, and what follows from them."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from code_repair_rl.errors import BadInput, first_complaint
from code_repair_rl.evaluation.estimates import Estimate, pass_at_k, rate
from code_repair_rl.evaluation.plain_json import without_nan
from code_repair_rl.home import write_atomically
from code_repair_rl.tasks import Task

NOT_IN_OLDER_FILES = ("model_digest", "dtype", "max_prompt_tokens")
"""What evaluations of earlier versions do not say, so that nothing differs in it."""

_CLOSED = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class SampleResult:
    """One answer of an evaluation, without its text (which is in the samples' rows)."""

    __pydantic_config__ = _CLOSED

    outcome: str
    passed: bool
    verdict: bool
    """False where grading gave no verdict: the sample leaves every statistic."""
    formatted: bool
    """Whether an edit could be read from the answer."""
    applied: bool
    """Whether it applied to the files."""
    truncated: bool
    """Whether the length limit cut it off."""
    tokens: int
    right_place: bool | None
    """Whether it changes a line that the oracle changes too; None where it changed nothing."""
    edit_precision: float | None = None
    """Tokens that the oracle changes, divided by those that the answer changes, at most 1; below 1 the answer changes
    more than is needed. None where it changed nothing or did not apply (and in files written before this was measured).
    """
    turns: int = 1
    """Answers that an agent gave in this attempt."""
    holds_up: bool | None = None
    """Whether it works by all that may be seen: it changes the code, and visible tests pass. None in older files."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task's samples, in the order sampled."""

    __pydantic_config__ = _CLOSED

    task_id: str
    problem: str
    operator: str
    lines: int
    """Lines of code shown: a plain measure of difficulty."""
    samples: tuple[SampleResult, ...]

    @property
    def graded(self) -> int:
        """How many samples have a verdict."""
        return sum(sample.verdict for sample in self.samples)

    @property
    def passed(self) -> int:
        """How many of them passed."""
        return sum(sample.passed for sample in self.samples if sample.verdict)

    def pass_at(self, k: int) -> float | None:
        """Unbiased pass@k of this task; None where fewer than `k` samples have a verdict."""
        return pass_at_k(self.graded, self.passed, k) if self.graded >= k else None


@dataclass(frozen=True, slots=True)
class EvalResult:
    """One model on one set of tasks: `eval/NAME.json`."""

    __pydantic_config__ = _CLOSED

    name: str
    model: str
    task_set: str
    split: str
    tasks_sha256: str
    """Of the ids and contents of the tasks asked, in order: only results with the same can be compared task by task."""
    hint: str
    samples: int
    """Asked per task."""
    temperature: float
    max_new_tokens: int
    seed: int
    isolation: str
    grader_version: str
    wall_seconds: float
    tasks: tuple[TaskResult, ...]
    left_out: int = 0
    """Tasks not asked because their prompt is too long."""
    agent: str = ""
    """Who worked on the tasks over several answers, with its settings; empty where single answers were asked for."""
    model_digest: str = ""
    """Names the state of the model's weights, where its name does not; empty in older files."""
    dtype: str = ""
    """What sampling computed in, where that was said."""
    max_prompt_tokens: int | None = None
    """Tasks with longer prompts were left out; None: none was."""
    schema_version: Literal[1] = 1

    @property
    def stamped_unsafe(self) -> bool:
        """Whether answers ran without isolation."""
        return self.isolation == "unsafe-local"

    def ks(self) -> tuple[int, ...]:
        """The k for which pass@k is reported: powers of two up to the number of samples, and that number."""
        powers = [2**i for i in range(self.samples.bit_length()) if 2**i <= self.samples]
        return tuple(sorted({*powers, self.samples}))

    def digest(self) -> str:
        """Names this very result, so that what is made of it is made once."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain data for `eval/NAME.json`: the result itself and, for readers without this library, its summary."""
        return {**asdict(self), "summary": without_nan(asdict(summary(self)))}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, where: str) -> EvalResult:
        """The result that `to_json` wrote.

        Raises:
            BadInput: something else; names the key.
        """
        plain = {key: value for key, value in data.items() if key != "summary"}
        try:
            # Tuples are lists in JSON, so the JSON validator is the strict one that takes them.
            return _adapter().validate_json(json.dumps(plain))
        except ValidationError as error:
            raise BadInput(f"is not an evaluation; {first_complaint(error)}", where=where) from error

    def write(self, path: Path) -> None:
        """Write to `path`, whole or not at all."""
        write_atomically(path, json.dumps(self.to_json(), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> EvalResult:
        """Read from `path`.

        Raises:
            BadInput: absent, or not an evaluation.
        """
        try:
            data = json.loads(path.read_text())
        except OSError as error:
            raise BadInput(f"cannot be read ({error.strerror})", where=str(path)) from error
        except ValueError as error:
            raise BadInput(f"is not JSON ({error})", where=str(path)) from error
        if not isinstance(data, dict):
            raise BadInput("is not an evaluation (a JSON object)", where=str(path))
        return cls.from_json(data, where=str(path))


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures people ask for."""

    pass_at: Mapping[int, Estimate]
    format_rate: Estimate
    apply_rate: Estimate
    right_place_rate: Estimate
    """Of the answers that changed something."""
    edit_precision: Estimate
    """Of the answers that pass: how sparing they are (`SampleResult.edit_precision`)."""
    truncated_rate: Estimate
    mean_tokens: float
    """That the model drew, per attempt."""
    mean_turns: float
    pass_within: Mapping[int, Estimate]
    """Of an agent's attempts: the share that passed with at most so many answers; empty without an agent."""
    outcomes: Mapping[str, int]
    """How many samples ended how, no verdict included."""
    tasks: int
    problems: int
    samples: int
    """With a verdict."""
    no_verdict: int
    short_tasks: int
    """Tasks that leave the pass@k of the largest k because too few of their samples have a verdict."""


def summary(result: EvalResult) -> Summary:
    """Rates with clustered intervals; samples without a verdict leave all of them and are counted."""
    samples = [sample for task in result.tasks for sample in task.samples]
    graded = [sample for sample in samples if sample.verdict]
    return Summary(
        pass_at={k: pass_at_estimate(result.tasks, k) for k in result.ks()},
        format_rate=_sample_rate(result.tasks, "formatted"),
        apply_rate=_sample_rate(result.tasks, "applied"),
        right_place_rate=_sample_rate(result.tasks, "right_place"),
        edit_precision=_sample_rate(result.tasks, "edit_precision", of_passed=True),
        truncated_rate=_sample_rate(result.tasks, "truncated"),
        mean_tokens=sum(s.tokens for s in graded) / len(graded) if graded else math.nan,
        mean_turns=sum(s.turns for s in graded) / len(graded) if graded else math.nan,
        pass_within=_pass_within(result) if result.agent else {},
        outcomes=dict(Counter(sample.outcome for sample in samples).most_common()),
        tasks=len(result.tasks),
        problems=len({task.problem for task in result.tasks}),
        samples=len(graded),
        no_verdict=len(samples) - len(graded),
        short_tasks=sum(task.graded < result.samples for task in result.tasks),
    )


def _pass_within(result: EvalResult) -> dict[int, Estimate]:
    most = max((sample.turns for task in result.tasks for sample in task.samples), default=0)
    found = {}
    for k in range(1, most + 1):
        shares = [
            (sum(s.passed and s.turns <= k for s in known) / len(known), task.problem)
            for task in result.tasks
            if (known := [sample for sample in task.samples if sample.verdict])
        ]
        found[k] = rate([share for share, _ in shares], [problem for _, problem in shares])
    return found


def pass_at_estimate(tasks: Iterable[TaskResult], k: int) -> Estimate:
    """pass@k over tasks, with its interval; tasks with fewer than `k` verdicts leave it."""
    known = [(value, task.problem) for task in tasks if (value := task.pass_at(k)) is not None]
    return rate([value for value, _ in known], [problem for _, problem in known])


DIFFICULTIES = ("never passed", "passed at times", "always passed")


def difficulties(reference: EvalResult) -> dict[str, str]:
    """How hard each task was for one model: task id to one of `DIFFICULTIES`, from the first half of its answers.

    The other half is left for measuring (`breakdown`). Were the same answers used to sort tasks and to measure them,
    those that were lucky once would look easy and then seem to get worse (regression to the mean).
    """
    found = {}
    for task in reference.tasks:
        known = [sample.passed for sample in _halves(task.samples)[0] if sample.verdict]
        if known:
            found[task.task_id] = DIFFICULTIES[2 if all(known) else 1 if any(known) else 0]
    return found


def by_difficulty(result: EvalResult, difficulty: Mapping[str, str], *, is_reference: bool) -> dict[str, Estimate]:
    """pass@1 by difficulty, easiest last; of the reference itself only the answers that did not tell the difficulty."""
    groups: dict[str, list[TaskResult]] = {name: [] for name in DIFFICULTIES}
    for task in result.tasks:
        if task.task_id in difficulty:
            samples = _halves(task.samples)[1] if is_reference else task.samples
            groups[difficulty[task.task_id]].append(replace(task, samples=tuple(samples)))
    return {name: found for name, tasks in groups.items() if (found := pass_at_estimate(tasks, 1)).tasks}


def _halves(samples: Sequence[SampleResult]) -> tuple[Sequence[SampleResult], Sequence[SampleResult]]:
    middle = (len(samples) + 1) // 2
    return samples[:middle], samples[middle:]


def breakdown(result: EvalResult, by: Literal["operator", "lines"]) -> dict[str, Estimate]:
    """pass@1 by mutation operator, or by length of the code, largest group first."""
    groups: dict[str, list[TaskResult]] = {}
    for task in result.tasks:
        label = task.operator or "unknown" if by == "operator" else _length_band(task.lines)
        groups.setdefault(label, []).append(task)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1])) if by == "operator" else sorted(groups.items())
    return {label: pass_at_estimate(tasks, 1) for label, tasks in ordered}


def tasks_digest(tasks: Sequence[Task]) -> str:
    """SHA-256 over the tasks as they are written, in order: the same tasks, and only they, give the same."""
    digest = hashlib.sha256()
    for task in tasks:
        digest.update(task.model_dump_json().encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _sample_rate(tasks: Iterable[TaskResult], what: str, *, of_passed: bool = False) -> Estimate:
    """Per task the mean of `what` (a flag or a share) over its graded samples, then the mean over tasks."""
    values, problems = [], []
    for task in tasks:
        counted = [s for s in task.samples if (s.passed if of_passed else s.verdict)]
        known = [value for s in counted if (value := getattr(s, what)) is not None]
        if known:
            values.append(sum(known) / len(known))
            problems.append(task.problem)
    return rate(values, problems)


def _length_band(lines: int) -> str:
    for low, high in ((1, 5), (6, 10), (11, 20), (21, 50)):
        if lines <= high:
            return f"{low:>2}-{high} lines"
    return "51+ lines"


def _adapter() -> TypeAdapter[EvalResult]:
    return TypeAdapter(EvalResult)
