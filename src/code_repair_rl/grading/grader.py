"""`Grader`: answers in, verdicts out, one each, in order."""

from __future__ import annotations

import math
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from code_repair_rl.edits import EditError, Tolerance, parse
from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.grading.cache import VerdictCache, key_of, measure_key_of
from code_repair_rl.grading.canary import broke_twice, canary_passes
from code_repair_rl.grading.classification import classification_verdict
from code_repair_rl.grading.comparison import compare_with_oracle
from code_repair_rl.grading.function_worker import FunctionWorker
from code_repair_rl.grading.judge import Expectation, came_to_its_end, expectation, judge
from code_repair_rl.grading.policy import protected_paths
from code_repair_rl.grading.repository import RepositoryWorker
from code_repair_rl.grading.repository_tasks import RepositoryTasks
from code_repair_rl.grading.verdict import Outcome, Verdict, no_verdict
from code_repair_rl.sandbox import FUNCTION, Limits, Sandbox, select_backend
from code_repair_rl.sandbox.fork_server import ServerBroken
from code_repair_rl.tasks import FunctionTests, Kind, RepositoryTests, Task

_WITH_FORK_SERVERS = ("bubblewrap", "unsafe_local")
_LEAST_CPU_SECONDS = 2.0
_TIMES_THE_REFERENCE = 20.0


class Grader:
    """Grades answers in a pool of warm jails. A context manager; safe to call from several threads.

    Nothing is started before the first answer, and nothing runs between answers.

    Args:
        backend: `auto`, or a sandbox's name. `unsafe_local` must be asked for, and is stamped on every verdict.
        workers: how many answers are graded at once.
        cache: folder of the verdict cache; None keeps none beyond this object's life.
        tolerance: how loosely SEARCH lines may match.

    Raises:
        BadInput: no such backend, or less than one worker.
        MachineryFailed: the backend does not work on this machine.
    """

    def __init__(
        self,
        backend: str = "auto",
        workers: int = 2,
        cache: Path | None = None,
        tolerance: Tolerance = Tolerance.INDENTATION,
    ) -> None:
        if workers < 1:
            raise BadInput(f"a grader needs at least one worker, not {workers}", where="workers")
        self._sandbox: Sandbox = select_backend(backend)
        if self._sandbox.name not in _WITH_FORK_SERVERS:
            raise BadInput(
                f"answers are graded in warm jails, which {backend} does not have",
                where="backend",
                mend="use auto, bubblewrap or unsafe_local",
            )
        self._tolerance = tolerance
        self._workers = workers
        self._cache = VerdictCache(cache)
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._all: list[_Worker] = []
        self._expected: dict[str, Expectation | str] = {}
        self._in_flight: dict[str, Future[Verdict]] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._make_workers()
        self._repositories = RepositoryTasks(self._worker, self.isolation)

    def __enter__(self) -> Grader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def isolation(self) -> str:
        """The tier that verdicts are stamped with."""
        return self._sandbox.isolation

    @property
    def at_once(self) -> int:
        """Threads that keep it busy when each asks for one answer at a time."""
        return self._workers

    def close(self) -> None:
        """End all jails. The grader may be used again; they are then started anew."""
        for worker in self._all:
            worker.close()

    def grade(self, task: Task, completion_text: str) -> Verdict:
        """The verdict on one answer. An answer without edits is an answer that did not work, never an exception."""
        if task.kind is Kind.CLASSIFY:
            return classification_verdict(task, completion_text)
        try:
            applied = parse(completion_text).apply_with(
                task.files, tolerance=self._tolerance, protected=_protected(task)
            )
        except EditError as error:
            return Verdict(Outcome.EDIT_REJECTED, edit_error=error.kind.value, evidence=(str(error),))
        if not applied.changed:
            return Verdict(Outcome.UNCHANGED, tolerance=applied.rung.value, evidence=("the edit changes nothing",))
        verdict = self.grade_files(task, applied.files)
        if not verdict.passed and applied.files == task.files_after_oracle():
            # The task is broken, not the answer.
            why = f"the task's own known-good answer does not pass: {'; '.join(verdict.evidence)}"
            return no_verdict(why, self.isolation)
        return replace(verdict, tolerance=applied.rung.value)

    def grade_many(
        self, answers: Sequence[tuple[Task, str]], progress: Callable[[int], None] | None = None
    ) -> list[Verdict]:
        """Exactly one verdict for each (task, answer), in their order.

        Args:
            answers: task and completion text.
            progress: called with the number of answers done so far, from whatever thread finished one.
        """
        done = 0
        counting = threading.Lock()

        def one(answer: tuple[Task, str]) -> Verdict:
            nonlocal done
            verdict = self.grade(*answer)
            with counting:
                done += 1
                if progress is not None:
                    progress(done)
            return verdict

        pool = ThreadPoolExecutor(max_workers=self._workers, thread_name_prefix="crrl-grader")
        try:
            futures = [pool.submit(one, answer) for answer in answers]
            return [future.result() for future in futures]
        except BaseException:
            # Ctrl-C, or an error of ours: what waits is dropped, what runs loses its jail and so ends at once.
            pool.shutdown(wait=False, cancel_futures=True)
            self.close()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def grade_files(self, task: Task, files_after: Mapping[str, str]) -> Verdict:
        """The verdict on a tree as it is after an edit; always runs the tests, also where nothing was changed.

        Where there are none, the tree is compared with the one after the known-good answer.
        """
        if task.tests is None and not isinstance(task.oracle, str):
            return compare_with_oracle(task, files_after)
        if task.tests is None:
            raise BadInput("the task has no tests to grade by", where=task.task_id)
        key = key_of(task, files_after, self.isolation)
        with self._lock:
            known = self._cache.get(key)
            if known is not None:
                return known
            running = self._in_flight.get(key)
            if running is None:
                mine: Future[Verdict] = Future()
                self._in_flight[key] = mine
        if running is not None:
            return replace(running.result(), cached=True)
        try:
            verdict = self._graded(task, files_after)
            mine.set_result(verdict)
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            # Of the known-good answer only a pass is certain: what else it came to may be the machine's doing.
            certain = mine.exception() is None and (mine.result().passed or not _is_oracle(task, files_after))
            with self._lock:
                del self._in_flight[key]
                if certain:
                    self._cache.put(key, mine.result())
        return verdict

    def grade_files_anew(self, task: Task, files_after: Mapping[str, str]) -> Verdict:
        """As `grade_files`, but what was found before is not looked at, and a repository's tests run in a new shuffled
        order: what differs from time to time shows."""
        if task.tests is None:
            return self.grade_files(task, files_after)
        return self._graded(task, files_after, shuffled=True)

    def _graded(self, task: Task, files_after: Mapping[str, str], *, shuffled: bool = False) -> Verdict:
        if isinstance(task.tests, RepositoryTests):
            return self._repositories.verdict(task, task.tests, files_after, shuffled=shuffled)
        assert isinstance(task.tests, FunctionTests)
        return self._function(task, task.tests, files_after)

    def _function(self, task: Task, tests: FunctionTests, files_after: Mapping[str, str]) -> Verdict:
        oracle = task.files_after_oracle()
        is_oracle = dict(files_after) == oracle
        expected = None if is_oracle else self._expectation(task, tests, oracle)
        if isinstance(expected, _NoVerdict):
            return no_verdict(expected.why, self.isolation)
        if isinstance(expected, str):
            return no_verdict(f"the task's own known-good answer does not pass: {expected}", self.isolation)
        return self._checked(files_after, oracle, tests, expected, measure_key_of(task, oracle) if is_oracle else None)

    def _checked(
        self,
        files: Mapping[str, str],
        oracle: Mapping[str, str],
        tests: FunctionTests,
        expected: Expectation | None,
        sets_measure_for: str | None,
    ) -> Verdict:
        """One check, once more where our machinery broke."""
        limits = _limits(tests, expected)
        broken: list[str] = []
        for _ in range(2):
            try:
                with self._worker() as worker:
                    found = worker.function.check(files, oracle, tests, limits, expected.calls if expected else None)
            except (ServerBroken, MachineryFailed, OSError) as error:
                broken.append(str(error))
                continue
            if sets_measure_for is not None:
                measure = expectation(found)
                # A run that did not come to its end says nothing of the known-good answer: the machine may be busy.
                if isinstance(measure, Expectation) or came_to_its_end(found):
                    self._expected[sets_measure_for] = measure
            return judge(found, expected, self.isolation)
        return broke_twice(broken, canary_passes(self._checked_once), self.isolation)

    def _checked_once(self, files: Mapping[str, str], tests: FunctionTests) -> Verdict | None:
        try:
            with self._worker() as worker:
                return judge(worker.function.check(files, files, tests, FUNCTION, None), None, self.isolation)
        except (ServerBroken, MachineryFailed, OSError):
            return None

    def _expectation(
        self, task: Task, tests: FunctionTests, oracle: Mapping[str, str]
    ) -> Expectation | str | _NoVerdict:
        """What the known-good answer does; found out once for all tasks with the same tests and known-good tree."""
        key = measure_key_of(task, oracle)
        known = self._expected.get(key)
        if known is None:
            verdict = self._checked(oracle, oracle, tests, None, key)
            known = self._expected.get(key)
            if known is None:
                return _NoVerdict("; ".join(verdict.evidence))
        return known

    @contextmanager
    def _worker(self) -> Iterator[_Worker]:
        """A worker that nobody else has meanwhile."""
        if os.getpid() != self._pid:  # a forked copy must not talk to its parent's jails
            self._pid = os.getpid()
            self._make_workers()
        worker = self._idle.get()
        try:
            yield worker
        finally:
            self._idle.put(worker)

    def _make_workers(self) -> None:
        isolated = self._sandbox.name != "unsafe_local"
        self._all = [_Worker(isolated) for _ in range(self._workers)]
        self._idle = queue.LifoQueue()
        for worker in self._all:
            self._idle.put(worker)


class _Worker:
    """The jails of one worker, started when first needed."""

    def __init__(self, isolated: bool) -> None:
        self.function = FunctionWorker(isolated=isolated, nested=True)
        self._isolated = isolated
        self._repositories: dict[tuple[str, ...], RepositoryWorker] = {}

    def repository(self, more: tuple[str, ...] = ()) -> RepositoryWorker:
        """The jail for repository tests that has `more` folders of packages."""
        if more not in self._repositories:
            self._repositories[more] = RepositoryWorker(isolated=self._isolated, more=more)
        return self._repositories[more]

    def close(self) -> None:
        self.function.close()
        for repository in self._repositories.values():
            repository.close()


@dataclass(frozen=True, slots=True)
class _NoVerdict:
    why: str


_default: Grader | None = None
_default_lock = threading.Lock()


def grade(task: Task, completion_text: str) -> Verdict:
    """The verdict on one answer, by a grader of one worker that lives as long as this process.

    Raises:
        MachineryFailed: no isolating sandbox works on this machine.
    """
    global _default
    with _default_lock:
        if _default is None:
            import atexit

            _default = Grader(workers=1)
            atexit.register(_default.close)
    return _default.grade(task, completion_text)


def _is_oracle(task: Task, files: Mapping[str, str]) -> bool:
    return not isinstance(task.oracle, str) and dict(files) == task.files_after_oracle()


def _protected(task: Task) -> tuple[str, ...]:
    if isinstance(task.tests, RepositoryTests):
        return protected_paths(task.tests)
    return ()


def _limits(tests: FunctionTests, expected: Expectation | None) -> Limits:
    """Processor time relative to what the known-good answer takes, never beyond `FUNCTION`'s.

    Endless loops end by it; the clock's limit stays wide, so that waiting on a busy machine is not held against anyone.
    """
    reference_seconds = max(tests.reference_seconds, expected.wall_seconds if expected else 0.0)
    if not reference_seconds:
        return FUNCTION
    cpu_seconds = math.ceil(max(_LEAST_CPU_SECONDS, _TIMES_THE_REFERENCE * reference_seconds))
    return replace(FUNCTION, cpu_seconds=min(FUNCTION.cpu_seconds, cpu_seconds))
