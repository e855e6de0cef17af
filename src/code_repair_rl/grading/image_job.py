"""Repository tests in a container image that brings the repository's own environment, Python or not.

The image's repository is copied inside the container, the whole graded tree is laid over the copy, and the test
command runs there without network. What it prints is read for the tests' ends: pytest's `-rA` summary, unittest's and
Django's verbose lines, `go test -v`, `cargo test`, TAP and the ticks of JavaScript runners. Unlike in the jail for
Python, the log is the tested code's own word: a test that is reported in two ways has failed, and more cannot be known.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping

from code_repair_rl.errors import MachineryFailed
from code_repair_rl.grading.policy import graded_tree
from code_repair_rl.grading.verdict import Outcome, TestResult, TestStatus, Verdict
from code_repair_rl.sandbox.containers import Container
from code_repair_rl.sandbox.job import Cause, Job
from code_repair_rl.sandbox.limits import GIB, MIB, Limits
from code_repair_rl.tasks import Environment, RepositoryTests

LIMITS = Limits(
    wall_seconds=1800.0,
    cpu_seconds=1800,
    memory_bytes=8 * GIB,
    processes=512,
    disk_bytes=4 * GIB,
    file_bytes=GIB,
    open_files=4096,
    output_bytes=64 * MIB,
)
"""As generous as the harness of SWE-bench (1,800 seconds an instance)."""

_NO_COPY = 97
"""Exit status of a script that has not run anything of the answer's."""
_BEGIN, _END = ">>>>> begin of the tests", ">>>>> end of the tests"
_ACTIVATE = (
    "[ -f /opt/miniconda3/bin/activate ] && . /opt/miniconda3/bin/activate testbed; "
    '[ -f "$copy/.venv/bin/activate" ] && . "$copy/.venv/bin/activate"; '
)
"""Where the images of SWE-bench, SWE-Gym and SWE-smith keep their environment, and those of R2E-Gym."""
_SHELL = 'exec "$(command -v bash || command -v sh)" -c "$1"'
"""conda's activation is written for bash; images without it have no conda."""

_PATTERNS = (
    re.compile(r"^(?P<status>PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) (?P<name>\S+(?:\[.*?\])?)(?: - .*)?$"),
    re.compile(r"^(?P<status>SUBFAILED).*? (?P<name>\S+::\S+(?:\[.*?\])?)(?: - .*)?$"),
    re.compile(r"^(?P<name>\w+ \([\w.]+\)) \.\.\. (?P<status>ok|FAIL|ERROR|skipped\b.*|expected failure)$"),
    re.compile(r"^\s*--- (?P<status>PASS|FAIL|SKIP): (?P<name>\S+)(?: \(.*\))?$"),
    re.compile(r"^test (?P<name>\S+)(?: - .*)? \.\.\. (?P<status>ok|FAILED|ignored)$"),
    re.compile(r"^\s*(?P<status>not ok|ok) \d+ (?:- )?(?P<name>.+?)(?: # .*)?$"),
    re.compile(r"^\s*(?P<status>[✓✔✕✗×]) (?P<name>.+?)(?: \(\d+(?:\.\d+)? ?m?s\))?$"),
)
_PASSED = {"PASSED", "XFAIL", "ok", "PASS", "expected failure", "✓", "✔"}
_SKIPPED = re.compile(r"SKIP|skipped|ignored")
_ENDINGS = {
    Cause.TIMEOUT: Outcome.TIMEOUT,
    Cause.OUT_OF_MEMORY: Outcome.OUT_OF_MEMORY,
    Cause.OUTPUT_LIMIT: Outcome.OUTPUT_LIMIT,
}


def run_in_image(
    container: Container,
    before: Mapping[str, str],
    after: Mapping[str, str],
    tests: RepositoryTests,
    environment: Environment,
) -> Verdict:
    """The verdict on the tree `after` an answer, by the tests' log.

    Raises:
        MachineryFailed: the container could not be run; nothing is known about the answer.
    """
    tree, notes = graded_tree(before, after, tests)
    gone = [path for path in before if path not in tree]
    began = time.monotonic()
    result = container.run(
        Job(
            argv=("/bin/sh", "-c", _SHELL, "sh", script(tests, environment, gone)),
            # All of it: the image may hold another state than the task's (of SWE-smith the one without the bug).
            files={f"tree/{path}": text for path, text in tree.items()},
            limits=LIMITS,
        )
    )
    if result.cause is Cause.INFRASTRUCTURE:
        raise MachineryFailed(f"the container ended: {result.error}", where=str(environment.image))
    log = result.stdout.decode(errors="replace")
    if result.exit_code == _NO_COPY and _BEGIN not in log:
        raise MachineryFailed(
            f"{environment.folder} could not be copied inside the container",
            where=str(environment.image),
            mend="see that the image has its repository there, and that it is of less than 4 GiB",
        )
    outcome, results, evidence = judge_log(log, tests, result.cause)
    return Verdict(
        outcome,
        tests=results,
        evidence=(*evidence, *notes),
        wall_seconds=time.monotonic() - began,
        isolation=container.isolation,
    )


def script(tests: RepositoryTests, environment: Environment, gone: list[str]) -> str:
    """What the container's shell runs.

    Args:
        tests: whose files pytest is given where the environment names no command of its own.
        environment: where the repository is, and how it is tested.
        gone: paths that the graded tree does not have.
    """
    ids = (*tests.fail_to_pass, *tests.pass_to_pass)
    modules = sorted({name.partition("::")[0] for name in ids if "::" in name} | set(tests.test_files))
    command = environment.command or f"python -m pytest -rA -p no:cacheprovider --tb=short {shlex.join(modules)}"
    removal = f"rm -f {shlex.join(gone)}; " if gone else ""
    folder = shlex.quote(environment.folder)
    return (
        f'job="$PWD"; copy="$(mktemp -d)/repository"; cp -R {folder} "$copy" && cd "$copy" || exit {_NO_COPY}; '
        'if [ -d "$job/tree" ]; then cp -R "$job/tree/." . || exit 98; fi; rm -rf .git; '
        f'{removal}{_ACTIVATE}export PYTHONPATH="$copy:$copy/src:$copy/lib:$PYTHONPATH" PYTHONDONTWRITEBYTECODE=1; '
        f"echo '{_BEGIN}'; {{ {command}; }} 2>&1; echo '{_END}'"
    )


def judge_log(
    log: str, tests: RepositoryTests, cause: Cause
) -> tuple[Outcome, tuple[TestResult, ...], tuple[str, ...]]:
    """Outcome, tests in their order, and evidence, from what the test command printed."""
    found = statuses(log)
    results = []
    for name in (*tests.fail_to_pass, *tests.pass_to_pass):
        status = found.get(name, TestStatus.MISSING)
        results.append(TestResult(name, status, False, "" if status is TestStatus.PASSED else "see the log"))
    ended_well = _END in log
    if cause in _ENDINGS:
        return _ENDINGS[cause], tuple(results), (f"ended by the limit: {cause}",)
    if _BEGIN not in log or not ended_well:
        return Outcome.CRASHED, tuple(results), ("the tests did not end", log[-300:])
    if results and all(one.status is TestStatus.PASSED for one in results):
        return Outcome.PASSED, tuple(results), ()
    return Outcome.FAILED, tuple(results), (log[-300:],)


def statuses(log: str) -> dict[str, TestStatus]:
    """How each test that a log names ended; one that is named with several ends has failed."""
    found: dict[str, TestStatus] = {}
    inside = log.partition(_BEGIN)[2].rpartition(_END)[0] if _BEGIN in log else log
    for line in inside.splitlines():
        for pattern in _PATTERNS:
            match = pattern.match(line.rstrip())
            if match is None:
                continue
            status = _status(match["status"])
            known = found.setdefault(match["name"], status)
            if known is not status:
                found[match["name"]] = TestStatus.FAILED
            break
    return found


def _status(word: str) -> TestStatus:
    if word in _PASSED:
        return TestStatus.PASSED
    return TestStatus.MISSING if _SKIPPED.match(word) else TestStatus.FAILED
