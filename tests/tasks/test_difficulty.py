"""Pass rates add up over runs, and filter and order tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.tasks.difficulty import (
    PassRate,
    easiest_first,
    hardest_first,
    pass_rates,
    record_pass_rates,
    within,
)
from tests.tasks.examples import addition


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "home"))


def test_what_is_recorded_adds_up_for_each_model_and_hint() -> None:
    record_pass_rates("owner/model", "none", {"a": PassRate(1, 4), "b": PassRate(0, 4)})
    record_pass_rates("owner/model", "none", {"a": PassRate(3, 4)})
    record_pass_rates("owner/model", "exact-line", {"a": PassRate(4, 4)})
    assert pass_rates("owner/model", "none") == {"a": PassRate(4, 8), "b": PassRate(0, 4)}
    assert pass_rates("owner/model", "exact-line")["a"].rate == 1
    assert pass_rates("owner/other", "none") == {}


def test_the_same_evaluation_is_added_only_once() -> None:
    for source in ("one", "one", "two", "one"):
        record_pass_rates("m", "none", {"a": PassRate(1, 2)}, source=source)
    assert pass_rates("m", "none") == {"a": PassRate(2, 4)}


def test_tasks_are_filtered_and_ordered_by_their_rates() -> None:
    tasks = [addition(name) for name in "abcd"]
    rates = {"a": PassRate(0, 4), "b": PassRate(2, 4), "c": PassRate(4, 4), "d": PassRate(0, 0)}
    assert [task.task_id for task in within(tasks, rates, lowest=0.1, highest=0.9)] == ["b"]
    assert [task.task_id for task in within(tasks, rates)] == ["a", "b", "c"]
    assert [task.task_id for task in easiest_first(tasks, rates)] == ["c", "b", "a", "d"]
    assert [task.task_id for task in hardest_first(tasks, rates)] == ["a", "b", "c", "d"]


def test_a_damaged_file_is_named() -> None:
    path = record_pass_rates("m", "none", {"a": PassRate(1, 1)})
    path.write_text('{"a": 3}')
    with pytest.raises(BadInput, match=r"none\.json: damaged pass rates"):
        pass_rates("m", "none")
