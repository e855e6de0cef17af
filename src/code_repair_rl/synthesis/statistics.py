"""Counts over a set of tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from code_repair_rl.tasks import HintLevel, Split, Task, has_hint

_LENGTHS = ((1, 5), (6, 10), (11, 15), (16, 20), (21, 30), (31, 50), (51, 100))


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a set of tasks is made of."""

    tasks: int
    problems: int
    splits: Mapping[str, tuple[int, int]]
    """Split to number of tasks and of problems."""
    kinds: Mapping[str, int]
    licences: Mapping[str, int]
    sources: Mapping[str, int]
    """Where tasks come from to their number."""
    tests: Mapping[str, int]
    """`function`, `repository` or `none` to number of tasks."""
    labels: Mapping[str, int]
    """Of classification: label to number of tasks."""
    operators: Mapping[str, Mapping[str, int]]
    """Mutation operator to split to number of bugs; most frequent first. A combined task has several bugs."""
    hints: Mapping[str, int]
    """Hint level to number of tasks that have it."""
    localised: Mapping[int, float]
    """For 1, 3: share of tasks whose first so many suspicious lines hold a faulty one, of those that have both."""
    lengths: Mapping[str, int]
    """Range of lines of the files that the answer touches to number of tasks."""

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def statistics_of(tasks: Sequence[Task]) -> Statistics:
    """Count a set of tasks."""
    operators: dict[str, Counter[str]] = {}
    for task in tasks:
        operator = task.origin.detail.get("operator")
        for name in str(operator).split("+") if operator is not None else ():
            operators.setdefault(name, Counter())[task.split.value] += 1
    ordered = sorted(operators, key=lambda name: (-operators[name].total(), name))
    return Statistics(
        tasks=len(tasks),
        problems=len({task.problem for task in tasks}),
        splits={split.value: _counted([task for task in tasks if task.split is split]) for split in Split},
        kinds=dict(Counter(task.kind.value for task in tasks)),
        licences=dict(Counter(task.licence for task in tasks)),
        sources=dict(Counter(task.origin.source for task in tasks)),
        tests=dict(Counter(task.tests.type if task.tests is not None else "none" for task in tasks)),
        labels=dict(Counter(task.oracle for task in tasks if isinstance(task.oracle, str))),
        operators={name: dict(operators[name]) for name in ordered},
        hints={level.value: sum(has_hint(task, level) for task in tasks) for level in HintLevel if level != "none"},
        localised=_localised(tasks),
        lengths=_lengths(tasks),
    )


def _counted(tasks: Sequence[Task]) -> tuple[int, int]:
    return len(tasks), len({task.problem for task in tasks})


def _localised(tasks: Sequence[Task]) -> dict[int, float]:
    both = [task.hints for task in tasks if task.hints.suspicious_lines and task.hints.exact_lines]
    if not both:
        return {}
    shares = {}
    for first in (1, 3):
        hits = sum(bool(set(hints.suspicious_lines[:first]) & set(hints.exact_lines)) for hints in both)
        shares[first] = round(hits / len(both), 4)
    return shares


def _lengths(tasks: Sequence[Task]) -> dict[str, int]:
    counts = {f"{low}-{high}": 0 for low, high in _LENGTHS}
    counts["more"] = 0
    for task in tasks:
        touched = task.oracle if isinstance(task.oracle, Mapping) else task.files
        lines = sum(len(task.files[path].splitlines()) for path in touched if path in task.files)
        label = next((f"{low}-{high}" for low, high in _LENGTHS if lines <= high), "more")
        counts[label] += 1
    return counts
