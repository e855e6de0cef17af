"""Grading on a Ray cluster of several local nodes, one of which is killed midway. Needs the extra `ray`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.grading import Grader
from tests.grading.sample import BAD, GOOD, answer, function_task

ANSWERS = int(os.environ.get("CRRL_RAY_ANSWERS", "2000"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def numbered(count: int, remark: str = "# ") -> list[tuple[Any, str]]:
    """Answers that differ, so that no cache answers for them; every third is wrong."""
    task = function_task()
    return [
        (task, answer((BAD if number % 3 == 0 else GOOD).rstrip("\n") + f"  {remark}{number}\n"))
        for number in range(count)
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_that_dies_takes_no_verdict_with_it(cluster: Any) -> None:
    from code_repair_rl.grading.ray_grader import RayGrader

    answers = numbered(ANSWERS)
    victim = next(iter(cluster.worker_nodes))
    told: list[int] = []
    killed_at: list[int] = []

    def progress(done: int) -> None:
        told.append(done)
        if done >= ANSWERS // 2 and not killed_at:
            killed_at.append(done)
            cluster.remove_node(victim, allow_graceful=False)

    first, second = answers[: ANSWERS // 2], answers[ANSWERS // 2 :]
    with Grader(workers=2) as local, RayGrader(workers=1) as grader:
        assert grader.nodes == 3
        for warm in (local, grader):
            warm.grade_many(numbered(4, "# warm "))
        same, before = timed(local, first)
        begun = time.perf_counter()
        verdicts = grader.grade_many(answers, progress)
        on_ray = ANSWERS / (time.perf_counter() - begun)
        assert grader.nodes == 2
        more, after = timed(local, second)
    assert killed_at
    assert killed_at[0] < ANSWERS
    assert len(verdicts) == told[-1] == ANSWERS
    assert told == sorted(told)
    assert [verdict.passed for verdict in verdicts] == [number % 3 != 0 for number in range(ANSWERS)]
    assert all(verdict.score is not None for verdict in verdicts)
    assert [one.outcome for one in same + more] == [one.outcome for one in verdicts]
    print(
        f"\n{ANSWERS} answers on Ray: {on_ray:.1f}/s (3 nodes of one worker, one killed after {killed_at[0]}); "
        f"the local pool of two workers: {before:.1f}/s before, {after:.1f}/s after; "
        f"Ray over local {2 * on_ray / (before + after):.2f}; "
        f"{len(os.sched_getaffinity(0))} core(s), load average {os.getloadavg()[0]:.1f}"
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_tasks_are_validated_by_many_threads_on_all_nodes(cluster: Any) -> None:
    from code_repair_rl.grading.ray_grader import RayGrader
    from code_repair_rl.synthesis import validate

    good = [function_task().model_copy(update={"task_id": f"good/{number}"}) for number in range(12)]
    bad = function_task().model_copy(update={"task_id": "bad", "oracle": {"mean.py": f"{BAD}# changed\n"}})
    with RayGrader(workers=1) as grader:
        assert grader.at_once == 2 * grader.nodes
        kept, refused = validate([*good, bad], grader, workers=grader.at_once)
    assert kept == good
    assert [one.task for one in refused] == [bad]
    assert "known-good answer does not pass" in refused[0].reason


def timed(grader: Grader, answers: list[tuple[Any, str]]) -> tuple[list[Any], float]:
    """The verdicts, and how many a second."""
    begun = time.perf_counter()
    verdicts = grader.grade_many(answers)
    return verdicts, len(answers) / (time.perf_counter() - begun)


def test_without_ray_the_mend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from code_repair_rl.grading.ray_grader import RayGrader

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput, match="not installed") as caught:
        RayGrader()
    assert "[ray]" in str(caught.value.mend)
