"""What counts as leaving correct code alone, as breaking it, and as ordinary coding."""

import math

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.grading import Grader
from code_repair_rl.models import TINY_MODEL, load_model, load_tokenizer
from code_repair_rl.pipelines.forgetting import coding_prompt, healthy, measure
from code_repair_rl.pipelines.parts import Loaded
from code_repair_rl.rollouts import Sampling
from tests.training.conftest import task
from tests.training.scored_script import ScoredScript


def edit(old: str, new: str) -> str:
    return f"<<<<<<< SEARCH\n    {old}\n=======\n    {new}\n>>>>>>> REPLACE"


ANSWERS = [
    "Nothing to repair here.",
    edit("return x + 3", "return x - 3"),  # breaks it
    edit("return x + 3", "return 3 + x"),  # harmless
    edit("return y + 3", "return x - 3"),  # does not apply
]


def loaded_with(answers: list[str]) -> Loaded:
    model = load_model(TINY_MODEL)
    engine = ScoredScript(model, lambda prompt, number: answers[number])
    return Loaded(model, load_tokenizer(TINY_MODEL), engine)  # type: ignore[arg-type]


def test_only_an_edit_after_which_tests_fail_breaks_correct_code() -> None:
    with Grader(workers=1) as grader:
        found = measure(loaded_with(ANSWERS), grader, [task(3)], samples=4, sampling=Sampling())
    assert found.healthy_answers == 4
    assert found.broken == 0.25
    assert found.left_alone == 0.5
    assert found.solutions == 1
    assert 0 < found.coding_nats_per_token < 3 * math.log(259)


def test_a_healthy_task_shows_the_known_good_code_and_the_coding_prompt_shows_none() -> None:
    assert "return x + 3" in healthy(task(3)).files["solution.py"]
    assert task(3).description in coding_prompt(task(3))[0]["content"]
    assert "return" not in coding_prompt(task(3))[0]["content"]


def test_tasks_without_an_edit_are_refused() -> None:
    with Grader(workers=1) as grader, pytest.raises(BadInput, match="none"):
        measure(loaded_with(ANSWERS), grader, [], samples=1, sampling=Sampling())
