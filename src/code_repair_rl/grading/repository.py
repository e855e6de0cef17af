"""Repository tests: a pristine tree with the answer's source in it, F2P and P2P by exact test id."""

from __future__ import annotations

import random
import secrets
import socket
import sysconfig
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from code_repair_rl.errors import MachineryFailed
from code_repair_rl.grading.canaries import Canaries, canaries
from code_repair_rl.grading.function_worker import programs, read_report
from code_repair_rl.grading.policy import graded_tree
from code_repair_rl.grading.verdict import Outcome, TestResult, TestStatus, Verdict
from code_repair_rl.sandbox.fork_server import ChildEnd, ForkServer, ServerBroken, most_wall_seconds
from code_repair_rl.sandbox.job import Cause
from code_repair_rl.sandbox.limits import PYTEST
from code_repair_rl.tasks import RepositoryTests

_ENDINGS = {
    Cause.TIMEOUT: Outcome.TIMEOUT,
    Cause.OUT_OF_MEMORY: Outcome.OUT_OF_MEMORY,
    Cause.OUTPUT_LIMIT: Outcome.OUTPUT_LIMIT,
}
_HELD = {"passed", "xfailed"}
"""As SWE-bench counts, of tests that passed before: an expected failure that fails is as it should be, where the test
itself is marked as one. Skipped is not."""


@dataclass(frozen=True, slots=True)
class RepositoryRun:
    """What one run of a repository's tests came to."""

    report: Mapping[str, Any] | None
    ended: ChildEnd
    canaries: Canaries
    notes: tuple[str, ...]
    wall_seconds: float

    @property
    def killed(self) -> bool:
        """Whether the runner was ended by SIGKILL: by the code under test, or by a machine without memory."""
        return self.report is not None and bool(self.report["killed"])


class RepositoryWorker:
    """A warm jail with pytest imported. Not for several threads at once.

    Args:
        isolated: whether it is a jail at all.
        more: folders of packages that come before this environment's.
    """

    def __init__(self, *, isolated: bool, more: tuple[str, ...] = ()) -> None:
        self._isolated = isolated
        self._more = more
        self._server: ForkServer | None = None
        self._runs = 0

    def run(
        self,
        before: Mapping[str, str],
        after: Mapping[str, str],
        tests: RepositoryTests,
        *,
        shuffled: bool = False,
        hidden: Sequence[str] = (),
    ) -> RepositoryRun:
        """Run the tests of a task on the tree `after` an answer, in the suite's order or in a new one of no order.

        Args:
            before: the task's tree.
            after: the answer's.
            tests: of the task.
            shuffled: whether the order is drawn anew.
            hidden: what of this machine the jail does not show (`copies.installed_copies`).

        Raises:
            ServerBroken: the jail is gone; nothing is known about the answer.
            MachineryFailed: the jail cannot be started.
        """
        tree, notes = graded_tree(before, after, tests)
        wanted = [*tests.fail_to_pass, *tests.pass_to_pass]
        canary = canaries(wanted, list(tree))
        changed = [path for path in tree if path.endswith(".py") and tree[path] != before.get(path)]
        modules = sorted({test_id.partition("::")[0] for test_id in wanted} & set(tree) | {canary.path})
        random.Random(secrets.randbits(32)).shuffle(modules)
        payload: dict[str, Any] = {
            "files": {**tree, canary.path: canary.text},
            "changed": [path for path in changed if path not in tests.test_files],
            "wanted": [*wanted, *canary.statuses],
            "modules": modules,
            "pristine": [path for path in modules if path in before and tree[path] == before[path]],
            "source_roots": list(tests.source_roots),
            "confine": self._isolated,
            "shuffle": secrets.randbits(32) if shuffled else None,
        }
        began = time.monotonic()
        try:
            server = self._started()
            self._runs += 1
            place = f"{server.scratch}/{self._runs}"
            payload |= {"root": f"{place}/repository", "scratch": f"{place}/scratch"}
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    server.start(payload, PYTEST, theirs, hidden=hidden)
                report = read_report(ours, began + most_wall_seconds(PYTEST) + 2.0)
            ended = server.finish(stop_after=0.5)
            if ended.cause is Cause.INFRASTRUCTURE:
                raise ServerBroken(ended.error or ended.output)
        except BaseException:
            self.close()
            raise
        return RepositoryRun(report, ended, canary, notes, time.monotonic() - began)

    def close(self) -> None:
        """End the jail; the next run starts it again."""
        if self._server is not None:
            self._server.close()
        self._server = None

    def _started(self) -> ForkServer:
        if self._server is None:
            self._server = ForkServer(
                programs("wire", "landlock", "pytest_job"),
                preload=("pytest", "unittest", "socket"),
                isolated=self._isolated,
                nested=True,
                python_path=(*self._more, *packages()),
            )
        return self._server


def judge_repository(run: RepositoryRun, tests: RepositoryTests, isolation: str) -> Verdict:
    """The verdict on a run that our machinery carried through."""
    results = _results(run, tests)
    outcome, evidence = _outcome(run, results)
    return Verdict(
        outcome,
        tests=results,
        evidence=tuple(line for line in (*evidence, *run.notes) if line),
        wall_seconds=run.wall_seconds,
        isolation=isolation,
    )


def _results(run: RepositoryRun, tests: RepositoryTests) -> tuple[TestResult, ...]:
    ran = run.report["tests"] if run.report is not None else {}
    results = []
    for name in (*tests.fail_to_pass, *tests.pass_to_pass):
        status, detail = ran.get(name, ("missing", "it did not run to its end"))
        as_it_should = status == "passed" if name in tests.fail_to_pass else status in _HELD
        failed = status in ("failed", "xfailed")
        held = TestStatus.PASSED if as_it_should else TestStatus.FAILED if failed else TestStatus.MISSING
        results.append(TestResult(name, held, False, detail if held is not TestStatus.PASSED else ""))
    return tuple(results)


def _outcome(run: RepositoryRun, results: tuple[TestResult, ...]) -> tuple[Outcome, tuple[str, ...]]:
    report = run.report
    if run.ended.cause in _ENDINGS:
        return _ENDINGS[run.ended.cause], (f"ended by the limit: {run.ended.cause}", run.ended.output[-300:])
    if report is None:
        return Outcome.CRASHED, ("the process that watches the tests ended without a report", run.ended.output[-300:])
    if report["syntax"]:
        return Outcome.SYNTAX_ERROR, (str(report["syntax"]),)
    if report["tampered"]:
        return Outcome.TAMPERED, (str(report["tampered"]),)
    errors = tuple(str(error) for error in report["errors"][:3])
    lied = [name for name, status in run.canaries.statuses.items() if report["tests"].get(name, [status])[0] != status]
    if lied:
        return Outcome.TAMPERED, (f"{len(lied)} tests whose end is known were reported otherwise", *errors)
    if not report["done"]:
        return Outcome.CRASHED, ("the tests ended their own process", *errors)
    missing = [name for name in run.canaries.statuses if name not in report["tests"]]
    if missing and not errors:
        return Outcome.TAMPERED, (f"{len(missing)} tests that are known to run did not",)
    if results and not missing and all(result.status is TestStatus.PASSED for result in results):
        return Outcome.PASSED, ()
    return Outcome.FAILED, errors


def packages() -> tuple[str, ...]:
    """Folders of this environment's packages: pytest, and what the repository under test needs.

    Raises:
        MachineryFailed: pytest is not installed.
    """
    import importlib.util

    found = importlib.util.find_spec("pytest")
    if found is None or found.origin is None:
        raise MachineryFailed(
            "pytest is not installed", where="repository tests", mend="run `pip install pytest` in this environment"
        )
    paths = sysconfig.get_paths()
    folders = (str(Path(found.origin).parent.parent), paths["purelib"], paths["platlib"])
    return tuple(folder for folder in dict.fromkeys(folders) if Path(folder).is_dir())
