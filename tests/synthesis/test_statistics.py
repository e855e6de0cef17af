"""What a set of tasks is made of."""

from __future__ import annotations

from code_repair_rl.synthesis.statistics import statistics_of
from tests.evaluation.tasks_for_tests import task


def test_every_bug_of_a_combined_task_counts() -> None:
    found = statistics_of([task(0, operator="comparison"), task(1, operator="arithmetic+comparison")])
    assert {name: sum(counts.values()) for name, counts in found.operators.items()} == {
        "comparison": 2,
        "arithmetic": 1,
    }
    assert next(iter(found.operators)) == "comparison"
