"""Is a task worth training on: the known-good answer passes its tests, doing nothing fails them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from code_repair_rl.errors import MachineryFailed
from code_repair_rl.grading import Grader, Outcome, Verdict
from code_repair_rl.home import write_atomically
from code_repair_rl.tasks import Kind, Task, oracle_answer

_TESTS_SPOKE = (Outcome.FAILED, Outcome.CRASHED, Outcome.SYNTAX_ERROR)
"""How the unchanged code may fail. A time-out or a lack of memory is no clear word about a bug."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A task that nobody should train on, and why."""

    task: Task
    reason: str


def validate(
    tasks: Sequence[Task],
    grader: Grader,
    *,
    repeat: int = 1,
    workers: int = 2,
    on_done: Callable[[int], None] = lambda _: None,
) -> tuple[list[Task], list[Quarantined]]:
    """Grade the known-good answer and the unchanged code of every task.

    Args:
        tasks: what is checked; of classification tasks whether the known-good answer can be read and is right.
        grader: asked `workers` times at once. Its cache is used for the first round only.
        repeat: how often everything is run; more than once finds flaky tests.
        workers: tasks at once.
        on_done: told how many more tasks are done.

    Returns:
        The tasks that held every time, in order, and the others with the first reason found.

    Raises:
        MachineryFailed: a task got no verdict: our machinery failed, which says nothing about the task.
    """
    known_good = _OncePerOracle(grader)

    def complaint(task: Task) -> str | None:
        found = None
        for _ in range(repeat):
            found = found or _complaint(task, grader, known_good, fresh=repeat > 1)
        on_done(1)
        return found

    with ThreadPoolExecutor(workers) as pool:
        complaints = list(pool.map(complaint, tasks))
    kept = [task for task, reason in zip(tasks, complaints, strict=True) if reason is None]
    bad = [Quarantined(task, reason) for task, reason in zip(tasks, complaints, strict=True) if reason is not None]
    return kept, bad


def write_quarantine(path: Path, quarantined: Sequence[Quarantined]) -> None:
    """Keep what was refused beside the set, one object a line: `reason` and `task`."""
    rows = [{"reason": item.reason, "task": item.task.model_dump(mode="json")} for item in quarantined]
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


class _OncePerOracle:
    """The verdict on a known-good tree, run once for all tasks with the same tests and the same tree after it."""

    def __init__(self, grader: Grader) -> None:
        self._grader = grader
        self._verdicts: dict[tuple[str, str], Verdict] = {}
        self._lock = threading.Lock()

    def verdict(self, task: Task) -> Verdict:
        tests = task.tests.model_dump_json() if task.tests is not None else ""
        key = (tests, json.dumps(sorted(task.files_after_oracle().items())))
        with self._lock:
            known = self._verdicts.get(key)
        if known is None:
            known = self._grader.grade_files(task, task.files_after_oracle())
            with self._lock:
                self._verdicts[key] = known
        return known


def _complaint(task: Task, grader: Grader, known_good: _OncePerOracle, *, fresh: bool) -> str | None:
    if task.kind is Kind.CLASSIFY:
        good = grader.grade(task, oracle_answer(task))
        return None if good.passed else f"the known-good answer does not pass ({_why(good)})"
    after = task.files_after_oracle()
    if after == dict(task.files):
        return "the known-good answer changes nothing"
    if task.tests is None:
        return None  # graded by comparison: the known-good answer is the same as itself
    good = _spoken(task, grader.grade_files(task, after) if fresh else known_good.verdict(task))
    if not good.passed:
        return f"the known-good answer does not pass ({_why(good)})"
    unchanged = _spoken(task, grader.grade_files(task, task.files))
    if unchanged.passed:
        return "the unchanged code passes"
    if unchanged.outcome not in _TESTS_SPOKE:
        return f"the unchanged code fails by {unchanged.outcome} only"
    if not any(not test.visible and test.status != "passed" for test in unchanged.tests):
        return "only visible examples fail: writing their values into the code would pass"
    return None


def _spoken(task: Task, verdict: Verdict) -> Verdict:
    if verdict.outcome is Outcome.NO_VERDICT and not any("known-good answer" in line for line in verdict.evidence):
        raise MachineryFailed(
            f"no verdict: {'; '.join(verdict.evidence) or 'no reason given'}",
            where=task.task_id,
            mend="run the same command again; if it stays, see what `crrl doctor` says about the sandbox",
        )
    return verdict


def _why(verdict: Verdict) -> str:
    return f"{verdict.outcome}: {verdict.evidence[0]}" if verdict.evidence else str(verdict.outcome)
