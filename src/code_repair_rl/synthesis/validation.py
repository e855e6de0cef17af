"""Is a task worth training on: the known-good answer passes its tests, doing nothing fails them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from code_repair_rl.edits import EditError, parse
from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.grading import Grader, Outcome, Verdict
from code_repair_rl.grading.verdict import grader_version
from code_repair_rl.home import write_atomically
from code_repair_rl.synthesis.journal import Journal, digest_of
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
    journal: Journal | None = None,
    on_done: Callable[[int], None] = lambda _: None,
) -> tuple[list[Task], list[Quarantined]]:
    """Grade the known-good answer, the unchanged code and the empty answer of every task.

    The known-good answer is also written out as a model would have to write it, and read back.

    Args:
        tasks: what is checked; of those without tests, classification tasks among them, only the answers are graded.
        grader: asked `workers` times at once. What it knows is used in the first round only; in the others everything
            runs anew, a repository's tests in shuffled order.
        repeat: how often everything is run; more than once finds flaky tests.
        workers: tasks at once.
        journal: what is found is kept there task by task, and what is there is not run again.
        on_done: told how many more tasks are done.

    Returns:
        The tasks that held every time, in order, and the others with the first reason found.

    Raises:
        MachineryFailed: a task got no verdict: our machinery failed, which says nothing about the task.
    """
    known_good = _OncePerOracle(grader)

    def complaint(task: Task) -> str | None:
        key = digest_of(task.model_dump_json(), repeat, grader.isolation, grader_version(task))
        if journal is not None and key in journal:
            on_done(1)
            known: str | None = journal[key]
            return known
        found = _form_complaint(task, grader)
        for time in range(repeat):
            found = found or _complaint(task, grader, known_good, anew=time > 0)
        if journal is not None:
            journal.put(key, found)
        on_done(1)
        return found

    pool = ThreadPoolExecutor(workers)
    try:
        complaints = list(pool.map(complaint, tasks))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    kept = [task for task, reason in zip(tasks, complaints, strict=True) if reason is None]
    bad = [Quarantined(task, reason) for task, reason in zip(tasks, complaints, strict=True) if reason is not None]
    return kept, bad


def write_quarantine(path: Path, quarantined: Sequence[Quarantined], *, keep: bool = False) -> None:
    """Keep what was refused beside the set, one object a line: `reason` and `task`.

    Args:
        path: the file.
        quarantined: what was refused.
        keep: whether what the file holds already stays; a set that is built anew begins anew.

    Raises:
        BadInput: the file is to be kept, and cannot be read.
    """
    rows = [{"reason": item.reason, "task": item.task.model_dump(mode="json")} for item in quarantined]
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in rows]
    if keep and path.exists():
        try:
            earlier = [line for line in path.read_bytes().split(b"\n") if line.strip()]
        except OSError as error:
            raise BadInput(f"cannot be read ({error.strerror})", where=str(path)) from error
        # A run that was killed before the set itself was written has its rows here already.
        lines = [*earlier, *(line for line in lines if line not in earlier)]
    write_atomically(path, b"".join(line + b"\n" for line in lines))


class _OncePerOracle:
    """The verdict on a known-good tree, run once for all tasks with the same tests and the same tree after it."""

    def __init__(self, grader: Grader) -> None:
        self._grader = grader
        self._verdicts: dict[tuple[str, str], Verdict] = {}
        self._lock = threading.Lock()

    def verdict(self, task: Task) -> Verdict:
        tests = task.tests.model_dump_json() if task.tests is not None else ""
        key = (tests, digest_of(task.files_after_oracle()))
        with self._lock:
            known = self._verdicts.get(key)
        if known is None:
            known = self._grader.grade_files(task, task.files_after_oracle())
            with self._lock:
                self._verdicts[key] = known
        return known


def _form_complaint(task: Task, grader: Grader) -> str | None:
    """What is wrong with a task before any test runs."""
    if grader.grade(task, "").passed:
        return "the empty answer passes"
    if task.kind is Kind.CLASSIFY:
        return None if grader.grade(task, oracle_answer(task)).passed else "the known-good label does not pass"
    after = task.files_after_oracle()
    if after == dict(task.files):
        return "the known-good answer changes nothing"
    try:
        written = parse(oracle_answer(task)).apply(task.files)
    except EditError as error:
        return f"the known-good answer cannot be written as an edit ({error})"
    if written != after:
        return "the known-good answer, written as an edit, gives another tree"
    return None


def _complaint(task: Task, grader: Grader, known_good: _OncePerOracle, *, anew: bool) -> str | None:
    if task.kind is Kind.CLASSIFY or task.tests is None:  # without tests: compared, not run; nothing can fail
        return None

    verdict = grader.grade_files_anew(task, task.files_after_oracle()) if anew else known_good.verdict(task)
    good = _spoken(task, verdict)
    if not good.passed:
        return f"the known-good answer does not pass ({_why(good)})"
    unchanged = _spoken(task, (grader.grade_files_anew if anew else grader.grade_files)(task, task.files))
    if unchanged.passed:
        return "the unchanged code passes"
    if unchanged.outcome not in _TESTS_SPOKE:
        return f"the unchanged code fails by {unchanged.outcome} only"
    if not any(not test.visible and test.status != "passed" for test in unchanged.tests):
        return "only visible examples fail: writing their values into the code would pass"
    return _unexpected(task, unchanged)


def _unexpected(task: Task, unchanged: Verdict) -> str | None:
    """Which test of a repository ends otherwise than the task says, on the unchanged code."""
    fail_to_pass = frozenset(getattr(task.tests, "fail_to_pass", ()))
    if not fail_to_pass:
        return None
    for test in unchanged.tests:
        if (test.status == "passed") == (test.name in fail_to_pass):
            said = "fail-to-pass" if test.name in fail_to_pass else "pass-to-pass"
            return f"a {said} test ends otherwise on the unchanged code ({test.name})"
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
