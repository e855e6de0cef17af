"""Our own machinery failing: retried, then no verdict; never a zero, never lost, and no way out for an answer."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.grading import Grader, Outcome
from code_repair_rl.grading.function_worker import Found, FunctionWorker
from code_repair_rl.sandbox.fork_server import ForkServer, ServerBroken
from tests.grading.sample import GOOD, answer, function_task

TASK = function_task()


@pytest.fixture
def fresh() -> Iterator[Grader]:
    with Grader(workers=1) as grader:
        grader.grade(TASK, answer(GOOD))
        yield grader


def servers(grader: Grader) -> list[ForkServer]:
    worker = grader._all[0].function
    assert worker._candidate is not None and worker._trusted is not None
    return [worker._candidate, worker._trusted]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("inside", [True, False])
def test_a_killed_jail_is_started_again(fresh: Grader, which: int, inside: bool) -> None:
    jail = psutil.Process(servers(fresh)[which].pid)
    for process in jail.children(recursive=True) if inside else [jail]:
        with suppress(psutil.NoSuchProcess):  # the end of the first may be the end of the others
            process.kill()
    verdict = fresh.grade(TASK, answer(GOOD + f"# {which} {inside}\n"))
    assert verdict.outcome is Outcome.PASSED, verdict


@pytest.mark.parametrize("which", [0, 1])
def test_a_jail_killed_in_the_middle_of_a_check_loses_no_answer(fresh: Grader, which: int) -> None:
    slow = "import time\ndef mean(numbers):\n    time.sleep(0.2)\n    return sum(numbers) / len(numbers)\n"
    pid = servers(fresh)[which].pid

    def kill() -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            inside = psutil.Process(pid).children(recursive=True)
            if len(inside) > 2:  # bubblewrap's own first process, the server, and now its job
                inside[1].kill()
                return

    killer = threading.Thread(target=kill)
    killer.start()
    verdict = fresh.grade(TASK, answer(slow))
    killer.join()
    assert verdict.outcome is Outcome.PASSED, verdict


def test_a_cut_connection_is_mended(fresh: Grader) -> None:
    servers(fresh)[0]._control.close()
    assert fresh.grade(TASK, answer(GOOD + "# cut\n")).passed


def test_where_every_worker_breaks_there_is_no_verdict_and_it_is_not_kept(
    fresh: Grader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_processes(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with monkeypatch.context() as patch:
        fresh.close()
        patch.setattr("code_repair_rl.sandbox.fork_server.subprocess.Popen", out_of_processes)
        verdict = fresh.grade(TASK, answer(GOOD + "# broken\n"))
        assert verdict.outcome is Outcome.NO_VERDICT and verdict.score is None
        assert "temporarily unavailable" in verdict.evidence[0]
    assert fresh.grade(TASK, answer(GOOD + "# broken\n")).passed


def test_a_stall_while_the_measure_is_taken_costs_one_verdict_and_not_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    check = FunctionWorker.check
    stalls = [True]

    def stalled(self: FunctionWorker, *given: object) -> Found:
        found = check(self, *given)  # type: ignore[arg-type]
        return replace(found, report=None) if stalls.pop() else found

    with Grader(workers=1) as grader:
        monkeypatch.setattr(FunctionWorker, "check", stalled)
        assert grader.grade(TASK, answer(GOOD + "# first\n")).outcome is Outcome.NO_VERDICT
        stalls += [False] * 2
        assert grader.grade(TASK, answer(GOOD + "# second\n")).passed


def test_an_answer_that_breaks_its_worker_twice_is_scored(fresh: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    check = FunctionWorker.check

    def breaks(self: FunctionWorker, files: dict[str, str], *rest: object) -> object:
        if any("# breaks" in text for text in files.values()):
            raise ServerBroken("the fork server ended with 137")
        return check(self, files, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(FunctionWorker, "check", breaks)
    verdict = fresh.grade(TASK, answer(GOOD + "# breaks\n"))
    assert verdict.outcome is Outcome.CRASHED and verdict.score == 0.0


def test_a_full_disk_costs_no_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise MachineryFailed("no room left on the disk")

    monkeypatch.setattr("code_repair_rl.grading.cache.write_atomically", full)
    with Grader(workers=1, cache=tmp_path) as grader:
        assert grader.grade(TASK, answer(GOOD)).passed


def test_an_interrupt_ends_at_once_and_leaves_a_grader_that_works() -> None:
    spins = answer("def mean(numbers):\n    while True: pass\n")
    with Grader(workers=2) as grader:
        grader.grade(TASK, answer(GOOD))

        def interrupt(_: int) -> None:
            raise KeyboardInterrupt

        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            grader.grade_many(
                [(TASK, "no edit"), (TASK, spins), *[(TASK, spins + " " * k) for k in range(40)]], interrupt
            )
        assert time.monotonic() - began < 8
        assert grader.grade(TASK, answer(GOOD + "# again\n")).passed


def test_nothing_runs_between_answers(fresh: Grader) -> None:
    jails = [psutil.Process(server.pid) for server in servers(fresh)]
    inside = [process for jail in jails for process in (jail, *jail.children(recursive=True))]

    def switches() -> list[int]:
        return [process.num_ctx_switches().voluntary for process in inside]

    def quiet_for_half_a_second() -> bool:
        before = switches()
        threading.Event().wait(0.5)
        return switches() == before

    # A server that has just answered may still be on its way back to waiting; one that did something now and then would
    # never be quiet twice in a row.
    assert any(quiet_for_half_a_second() for _ in range(4)) and quiet_for_half_a_second()


def test_wrong_use_is_refused() -> None:
    with pytest.raises(BadInput):
        Grader(workers=0)
    with pytest.raises(BadInput):
        Grader(backend="none")
