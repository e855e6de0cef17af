"""GRPO over the repair-loop: whole attempts are rewarded, and what the environment said carries nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from code_repair_rl.grading import Grader
from code_repair_rl.models import TINY_MODEL, load_model
from code_repair_rl.rollouts.repair_loop import RepairLoop
from code_repair_rl.runs import RunDir
from code_repair_rl.tasks import Task
from code_repair_rl.training.shared_prefix import plain_logprobs
from tests.training.scored_script import answer_when_told
from tests.training.test_grpo import SETTINGS, KilledAt, Trained

ONE_STEP = SETTINGS.model_copy(update={"steps": 1, "max_grad_norm": 1e9})


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1) as grader:
        yield grader


@pytest.mark.usefixtures("plain_descent")
def test_a_step_is_the_gradient_over_the_sampled_tokens_alone(
    tasks: list[Task], tmp_path: Path, grader: Grader
) -> None:
    """dr_grpo's loss over whole attempts, written down anew from the recorded rollouts and a plain forward."""
    trained = Trained(tasks, tmp_path / "run", grader, ONE_STEP, script=answer_when_told, agent=RepairLoop())
    rows = trained.run.rollouts(1)
    assert [(row.passed, len(row.turns or ()), row.ending) for row in rows] == [
        (True, 3, "finished"),
        (False, 5, "out-of-turns"),
    ] * 4
    reference = load_model(TINY_MODEL)
    reference.requires_grad_(True)
    loss = torch.zeros(())
    for row in rows:
        logprobs = plain_logprobs(reference, [list(row.prompt_ids)], [[list(row.token_ids)]]).logprobs[0]
        marks = torch.tensor(row.sampled)
        assert not marks.all()
        assert (logprobs.detach() - torch.tensor(row.logprobs))[marks].abs().max() < 1e-4
        ratio = torch.exp(logprobs - torch.tensor(row.logprobs))[marks]
        assert row.advantage is not None
        loss = loss - (ratio * row.advantage).sum() / (len(rows) * ONE_STEP.max_new_tokens)
    loss.backward()
    after = dict(trained.policy.named_parameters())
    for name, parameter in reference.named_parameters():
        assert parameter.grad is not None
        step = parameter.detach() - after[name].detach()  # the optimiser is plain SGD with rate 1
        assert (step - parameter.grad).norm() <= 1e-3 * parameter.grad.norm() + 1e-7


def test_turns_endings_and_passes_are_metrics(tasks: list[Task], tmp_path: Path, grader: Grader) -> None:
    trained = Trained(tasks, tmp_path / "run", grader, ONE_STEP, script=answer_when_told, agent=RepairLoop())
    found = trained.run.metrics()[0].values
    assert found["agent/turns"] == 2.5
    assert found["agent/readable_edits"] == pytest.approx(2 / 5)
    assert (found["agent/pass_within_1"], found["agent/pass_within_2"]) == (0.0, 0.5)
    assert found["agent/ending/finished"] == found["agent/ending/out-of-turns"] == 0.5
    assert found["agent/environment_tokens"] > 0


def test_a_run_cut_while_its_attempts_are_under_way_goes_on_to_the_same_weights(
    tasks: list[Task], tmp_path: Path, grader: Grader
) -> None:
    settings = SETTINGS.model_copy(update={"steps": 2, "save_every": 1})
    whole = Trained(tasks, tmp_path / "whole", grader, settings, script=answer_when_told, agent=RepairLoop())
    with pytest.raises(KeyboardInterrupt):
        watching = KilledAt(2, "grade")
        Trained(
            tasks, tmp_path / "cut", grader, settings, script=answer_when_told, agent=RepairLoop(), watching=watching
        )
    assert RunDir.open(tmp_path / "cut").rollout_steps() == [1]
    again = Trained(tasks, tmp_path / "cut", grader, settings, script=answer_when_told, agent=RepairLoop())
    assert all(torch.equal(one, again.weights()[name]) for name, one in whole.weights().items())
