"""Micro-batches lose no answer that counts, stay within their tokens, and add up to the mean over all answers."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.runs import RolloutRow, Turn
from code_repair_rl.training.batches import drawn_tokens, micro_batches, tensors


def row(group: int, sample: int, advantage: float | None, tokens: int = 3) -> RolloutRow:
    return RolloutRow(
        step=1,
        task_id=f"t{group}",
        problem=f"p{group}",
        split="train",
        group=group,
        sample=sample,
        hint="none",
        prompt="",
        prompt_ids=tuple(range(1, 3 + group % 4)),
        token_ids=tuple(range(tokens)),
        logprobs=(-0.5,) * tokens,
        text="",
        finish_reason="stop",
        outcome="failed",
        passed=False,
        score=None if advantage is None else 0.0,
        advantage=advantage,
    )


values = st.one_of(st.none(), st.just(0.0), st.floats(min_value=-1, max_value=1))
steps = st.lists(st.lists(values, min_size=1, max_size=4), min_size=1, max_size=6)


@given(steps, st.integers(1, 4), st.booleans(), st.integers(1, 60))
def test_rows_that_count_are_dealt_once(
    advantages: list[list[float | None]], count: int, keep_silent: bool, most_tokens: int
) -> None:
    groups = [[row(g, s, a) for s, a in enumerate(group)] for g, group in enumerate(advantages)]
    batches = micro_batches(groups, count, most_tokens=most_tokens, keep_silent=keep_silent)
    dealt = sorted((one.group, one.sample) for batch in batches for one in batch.rows)
    expected = sorted(
        (one.group, one.sample)
        for group in groups
        for one in group
        if one.advantage is not None and (keep_silent or one.advantage != 0.0)
    )
    assert len(batches) == count
    assert dealt == expected
    filled = [bool(batch.rows) for batch in batches]
    assert filled == sorted(filled), "a step ends with a real micro-batch, where there is one"


def test_an_attempt_without_a_token_counts_and_is_not_computed() -> None:
    group = [row(0, 0, 0.5), row(0, 1, -0.5, tokens=0)]
    (batch,) = micro_batches([group], 1, most_tokens=100, keep_silent=True)
    assert [one.sample for one in batch.rows] == [0]
    assert batch.loss_scale == 0.5


def test_a_long_prompt_is_not_computed_again_for_the_sake_of_short_answers() -> None:
    def answer(sample: int, tokens: int) -> RolloutRow:
        own = tuple(range(1000 * sample, 1000 * sample + tokens))
        return dataclasses.replace(row(0, sample, 1.0, tokens), prompt_ids=tuple(range(100)), token_ids=own)

    short = [answer(sample, 5) for sample in range(8)]
    assert [len(one.rows) for one in micro_batches([short], 1, most_tokens=60)] == [8]
    long = [answer(sample, 40) for sample in range(8)]
    assert [len(one.rows) for one in micro_batches([long], 8, most_tokens=60) if one.rows] == [2, 2, 2, 2]


def distinct_beginnings(rows: list[RolloutRow]) -> int:
    """What one group's answers cost where common beginnings are computed once."""
    ids = [tuple(one.token_ids) for one in rows]
    return len({one[:stop] for one in ids for stop in range(1, len(one) + 1)})


@given(steps, st.integers(1, 60))
def test_no_micro_batch_exceeds_its_tokens_and_small_groups_stay_whole(
    advantages: list[list[float | None]], most_tokens: int
) -> None:
    groups = [[row(g, s, a) for s, a in enumerate(group)] for g, group in enumerate(advantages)]
    batches = [batch for batch in micro_batches(groups, 24, most_tokens=most_tokens) if batch.rows]
    homes: dict[int, int] = {}
    for batch in batches:
        together = {one.group: one.prompt_ids for one in batch.rows}
        cost = sum(map(len, together.values()))
        cost += sum(distinct_beginnings([one for one in batch.rows if one.group == group]) for group in together)
        alone = max(len(one.prompt_ids) + len(one.token_ids) for one in batch.rows)
        assert cost <= most_tokens or len(batch.rows) == 1 or (len(together) == 1 and cost <= 1.5 * alone)
        for group in together:
            homes[group] = homes.get(group, 0) + 1
    for group, count in homes.items():
        whole = len(groups[group][0].prompt_ids) + distinct_beginnings(groups[group])
        assert count == 1 or whole > most_tokens


@given(steps, st.integers(1, 4))
def test_scaled_means_add_up_to_the_mean_over_all_answers_with_a_verdict(
    advantages: list[list[float | None]], count: int
) -> None:
    groups = [[row(g, s, a) for s, a in enumerate(group)] for g, group in enumerate(advantages)]
    scored = [a for group in advantages for a in group if a is not None]
    total = sum(
        sum(one.advantage or 0.0 for one in batch.rows) / len(batch.rows) / count * batch.loss_scale
        for batch in micro_batches(groups, count, most_tokens=12)
        if batch.rows
    )
    assert total == pytest.approx(sum(scored) / len(scored) if scored else 0.0, abs=1e-9)


def test_tensors_are_padded_outside_of_prompt_and_completion() -> None:
    found = tensors([row(0, 0, 0.5, tokens=2), row(3, 0, -0.5, tokens=4)], pad_id=9)
    assert found["prompt_ids"].tolist() == [[9, 9, 9, 1, 2], [1, 2, 3, 4, 5]]
    assert found["prompt_mask"].tolist() == [[0, 0, 0, 1, 1], [1] * 5]
    assert found["completion_ids"].tolist() == [[0, 1, 9, 9], [0, 1, 2, 3]]
    assert found["completion_mask"].tolist() == [[1, 1, 0, 0], [1] * 4]
    assert found["old_per_token_logps"][0].tolist() == [-0.5, -0.5, 0.0, 0.0]
    assert found["tool_mask"].tolist() == [[1, 1, 0, 0], [1] * 4]
    assert found["advantages"].tolist() == [0.5, -0.5]


def test_of_an_answer_that_was_cut_off_no_token_carries_a_loss() -> None:
    cut = dataclasses.replace(row(0, 0, 0.5, tokens=4), finish_reason="length")
    assert (drawn_tokens([cut], True), drawn_tokens([cut], False)) == (0, 4)
    turns = tuple(
        Turn(role="assistant", text="", start=start, end=start + 2, finish_reason=reason)
        for start, reason in ((0, "length"), (3, "stop"))
    )
    several = dataclasses.replace(row(0, 1, 0.5, tokens=5), turns=turns, sampled=(True, True, False, True, True))
    assert several.uncut == (False, False, False, True, True)
    assert drawn_tokens([cut, several], True) == 2
    older = dataclasses.replace(several, turns=tuple(dataclasses.replace(t, finish_reason="") for t in turns))
    assert older.uncut == several.sampled


def test_tokens_of_the_environment_are_marked() -> None:
    one = dataclasses.replace(row(0, 0, 0.5, tokens=3), sampled=(True, False, True))
    found = tensors([one, row(0, 1, 0.5, tokens=2)], pad_id=9)
    assert found["tool_mask"].tolist() == [[1, 0, 1], [1, 1, 0]]
    assert found["completion_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
