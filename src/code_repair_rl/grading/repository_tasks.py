"""Verdicts on answers to repository tasks: in the warm jails of a grader, or in a container image."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.grading.cache import measure_key_of
from code_repair_rl.grading.canary import broke_twice, repository_canary_passes
from code_repair_rl.grading.copies import installed_copies
from code_repair_rl.grading.environments import locked_packages
from code_repair_rl.grading.image_job import run_in_image
from code_repair_rl.grading.policy import calls_on_the_runner
from code_repair_rl.grading.repository import RepositoryWorker, judge_repository, packages
from code_repair_rl.grading.verdict import Outcome, Verdict, no_verdict
from code_repair_rl.sandbox.containers import Container
from code_repair_rl.sandbox.fork_server import ServerBroken
from code_repair_rl.tasks import Environment, RepositoryTests, Task

_ENGINES = ("docker", "podman")
_BREAKS = (ServerBroken, MachineryFailed, OSError)


class Jails(Protocol):
    """What this needs of a grader's worker."""

    def repository(self, more: tuple[str, ...] = ()) -> RepositoryWorker:
        """The jail that has `more` folders of packages."""
        ...


class RepositoryTasks:
    """The part of a grader that judges repository tasks.

    Args:
        worker: lends one of the grader's workers.
        isolation: the tier of its jails.
    """

    def __init__(self, worker: Callable[[], AbstractContextManager[Jails]], isolation: str) -> None:
        self._worker = worker
        self._isolation = isolation
        self._sound: set[str] = set()
        """Tasks whose known-good answer passes here."""

    def verdict(self, task: Task, tests: RepositoryTests, files_after: Mapping[str, str], *, shuffled: bool) -> Verdict:
        """The verdict on a tree; none where it fails and the task's known-good answer, tried twice, does so, too.

        Raises:
            BadInput: no container engine, or an image, lock file or pytest is missing.
        """
        needs = tests.environment or Environment()
        if needs.image is not None:
            return self._in_image(task, tests, needs, files_after)
        oracle = task.files_after_oracle()
        forbidden = calls_on_the_runner(task.files, files_after, oracle, tests)
        if forbidden:
            return Verdict(Outcome.TAMPERED, evidence=(forbidden,), isolation=self._isolation)
        jail = _Jail(self._worker, self._isolation, task, tests, needs)
        found = jail.judged(files_after, shuffled=shuffled)
        key = measure_key_of(task, oracle)
        is_oracle = dict(files_after) == oracle
        if is_oracle and found.passed:
            self._sound.add(key)
        if is_oracle or found.passed or found.score is None or key in self._sound:
            return found
        # Perhaps nothing can pass here: a package is missing, or another version of one is installed.
        for _ in range(2):
            known = jail.judged(oracle, shuffled=False)
            if known.passed:
                self._sound.add(key)
                return found
        failing = [test.name for test in known.tests if test.detail]
        why = "; ".join([*known.evidence, *failing][:3])
        return no_verdict(f"the task's own known-good answer does not pass: {why}", self._isolation)

    def _in_image(
        self, task: Task, tests: RepositoryTests, needs: Environment, files_after: Mapping[str, str]
    ) -> Verdict:
        assert needs.image is not None
        engine = next((one for one in _ENGINES if shutil.which(one)), None)
        if engine is None:
            raise BadInput(
                f"its tests need the image {needs.image}, and neither docker nor podman is installed",
                where=task.task_id,
                mend="install one, or build the set with `--environment here`, to test in this environment",
            )
        broken: list[str] = []
        for _ in range(2):
            try:
                return run_in_image(Container(engine, needs.image), task.files, files_after, tests, needs)
            except (MachineryFailed, OSError) as error:
                broken.append(str(error))
        return no_verdict("; ".join(broken), engine)


class _Jail:
    """Where the trees of one task are tested."""

    def __init__(
        self,
        worker: Callable[[], AbstractContextManager[Jails]],
        isolation: str,
        task: Task,
        tests: RepositoryTests,
        needs: Environment,
    ) -> None:
        self._worker, self._isolation = worker, isolation
        self._task, self._tests = task, tests
        self._more = (locked_packages(needs.lock, task.task_id),) if needs.lock is not None else ()
        # Where pytest is missing, that is the user's to mend, and no verdict would say so.
        self._hidden = installed_copies(task, (*self._more, *packages()))

    def judged(self, files_after: Mapping[str, str], *, shuffled: bool) -> Verdict:
        """The verdict on a tree by one run of its tests, once more where our machinery broke."""
        broken: list[str] = []
        for attempt in range(2):
            try:
                with self._worker() as worker:
                    run = worker.repository(self._more).run(
                        self._task.files, files_after, self._tests, shuffled=shuffled, hidden=self._hidden
                    )
            except _BREAKS as error:
                broken.append(str(error))
                continue
            if not run.killed or attempt:
                return judge_repository(run, self._tests, self._isolation)
            broken.append("the test runner was killed")
        return broke_twice(broken, repository_canary_passes(self._once), self._isolation)

    def _once(self, files: Mapping[str, str], tests: RepositoryTests) -> Verdict | None:
        try:
            with self._worker() as worker:
                run = worker.repository(self._more).run(files, files, tests)
        except _BREAKS:
            return None
        return judge_repository(run, tests, self._isolation)
