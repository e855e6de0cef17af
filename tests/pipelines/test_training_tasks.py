"""Which tasks a recipe trains on: what fits, what its pass rates allow, in its order; what is left out is counted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from code_repair_rl.errors import BadInput
from code_repair_rl.pipelines.parts import training_tasks
from code_repair_rl.recipes import Recipe
from code_repair_rl.rollouts.scripted import ScriptedEngine
from code_repair_rl.runs import SilentListener
from code_repair_rl.tasks import write_tasks
from code_repair_rl.tasks.difficulty import PassRate, record_pass_rates
from tests.tasks.examples import addition


class Told(SilentListener):
    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self.metrics |= metrics


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "home"))


@pytest.fixture
def tasks_file(tmp_path: Path) -> str:
    long = addition("long").model_copy(update={"description": "word " * 500})
    write_tasks(tmp_path / "tasks.jsonl", [*(addition(name) for name in "abcd"), long])
    return str(tmp_path / "tasks.jsonl")


def _ids(tasks_file: str, told: Told | None = None, **section: Any) -> list[str]:
    recipe = Recipe.model_validate({"name": "r", "tasks": {"name": tasks_file, "hint": "none", **section}})
    return [task.task_id for task in training_tasks(recipe, ScriptedEngine([""]), told)]


def test_prompts_that_do_not_fit_are_left_out_whole_and_counted(tasks_file: str) -> None:
    told = Told()
    assert sorted(_ids(tasks_file, told, max_prompt_tokens=1000)) == ["a", "b", "c", "d"]
    assert told.metrics == {"tasks/used": 4, "tasks/too_long": 1}


def test_pass_rates_filter_and_order(tasks_file: str) -> None:
    rates = {"a": PassRate(1, 4), "b": PassRate(4, 4), "c": PassRate(0, 4), "d": PassRate(3, 4)}
    record_pass_rates("sft", "none", rates)
    options = {"rated_by": "sft", "max_prompt_tokens": 1000}
    assert _ids(tasks_file, order="easiest-first", **options) == ["b", "d", "a", "c"]
    assert _ids(tasks_file, order="hardest-first", **options) == ["c", "a", "d", "b"]
    assert _ids(tasks_file, order="easiest-first", pass_rates=(0.1, 0.9), **options) == ["d", "a"]
    with pytest.raises(BadInput, match=r"none of the 5 training tasks has a pass rate of sft in \[0.4, 0.5\]"):
        _ids(tasks_file, pass_rates=(0.4, 0.5), **options)
    with pytest.raises(BadInput, match="no pass rates of other with the hint none"):
        _ids(tasks_file, rated_by="other")


@pytest.mark.parametrize(
    "section", [{"order": "easiest-first"}, {"pass_rates": (0.1, 0.9)}, {"pass_rates": (0.9, 0.1)}]
)
def test_recipes_that_do_not_say_whose_rates_are_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"rated_by has to name|lower one first"):
        Recipe.model_validate({"name": "r", "tasks": section})
