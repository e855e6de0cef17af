from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation import (
    EvalResult,
    SampleResult,
    TaskResult,
    compare,
    compare_each,
    compare_pooled,
    detection_power,
    holm,
    mcnemar_exact,
    sentences,
    smallest_detectable,
)
from tests.evaluation.simulation import coverage


def sample(passed: bool | None) -> SampleResult:
    outcome = "no-verdict" if passed is None else "passed" if passed else "failed"
    return SampleResult(
        outcome=outcome,
        passed=bool(passed),
        verdict=passed is not None,
        formatted=True,
        applied=True,
        truncated=False,
        tokens=10,
        right_place=True,
    )


def result(
    name: str, tasks: Sequence[Sequence[bool | None]], problems: Sequence[str] | None = None, **changes: object
) -> EvalResult:
    values: dict[str, object] = {
        "name": name,
        "model": f"runs/{name}",
        "task_set": "humaneval-bugs",
        "split": "test",
        "tasks_sha256": "0" * 64,
        "hint": "exact-line",
        "samples": max(map(len, tasks)),
        "temperature": 0.8,
        "max_new_tokens": 96,
        "seed": 0,
        "isolation": "bubblewrap",
        "grader_version": "1",
        "wall_seconds": 1.0,
        "tasks": tuple(
            TaskResult(
                task_id=f"t{i}",
                problem=problems[i] if problems else f"p{i}",
                operator="comparison",
                lines=5,
                samples=tuple(map(sample, outcomes)),
            )
            for i, outcomes in enumerate(tasks)
        ),
    }
    return EvalResult(**(values | changes))  # type: ignore[arg-type]


def random_result(name: str, rate: float, seed: int, tasks: int = 40, samples: int = 4) -> EvalResult:
    rng = np.random.default_rng(seed)
    return result(name, (rng.random((tasks, samples)) < rate).tolist(), [f"p{i // 3}" for i in range(tasks)])


def test_a_clear_gain_is_shown_and_named() -> None:
    found = compare(random_result("sft", 0.2, 1), random_result("grpo", 0.7, 2))
    one = found.pass_at[1]
    assert one.shown
    assert found.improved
    assert one.estimate.value == pytest.approx(one.after - one.before)
    assert one.p_value < 0.01
    assert len(found.gained) > len(found.lost)
    assert found.gained[0].after - found.gained[0].before >= found.gained[-1].after - found.gained[-1].before
    assert "shown to be better" in sentences(found)[0]


def test_the_same_answers_show_nothing_but_do_not_claim_certainty() -> None:
    one = random_result("a", 0.5, 1)
    found = compare(one, dataclasses.replace(one, name="b"))
    assert not found.improved
    assert (found.gained, found.lost) == ((), ())
    assert found.pass_at[1].p_value == 1.0
    assert found.pass_at[1].estimate.low < 0 < found.pass_at[1].estimate.high
    assert "no difference was shown" in sentences(found)[0]


def test_swapping_the_two_mirrors_everything() -> None:
    one, other = random_result("a", 0.3, 1), random_result("b", 0.5, 2)
    there, back = compare(one, other), compare(other, one)
    for k, found in there.pass_at.items():
        assert found.estimate.low == pytest.approx(-back.pass_at[k].estimate.high)
        assert found.p_value == pytest.approx(back.pass_at[k].p_value)
        assert found.smallest_detectable == pytest.approx(back.pass_at[k].smallest_detectable)
    assert [c.task_id for c in there.gained] == [c.task_id for c in back.lost]


def test_samples_without_a_verdict_leave_the_statistics() -> None:
    before = result("a", [[True, None], [False, False], [None, None], [True, False]])
    after = result("b", [[True, True], [True, None], [True, True], [True, False]])
    found = compare(before, after)
    assert found.left_out == 1
    assert found.pass_at[1].before == pytest.approx((1 + 0 + 0.5) / 3)
    assert found.pass_at[1].after == pytest.approx((1 + 1 + 0.5) / 3)
    # pass@2 needs two verdicts on both sides: only the last task has them.
    assert found.pass_at[2].estimate.tasks == 1


def test_one_answer_per_task_and_problem_is_mcnemars_case() -> None:
    before = result("a", [[False]] * 9 + [[True]] * 5)
    after = result("b", [[True]] * 8 + [[False]] + [[False]] + [[True]] * 4)
    one = compare(before, after).pass_at[1]
    assert one.p_method == "mcnemar-exact"
    assert one.p_value == pytest.approx(stats.binomtest(8, 9).pvalue)


def test_mcnemar_is_for_one_answer_per_task_and_one_task_per_problem_only() -> None:
    several_answers = [[True] * 4] * 6 + [[False] * 4] * 6  # every change is a whole one all the same
    swapped = [[True] * 4] * 3 + [[False] * 4] * 3 + [[True] * 4] * 6
    assert compare(result("a", several_answers), result("b", swapped)).pass_at[1].p_method == "cluster-t"
    shared = [f"p{i // 2}" for i in range(12)]
    once, other = [row[:1] for row in several_answers], [row[:1] for row in swapped]
    assert compare(result("a", once), result("b", other)).pass_at[1].p_method == "mcnemar-exact"
    assert compare(result("a", once, shared), result("b", other, shared)).pass_at[1].p_method == "cluster-t"
    pairs = [(result("a", once), result("b", other))] * 2
    assert compare_pooled(pairs).pass_at[1].p_method == "cluster-t"


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_two_sided_sign_test(gained: int, lost: int) -> None:
    tail = sum(math.comb(gained + lost, i) for i in range(min(gained, lost) + 1)) / 2 ** (gained + lost)
    assert mcnemar_exact(gained, lost) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)


def test_holm_agrees_with_the_worked_example() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": math.nan})
    assert {k: v for k, v in found.items() if k != "e"} == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert math.isnan(found["e"])


@given(st.floats(0.01, 0.5), st.integers(3, 200))
def test_the_smallest_detectable_difference_has_eighty_percent_power(error: float, df: int) -> None:
    assert detection_power(smallest_detectable(error, df), error, df) == pytest.approx(0.8, abs=1e-6)


def test_the_planning_line_agrees_with_simulation() -> None:
    found = coverage(repeats=300, problems=30, mean=0.4, seed=5)
    predicted = detection_power(found.truth, found.standard_error, found.df)
    assert found.found == pytest.approx(predicted, abs=0.08)


def test_pooling_seeds_counts_each_task_once() -> None:
    pairs = [(random_result(f"a{s}", 0.3, s), random_result(f"b{s}", 0.5, 100 + s)) for s in range(3)]
    alone, pooled = compare(*pairs[0]), compare_pooled(pairs)
    assert pooled.tasks == alone.tasks
    assert pooled.seeds == 3
    assert pooled.pass_at[1].estimate.value == pytest.approx(np.mean(pooled.seed_differences))
    assert pooled.over_seeds is not None
    theirs = stats.ttest_1samp(pooled.seed_differences, 0.0).confidence_interval(0.95)
    assert (pooled.over_seeds.low, pooled.over_seeds.high) == pytest.approx((theirs.low, theirs.high))
    repeated = compare_pooled([pairs[0]] * 3)
    assert repeated.pass_at[1].estimate.low == pytest.approx(alone.pass_at[1].estimate.low)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"hint": "none", "tasks_sha256": "1" * 64}, "tasks_sha256, hint"),
        ({"temperature": 1.0}, "temperature"),
        ({"max_new_tokens": 97}, "max_new_tokens"),
        ({"seed": 1}, "seed"),
        ({"split": "validation"}, "split"),
        ({"grader_version": "0"}, "grader_version"),
    ],
)
def test_results_of_different_questions_are_not_compared(changed: dict[str, object], named: str) -> None:
    one = random_result("a", 0.3, 1)
    with pytest.raises(BadInput, match=rf"differ in {named}\n"):
        compare(one, dataclasses.replace(one, name="b", **changed))  # type: ignore[arg-type]


def test_several_comparisons_are_corrected_for_their_number() -> None:
    base = random_result("base", 0.3, 1)
    others = [random_result(f"m{i}", rate, 10 + i) for i, rate in enumerate((0.32, 0.46, 0.8))]
    found = compare_each([base], [[other] for other in others])
    alone = [compare(base, other).pass_at[1].p_value for other in others]
    expected = holm({str(i): p for i, p in enumerate(alone)})
    assert [one.p_adjusted for one in found] == pytest.approx([expected[str(i)] for i in range(3)])
    assert [one.improved for one in found] == [p < 0.05 for p in expected.values()]
    assert found[2].improved
    assert not found[0].improved
    (single,) = compare_each([base], [[others[1]]])
    assert single.improved == single.comparison.improved
    with pytest.raises(BadInput, match="1 evaluations before and 2 after"):
        compare_each([base], [[others[0], others[1]]])
