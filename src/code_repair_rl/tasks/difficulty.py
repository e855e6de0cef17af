"""How hard a task is for a model: pass rates, kept per model and hint level, to filter and order tasks by."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from code_repair_rl.errors import BadInput
from code_repair_rl.home import home, locked, write_atomically
from code_repair_rl.tasks.task import HintLevel, Task


@dataclass(frozen=True, slots=True)
class PassRate:
    """How often answers to one task passed."""

    passed: int
    samples: int
    """Answers with a verdict; those without one are not counted."""

    @property
    def rate(self) -> float:
        """Between 0 and 1.

        Raises:
            ZeroDivisionError: no answer was graded.
        """
        return self.passed / self.samples

    def __add__(self, other: PassRate) -> PassRate:
        return PassRate(self.passed + other.passed, self.samples + other.samples)


def record_pass_rates(
    model: str, hint: HintLevel | str, found: Mapping[str, PassRate], *, source: str | None = None
) -> Path:
    """Add what was found to what is known of a model at a hint level; safe for two processes at once.

    Args:
        model: the name by which the rates are asked for again.
        hint: how the tasks were asked.
        found: task id to new answers.
        source: where the answers are from (an evaluation's digest); the same is added only once.

    Returns:
        The file that holds them.
    """
    path = _path(model, hint)
    with locked(f"pass-rates/{path.parent.name}/{path.stem}"):
        sources_path = path.with_suffix(".sources")
        sources = sources_path.read_text().split() if sources_path.is_file() else []
        if source is not None and source in sources:
            return path
        known = dict(pass_rates(model, hint))
        for task_id, rate in found.items():
            known[task_id] = known.get(task_id, PassRate(0, 0)) + rate
        rows = {task_id: [known[task_id].passed, known[task_id].samples] for task_id in sorted(known)}
        write_atomically(path, json.dumps(rows, indent=0))
        if source is not None:
            write_atomically(sources_path, "".join(f"{one}\n" for one in [*sources, source]))
    return path


def pass_rates(model: str, hint: HintLevel | str) -> Mapping[str, PassRate]:
    """Task id to pass rate of a model at a hint level; empty where nothing was recorded.

    Raises:
        BadInput: the file is damaged.
    """
    path = _path(model, hint)
    if not path.is_file():
        return {}
    try:
        rows = json.loads(path.read_text())
        return {str(task_id): PassRate(int(passed), int(samples)) for task_id, (passed, samples) in rows.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInput("damaged pass rates", where=str(path), mend="delete the file; it is recorded anew") from error


def within(
    tasks: Sequence[Task], rates: Mapping[str, PassRate], *, lowest: float = 0.0, highest: float = 1.0
) -> list[Task]:
    """Tasks whose pass rate lies in a range; those without a rate are left out."""
    known = ((task, rates.get(task.task_id)) for task in tasks)
    return [task for task, rate in known if rate is not None and rate.samples and lowest <= rate.rate <= highest]


def easiest_first(tasks: Iterable[Task], rates: Mapping[str, PassRate]) -> list[Task]:
    """Tasks by falling pass rate; those without one stand last, all ties in the order given."""

    def key(task: Task) -> float:
        rate = rates.get(task.task_id)
        return -rate.rate if rate is not None and rate.samples else 1.0

    return sorted(tasks, key=key)


def hardest_first(tasks: Iterable[Task], rates: Mapping[str, PassRate]) -> list[Task]:
    """Tasks by rising pass rate; those without one stand last, all ties in the order given."""

    def key(task: Task) -> float:
        rate = rates.get(task.task_id)
        return rate.rate if rate is not None and rate.samples else 2.0

    return sorted(tasks, key=key)


def _path(model: str, hint: HintLevel | str) -> Path:
    name = re.sub(r"[^A-Za-z0-9._-]+", "--", model).strip(".-") or "model"
    return home() / "pass-rates" / name / f"{HintLevel(hint).value}.json"
