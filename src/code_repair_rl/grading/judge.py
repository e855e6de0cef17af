"""From what a function check came to, to a verdict. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from code_repair_rl.grading.function_worker import Found
from code_repair_rl.grading.verdict import Outcome, TestResult, TestStatus, Verdict
from code_repair_rl.sandbox.job import Cause

_ENDINGS = {
    Cause.TIMEOUT: Outcome.TIMEOUT,
    Cause.OUT_OF_MEMORY: Outcome.OUT_OF_MEMORY,
    Cause.OUTPUT_LIMIT: Outcome.OUTPUT_LIMIT,
    Cause.CRASHED: Outcome.CRASHED,
    Cause.FINISHED: Outcome.CRASHED,
}
_BROKEN = {"syntax": Outcome.SYNTAX_ERROR, "import": Outcome.CRASHED, "missing": Outcome.FAILED}


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the known-good answer does under a task's tests."""

    tests: tuple[tuple[str, bool], ...]
    """Name and whether it is visible, in order."""
    calls: int
    wall_seconds: float


def expectation(found: Found) -> Expectation | str:
    """What the run of the known-good answer sets as the measure; a sentence where it did not pass."""
    report = found.report
    if report is None:
        return f"its tests did not end ({_how(found)})"
    if report["stopped"] or report["ended"] != "returned":
        return str(report["evidence"] or report["ended"])
    if report["greeting"].get("ready") is not True:
        return str(report["greeting"].get("why", "its code cannot be loaded"))
    failed = [test for test in report["tests"] if not test["passed"]]
    if failed:
        return f"{failed[0]['name']} fails: {failed[0]['detail']}"
    if not report["tests"]:
        return "its tests never call the function"
    tests = tuple((test["name"], test["visible"]) for test in report["tests"])
    return Expectation(tests, report["calls"], found.candidate.wall_seconds)


def came_to_its_end(found: Found) -> bool:
    """Whether what a run came to is the code's doing: it was not cut off, and nothing was killed."""
    return found.report is not None and not found.report["stopped"]


def judge(found: Found, expected: Expectation | None, isolation: str) -> Verdict:
    """The verdict on a check that our machinery carried through.

    Args:
        found: what came of it.
        expected: the measure; None while it is being set, when whatever ran must have passed.
        isolation: the tier it ran under.
    """
    tests = _results(found, expected)
    outcome, evidence = _outcome(found, expected, tests)
    return Verdict(
        outcome,
        tests=tests,
        evidence=tuple(line for line in evidence if line),
        wall_seconds=found.wall_seconds,
        isolation=isolation,
    )


def _outcome(
    found: Found, expected: Expectation | None, tests: tuple[TestResult, ...]
) -> tuple[Outcome, tuple[str, ...]]:
    report = found.report
    if report is None:
        ending = _ENDINGS.get(found.candidate.cause or Cause.TIMEOUT, Outcome.TIMEOUT)
        return ending, (f"the tests did not end: {_how(found)}",)
    evidence = str(report["evidence"])
    if report["stopped"] == "tampered":
        return Outcome.TAMPERED, (evidence,)
    if report["stopped"] == "memory":
        return Outcome.OUT_OF_MEMORY, (evidence,)
    if report["stopped"] == "gone":
        return _ENDINGS.get(found.candidate.cause or Cause.CRASHED, Outcome.CRASHED), (evidence, _how(found))
    greeting = report["greeting"]
    if greeting.get("ready") is not True:
        return _BROKEN.get(str(greeting.get("broken")), Outcome.TAMPERED), (str(greeting.get("why", "")),)
    held = bool(tests) and all(test.status is TestStatus.PASSED for test in tests)
    returned = report["ended"] == "returned" and not report["stopped"]
    counted = expected is None or report["calls"] == expected.calls
    if held and returned and counted:
        return Outcome.PASSED, ()
    if held and returned and expected is not None:
        evidence = f"the tests made {report['calls']} calls instead of {expected.calls}"
    failed = next((f"{test.name}: {test.detail}" for test in tests if test.status is not TestStatus.PASSED), "")
    return Outcome.FAILED, (failed, evidence)


def _results(found: Found, expected: Expectation | None) -> tuple[TestResult, ...]:
    """Every expected test with its status, then those that ran without being expected."""
    report = found.report
    ran = {test["name"]: test for test in report["tests"]} if report is not None else {}
    names = expected.tests if expected is not None else tuple((name, test["visible"]) for name, test in ran.items())
    reason = str(report["evidence"]) if report is not None else ""
    cut_off = report is not None and report["greeting"].get("ready") is True
    results = []
    for name, visible in names:
        test = ran.get(name)
        if test is not None:
            status = TestStatus.PASSED if test["passed"] else TestStatus.FAILED
            results.append(TestResult(name, status, visible, test["detail"]))
            continue
        # The first test that did not come to its end is the one that the answer broke.
        results.append(TestResult(name, TestStatus.FAILED if cut_off else TestStatus.MISSING, visible, reason))
        cut_off = False
    known = {name for name, _ in names}
    for name, test in ran.items():
        if name not in known:
            status = TestStatus.PASSED if test["passed"] else TestStatus.FAILED
            results.append(TestResult(name, status, test["visible"], test["detail"]))
    return tuple(results)


def _how(found: Found) -> str:
    ended = found.candidate
    how = ended.cause.value if ended.cause is not None else "stopped"
    code = f", exit status {ended.code}" if ended.code not in (-1, 0) else ""
    last = ended.output.strip().splitlines()[-1:] or [""]
    return f"the answer's process: {how}{code}" + (f", it said {last[0][:200]!r}" if last[0] else "")
