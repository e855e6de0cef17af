"""What an evaluation of a classifier found: every answer's label and cited lines, beside the truth and the baselines.

Made from the rows that an evaluation keeps and the tasks that were asked, and kept as `classification/NAME.json` beside
`eval/NAME.json`. All figures follow from it (`classification_summary`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from code_repair_rl.edits.lines import lines_of
from code_repair_rl.errors import BadInput, first_complaint
from code_repair_rl.evaluation.result import EvalResult
from code_repair_rl.grading.bag_of_words import leak, leak_stamp, predicted_by_words
from code_repair_rl.grading.classification import examine, written_lines
from code_repair_rl.home import write_atomically
from code_repair_rl.runs import RolloutRow, RunDir, read_rows
from code_repair_rl.tasks.classification import (
    BENIGN,
    VULNERABLE,
    code_of,
    evidence_lines,
    labels_of,
    leak_note,
    notes_on,
)
from code_repair_rl.tasks.files import load_tasks
from code_repair_rl.tasks.task import Split, Task

_CLOSED = ConfigDict(extra="forbid")

MAJORITY_CLASS = "majority class"
BAG_OF_WORDS = "bag of words"


@dataclass(frozen=True, slots=True)
class LabelledSample:
    """One answer."""

    __pydantic_config__ = _CLOSED

    label: str | None
    """None: unreadable."""
    error: str | None
    cited: tuple[int, ...]
    """Lines that are in the code as quoted."""
    misquoted: int
    precision: float | None = None
    """Of the citations, against the lines that decide; None where those are not known."""
    recall: float | None = None
    f1: float | None = None
    corrected: float | None = None


@dataclass(frozen=True, slots=True)
class ClassifiedTask:
    """One task's answers, in the order sampled."""

    __pydantic_config__ = _CLOSED

    task_id: str
    problem: str
    truth: str
    pair: str | None
    """Both sides of a pair have the same."""
    written: int
    """Lines of code that hold something."""
    decisive: int
    """Lines known to decide; 0 where none is, or all are."""
    baselines: Mapping[str, str]
    """Baseline to the label it gives."""
    samples: tuple[LabelledSample, ...]


@dataclass(frozen=True, slots=True)
class ClassificationResult:
    """One model on one set of classification tasks: `classification/NAME.json`."""

    __pydantic_config__ = _CLOSED

    name: str
    model: str
    task_set: str
    split: str
    tasks_sha256: str
    labels: tuple[str, ...]
    """The label set; empty where any CWE is one."""
    samples: int
    temperature: float
    notes: tuple[str, ...]
    """What has to be said with every figure: whose labels they are, what names give away."""
    tasks: tuple[ClassifiedTask, ...]
    left_out: int = 0
    """Tasks whose prompts were too long."""
    schema_version: Literal[1] = 1

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, where: str) -> ClassificationResult:
        """The result that `to_json` wrote.

        Raises:
            BadInput: something else; names the key.
        """
        try:
            return TypeAdapter(ClassificationResult).validate_json(json.dumps(data))
        except ValidationError as error:
            raise BadInput(f"is not a classification result; {first_complaint(error)}", where=where) from error

    @classmethod
    def read(cls, path: Path) -> ClassificationResult:
        """Read from `path`.

        Raises:
            BadInput: absent, or something else.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadInput(f"cannot be read ({error})", where=str(path)) from error
        return cls.from_json(data, where=str(path))


def classification_path(run: RunDir, name: str) -> Path:
    """Where a run keeps the classification result of its evaluation `name`."""
    return run.path / "classification" / f"{name}.json"


def keep_classification(run: RunDir, result: EvalResult, tasks: Sequence[Task]) -> ClassificationResult:
    """Work out the classification result of a finished evaluation, and keep it in the run.

    Args:
        run: holds the evaluation's samples.
        result: the evaluation.
        tasks: what was asked of (more is no harm).
    """
    rows: list[RolloutRow] = []
    for path in sorted(run.eval_samples_path(result.name).glob("*.parquet")):
        rows += read_rows(path)
    found = classification_result(result, tasks, rows, _training(result, tasks))
    text = json.dumps(found.to_json(), separators=(",", ":"))
    write_atomically(classification_path(run, result.name), text + "\n")
    return found


def classification_result(
    result: EvalResult, tasks: Sequence[Task], rows: Iterable[RolloutRow], training: Sequence[Task]
) -> ClassificationResult:
    """The classification result of an evaluation.

    Args:
        result: names what was asked.
        tasks: the tasks.
        rows: all answers.
        training: labelled tasks that the baselines learn from; without any there are no baselines that learn.
    """
    by_id = {task.task_id: task for task in tasks}
    asked = [by_id[one.task_id] for one in result.tasks]
    answers: dict[str, list[RolloutRow]] = {}
    for row in rows:
        answers.setdefault(row.task_id, []).append(row)
    baselines = _baselines(training, asked)
    return ClassificationResult(
        name=result.name,
        model=result.model,
        task_set=result.task_set,
        split=result.split,
        tasks_sha256=result.tasks_sha256,
        labels=labels_of(asked[0]) if asked else (),
        samples=result.samples,
        temperature=result.temperature,
        notes=(*notes_on(asked), *_notes(training, asked)),
        tasks=tuple(
            _classified(task, answers.get(task.task_id, []), {name: labels[n] for name, labels in baselines.items()})
            for n, task in enumerate(asked)
        ),
        left_out=result.left_out,
    )


def labelled_sample(task: Task, text: str) -> LabelledSample:
    """What one answer says."""
    found = examine(task, text)
    score = found.evidence
    if score is None:
        return LabelledSample(found.label, found.error, found.cited, found.misquoted)
    return LabelledSample(
        found.label,
        found.error,
        found.cited,
        found.misquoted,
        round(score.precision, 6),
        round(score.recall, 6),
        round(score.f1, 6),
        round(score.corrected, 6),
    )


def is_vulnerable(label: str | None) -> bool:
    """Whether a label claims a vulnerability; one that could not be read claims none."""
    return label is not None and label != BENIGN


def _classified(task: Task, rows: Sequence[RolloutRow], baselines: Mapping[str, str]) -> ClassifiedTask:
    written = len(written_lines(lines_of(code_of(task)[1])))
    decisive = len({line.number for line in evidence_lines(task)})
    pair = task.origin.detail.get("pair")
    return ClassifiedTask(
        task_id=task.task_id,
        problem=task.problem,
        truth=str(task.oracle),
        pair=str(pair) if pair is not None else None,
        written=written,
        decisive=decisive if decisive < written else 0,
        baselines=dict(baselines),
        samples=tuple(labelled_sample(task, row.text) for row in sorted(rows, key=lambda row: row.sample)),
    )


def _notes(training: Sequence[Task], asked: Sequence[Task]) -> Iterator[str]:
    """What is not stamped on the tasks: a label set that is not the set's own, baselines that are not there."""
    if asked and VULNERABLE not in labels_of(asked[0]):
        measured = leak([*training, *asked])
        occurring = len({task.oracle for task in asked})
        yield leak_note(leak_stamp(measured, occurring), "these tasks under these labels")
    if not training:
        yield "There are no training tasks: the majority class and the bag of words have nothing to learn from."


def _baselines(training: Sequence[Task], asked: Sequence[Task]) -> dict[str, list[str]]:
    if not training or not asked:
        return {}
    labels = Counter(str(task.oracle) for task in training)
    common = min(labels, key=lambda label: (-labels[label], label))
    return {MAJORITY_CLASS: [common] * len(asked), BAG_OF_WORDS: predicted_by_words(training, asked)}


def _training(result: EvalResult, tasks: Sequence[Task]) -> list[Task]:
    """The training split under the label set of `tasks`; empty where the set is not at hand any more."""
    from code_repair_rl.tasks.classification import relabelled

    try:
        return relabelled(load_tasks(result.task_set, split=Split.TRAIN), labels_of(tasks[0]))
    except BadInput:
        return []
