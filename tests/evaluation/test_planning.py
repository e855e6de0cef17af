from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from code_repair_rl.evaluation import plan, plan_from, planning_line, signal_line
from tests.evaluation.simulation import coverage, planned_power
from tests.evaluation.test_comparison import random_result, result


@given(st.integers(4, 60), st.integers(1, 16), st.floats(0.01, 0.25))
def test_problems_with_one_task_each_give_the_textbook_paired_t_test(tasks: int, samples: int, spread: float) -> None:
    found = plan([str(i) for i in range(tasks)], samples, spread, gain_spread=0.2)
    error = math.sqrt((2 * spread / samples + 0.2**2) / tasks)
    assert found.standard_error == pytest.approx(error)
    assert found.df == pytest.approx(tasks - 1)
    critical = stats.t.ppf(0.975, tasks - 1)
    power = stats.nct.sf(critical, tasks - 1, 0.1 / error) + stats.nct.cdf(-critical, tasks - 1, 0.1 / error)
    assert found.power(0.1) == pytest.approx(power, nan_ok=True, abs=1e-6)


def test_more_tasks_of_the_same_problems_help_less_than_more_problems() -> None:
    few = plan([f"p{i % 20}" for i in range(40)], 4, 0.15)
    deep = plan([f"p{i % 20}" for i in range(160)], 4, 0.15)
    broad = plan([f"p{i % 80}" for i in range(160)], 4, 0.15)
    assert few.smallest_detectable > deep.smallest_detectable > 1.5 * broad.smallest_detectable
    assert deep.power(deep.smallest_detectable) == pytest.approx(0.8, abs=1e-6)


def test_a_plan_from_an_evaluation_reads_its_answers_spread() -> None:
    rng = np.random.default_rng(3)
    rates = rng.beta(2, 2, 400)
    outcomes = (rng.random((400, 4)) < rates[:, None]).tolist()
    found = plan_from(result("a", outcomes, [f"p{i % 100}" for i in range(400)]), gain_spread=0.0)
    assert found is not None
    truth = math.sqrt(2 * float((rates * (1 - rates)).mean()) / 4 / 400)
    assert found.standard_error == pytest.approx(truth, rel=0.05)
    assert "400 tasks of 100 problems, 4 answers each" in planning_line(found)


def test_what_cannot_be_told_is_not() -> None:
    assert plan_from(result("a", [[True], [False]])) is None  # one answer each says nothing about their spread
    assert plan_from(random_result("a", 0.5, 1, tasks=3)) is None  # one problem
    with pytest.raises(ValueError, match="two problems"):
        plan(["a", "a"], 4, 0.2)


@pytest.mark.parametrize("gain", [0.05, 0.11, 0.15])  # 0.11 leaves 10 points: rates end at 0 and 1
def test_a_gain_is_found_with_the_planned_power_in_2000_repeats(gain: float) -> None:
    found = coverage(repeats=2000, problems=30, mean=0.4, seed=6, gain=gain)
    assert found.found == pytest.approx(planned_power(found), abs=0.06)
    assert 0.93 <= found.paired <= 0.97


def test_only_tasks_solved_sometimes_teach() -> None:
    found = signal_line(result("a", [[True, False], [True, True], [False, False], [False, True]], ["p", "q", "r", "s"]))
    assert found is not None
    assert found.startswith(
        "2 of 4 tasks (50 %) were solved by some of their 2 answers and not by others, 1 by none, 1 by all"
    )
    assert signal_line(result("a", [[True], [False]])) is None
