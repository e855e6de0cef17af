"""Did it work: the verdict on one answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from code_repair_rl.tasks import RepositoryTests, Task

GRADER_VERSION = "2"
_OF_REPOSITORIES = "3"
"""Part of every cache key: raise one whenever the same answer could get another verdict."""


def grader_version(*tasks: Task) -> str:
    """The version of the grader as far as the tasks' tests are concerned; of several, the newest."""
    repositories = any(isinstance(task.tests, RepositoryTests) for task in tasks)
    return _OF_REPOSITORIES if repositories else GRADER_VERSION


class Outcome(StrEnum):
    """How grading ended. Only `PASSED` is a pass; only `NO_VERDICT` says nothing about the answer."""

    PASSED = "passed"
    """Every test ran and held."""
    FAILED = "failed"
    """The code ran, and at least one test did not hold."""
    UNCHANGED = "unchanged"
    """The answer was read and applied, and every file is as it was before."""
    EDIT_REJECTED = "edit-rejected"
    """The answer could not be read or applied, or edits what it must not; `edit_error` says why."""
    SYNTAX_ERROR = "syntax-error"
    """The edited code does not compile."""
    TIMEOUT = "timeout"
    """The wall-clock or CPU limit ended the job."""
    OUT_OF_MEMORY = "out-of-memory"
    """The memory limit ended the job."""
    CRASHED = "crashed"
    """The code ended its own process: a signal, `os._exit`, an exception at import."""
    OUTPUT_LIMIT = "output-limit"
    """The code wrote more than the limit allows."""
    TAMPERED = "tampered"
    """The code interfered with its grading, and was found out."""
    UNTESTED = "untested"
    """The answer was applied, the task has no tests, and the answer is not the known-good one: no pass, and no proof
    that it does not work."""
    NO_VERDICT = "no-verdict"
    """Our own machinery failed, also on the retry. Never turned into a zero."""


class TestStatus(StrEnum):
    """How one test ended."""

    __test__ = False  # a name that pytest would collect

    PASSED = "passed"
    """Ran and held."""
    FAILED = "failed"
    """Ran and did not hold, or raised."""
    MISSING = "missing"
    """Was expected and did not run to its end: skipped, not collected, or cut off."""


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test of a verdict."""

    __test__ = False

    name: str
    status: TestStatus
    visible: bool = False
    """Whether a model may be shown this test."""
    detail: str = ""
    """What went wrong, as a person would want to read it. May hold expected values: never show it to a model
    unless `visible`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What grading one answer found."""

    outcome: Outcome
    tests: tuple[TestResult, ...] = ()
    edit_error: str | None = None
    """The `EditError`'s kind where the outcome is `EDIT_REJECTED`."""
    tolerance: str | None = None
    """The rung of tolerance that applying the answer needed (`exact` is the cleanest); None if not applied."""
    evidence: tuple[str, ...] = ()
    """What led to the outcome: messages, limits hit, signs of tampering."""
    wall_seconds: float = 0.0
    isolation: str = "none"
    """The isolation tier the code ran under; `none` where nothing was run, `unsafe-local` where it was asked for."""
    grader_version: str = GRADER_VERSION
    cached: bool = False

    @property
    def passed(self) -> bool:
        """True only for a pass."""
        return self.outcome is Outcome.PASSED

    @property
    def score(self) -> float | None:
        """1.0 for a pass, None for no verdict, 0.0 for everything else."""
        if self.outcome is Outcome.NO_VERDICT:
            return None
        return 1.0 if self.passed else 0.0

    @property
    def applied(self) -> bool:
        """Whether the answer was read and applied to the files (it may still have changed nothing)."""
        return self.outcome not in (Outcome.EDIT_REJECTED, Outcome.NO_VERDICT)


def no_verdict(why: str, isolation: str) -> Verdict:
    """Our machinery failed, and says how."""
    return Verdict(Outcome.NO_VERDICT, evidence=(why,), isolation=isolation)
