from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from code_repair_rl.evaluation import difference, pass_at_k, rate, wilson
from code_repair_rl.evaluation.estimates import clustered_mean
from tests.evaluation.simulation import coverage


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_k_subsets_with_a_pass(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    samples = [True] * c + [False] * (n - c)
    subsets = list(combinations(samples, k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_refuses_more_than_was_sampled() -> None:
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(4, 1, 5)


@given(st.integers(1, 400), st.data())
def test_wilson_agrees_with_scipy(total: int, data: st.DataObject) -> None:
    passed = data.draw(st.integers(0, total))
    theirs = stats.binomtest(passed, total).proportion_ci(0.95, method="wilson")
    assert wilson(passed, total) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_independent_trials_get_wilsons_interval() -> None:
    found = rate([1.0, 0.0, 0.0, 1.0, 0.0], list("abcde"))
    assert found.method == "wilson"
    assert (found.low, found.high) == wilson(2, 5)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40))
def test_single_observations_give_the_ordinary_t_interval(values: list[float]) -> None:
    if np.std(values) < 1e-6:
        return
    found = difference(values, [str(i) for i in range(len(values))])
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found.df == pytest.approx(len(values) - 1)
    assert found.low == pytest.approx(max(-1.0, theirs.low), abs=1e-9)
    assert found.high == pytest.approx(min(1.0, theirs.high), abs=1e-9)


def test_equal_clusters_give_the_t_interval_of_their_means() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0.1, 0.2, size=(12, 5)).clip(-1, 1)
    found = difference(list(values.ravel()), [str(i) for i in range(12) for _ in range(5)])
    theirs = stats.ttest_1samp(values.mean(axis=1), 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_cr2_and_its_degrees_of_freedom_agree_with_the_matrix_definition() -> None:
    """Bell and McCaffrey's definition, spelt out with the full hat and adjustment matrices."""
    rng = np.random.default_rng(2)
    sizes = [1, 3, 9, 2, 14, 5]
    labels = np.repeat(np.arange(len(sizes)), sizes)
    y = rng.normal(size=len(labels))
    n = len(y)
    hat = np.full((n, n), 1 / n)
    residuals = y - hat @ y
    variance, columns = 0.0, []
    for cluster in range(len(sizes)):
        rows = np.flatnonzero(labels == cluster)
        block = np.eye(len(rows)) - hat[np.ix_(rows, rows)]
        eigenvalues, vectors = np.linalg.eigh(block)
        adjust = vectors @ np.diag(eigenvalues**-0.5) @ vectors.T
        score = np.ones(len(rows)) @ adjust / n
        variance += float((score @ residuals[rows]) ** 2)
        columns.append((np.eye(n) - hat)[rows].T @ score)
    g = np.array(columns).T
    alike = (labels[:, None] == labels[None, :]).astype(float)
    eigenvalues = np.linalg.eigvalsh(g.T @ alike @ g)
    found = clustered_mean(list(y), [str(label) for label in labels])
    assert found.standard_error == pytest.approx(math.sqrt(variance))
    assert found.df == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from("abcdefg")), min_size=1, max_size=40))
def test_an_interval_holds_its_value_and_stays_within_zero_and_one(observations: list[tuple[float, str]]) -> None:
    values, clusters = [v for v, _ in observations], [c for _, c in observations]
    found = rate(values, clusters)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1
    assert found.high > found.low
    changed = difference([v - 0.5 for v in values], clusters)
    assert -1 <= changed.low <= changed.value <= changed.high <= 1


def test_repeating_a_task_within_its_problem_does_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(3)
    values = list(rng.integers(0, 2, 20).astype(float))
    clusters = [str(i) for i in range(20)]
    once, often = rate(values, clusters), rate(values * 10, clusters * 10)
    assert often.high - often.low > 0.9 * (once.high - once.low)


def test_no_pass_at_all_is_not_certainty() -> None:
    found = rate([0.0] * 60, [str(i // 2) for i in range(60)])
    assert found.low == 0.0
    # A rate at which 30 problems would all fail in 5 % of the cases.
    assert (1 - found.high) ** 30 == pytest.approx(0.05)


def test_nothing_observed_and_one_problem_only_say_so() -> None:
    assert math.isnan(rate([], []).value)
    assert (rate([0.5, 1.0], ["a", "a"]).low, rate([0.5, 1.0], ["a", "a"]).high) == (0.0, 1.0)


@pytest.mark.parametrize("size_matters", [False, True])
@pytest.mark.parametrize("mean", [0.1, 0.4, 0.6])
def test_intervals_cover_93_to_97_percent_in_2000_repeats(mean: float, size_matters: bool) -> None:
    found = coverage(repeats=2000, problems=30, mean=mean, seed=1, size_matters=size_matters)
    assert 0.93 <= found.rate <= 0.97
    assert 0.93 <= found.paired <= 0.97
