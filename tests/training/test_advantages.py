"""The policy is its own baseline, and an answer without a verdict is no part of it."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.training.advantages import advantages, has_signal

rewards = st.one_of(st.none(), st.floats(min_value=0, max_value=1))
groups = st.lists(st.lists(rewards, min_size=1, max_size=8), min_size=1, max_size=5)


@given(groups)
def test_advantages_of_a_group_sum_to_zero_and_no_verdict_has_none(batch: list[list[float | None]]) -> None:
    for given_rewards, found in zip(batch, advantages(batch), strict=True):
        assert [value is None for value in found] == [reward is None for reward in given_rewards]
        assert sum(value for value in found if value is not None) == pytest.approx(0, abs=1e-9)


@given(st.lists(st.floats(min_value=0, max_value=1), min_size=2, max_size=8), st.integers(0, 8))
def test_an_answer_without_a_verdict_changes_nothing_for_the_others(group: list[float], place: int) -> None:
    with_gap: list[float | None] = [*group[:place], None, *group[place:]]
    without_gap = advantages([group], "group")[0]
    assert [value for value in advantages([with_gap], "group")[0] if value is not None] == without_gap


def test_scaling_divides_by_the_sample_deviation() -> None:
    group = [1.0, 0.0, 0.0, 0.5]
    plain = advantages([group])[0]
    scaled = advantages([group], "group")[0]
    divisor = statistics.stdev(group) + 1e-4
    assert scaled == pytest.approx([value / divisor for value in plain if value is not None])


def test_batch_scaling_uses_all_groups() -> None:
    batch = [[1.0, 0.0], [0.3, 0.1]]
    divisor = statistics.stdev([1.0, 0.0, 0.3, 0.1]) + 1e-4
    assert advantages(batch, "batch")[1] == pytest.approx([0.1 / divisor, -0.1 / divisor])


def test_equal_rewards_give_exactly_zero() -> None:
    assert advantages([[0.1] * 3], "group") == [[0.0] * 3]
    assert not has_signal([0.1, 0.1, None])
    assert not has_signal([None, None])
    assert has_signal([0.1, 0.2, None])
