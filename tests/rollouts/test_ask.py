"""What is recorded of an answer is what was graded."""

import pytest

from code_repair_rl.evaluation.loop import sample_result
from code_repair_rl.grading import Grader, Outcome
from code_repair_rl.rollouts.ask import Answer, row_of
from code_repair_rl.rollouts.completion import Completion, FinishReason
from code_repair_rl.runs import RolloutRow
from code_repair_rl.tasks import Task
from tests.training.conftest import task

EDIT = "<<<<<<< SEARCH\n{}\n=======\n{}\n>>>>>>> REPLACE\n"


def graded(asked: Task, text: str) -> RolloutRow:
    with Grader(workers=1) as grader:
        verdict = grader.grade(asked, text)
    answer = Answer(asked, Completion((1,), (2,), (0.0,), text, FinishReason.STOP), verdict)
    return row_of(answer, step=1, group=0, sample=0, hint="none", prompt="")


@pytest.mark.parametrize("indentation", ["    ", ""])
def test_the_edit_is_recorded_as_loosely_matched_as_it_was_graded(indentation: str) -> None:
    asked = task(1)
    row = graded(asked, EDIT.format(f"{indentation}return x - 1", f"{indentation}return x + 1"))
    assert row.passed and row.files_after == asked.files_after_oracle()
    found = sample_result(asked, row)
    assert found.right_place and found.edit_precision == 1.0


def test_nothing_is_recorded_of_an_edit_that_was_rejected() -> None:
    asked = task(1)
    row = graded(asked, EDIT.format("    return x - 2", "    return x + 2"))
    assert row.outcome == Outcome.EDIT_REJECTED and row.patch is None and row.files_after == {}
