"""GRPO end to end on a tiny model with real grading: what is rewarded becomes likelier, and a cut run goes on."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD

from code_repair_rl.errors import BadInput
from code_repair_rl.grading import Grader
from code_repair_rl.models import TINY_MODEL, load_model, load_tokenizer
from code_repair_rl.recipes import GrpoSection, LoraSection, ModelSection
from code_repair_rl.rewards import Reward
from code_repair_rl.rollouts import Completion
from code_repair_rl.rollouts.agent import Agent
from code_repair_rl.runs import CompositeListener, RolloutRow, RunDir, RunListener, RunRecorder
from code_repair_rl.tasks import Task
from code_repair_rl.training.batches import micro_batches, tensors
from code_repair_rl.training.collect import Collector
from code_repair_rl.training.grpo import train_grpo
from code_repair_rl.training.shared_prefix import plain_logprobs
from code_repair_rl.training.task_stream import TaskStream
from tests.training.scored_script import ScoredScript, answer

MODEL = ModelSection(name=TINY_MODEL, autocast="none")
SETTINGS = GrpoSection(
    steps=4,
    tasks_per_step=2,
    completions_per_task=4,
    micro_batch_tokens=900,
    learning_rate=1e-3,
    warmup_steps=0,
    max_new_tokens=200,
    max_resampled_groups=0,
    save_every=2,
    validation_tasks=0,
)


class Trained:
    """One training run and what is left of it."""

    def __init__(
        self,
        tasks: list[Task],
        folder: Path,
        grader: Grader,
        settings: GrpoSection = SETTINGS,
        model: ModelSection = MODEL,
        script: Any = answer,
        watching: RunListener | None = None,
        engine: type[ScoredScript] = ScoredScript,
        agent: Agent | None = None,
    ) -> None:
        self.policy = load_model(TINY_MODEL)
        self.engine = engine(self.policy, script)
        self.run = RunDir.create(folder, {"name": "test"}, resume=True)
        listener = CompositeListener(RunRecorder(), *([watching] if watching else []))
        listener.on_start(self.run, settings.steps)
        collector = Collector(
            engine=self.engine,
            grader=grader,
            reward=Reward(),
            stream=TaskStream(tasks, seed=0),
            settings=settings,
            hint="exact-line",
            seed=0,
            run=self.run,
            listener=listener,
            agent=agent,
        )
        train_grpo(
            self.policy,
            load_tokenizer(TINY_MODEL),
            collector,
            settings=settings,
            model_settings=model,
            seed=0,
            run=self.run,
            listener=listener,
            validate=None,
        )

    def weights(self) -> dict[str, torch.Tensor]:
        return dict(load_model(self.run.path / "model").state_dict())


@pytest.fixture(scope="module")
def grader() -> Any:
    with Grader() as grader:
        yield grader


def preference(model: torch.nn.Module, rows: list[RolloutRow]) -> float:
    """By how much the rewarded answers are likelier than the others, in nats per answer."""
    with torch.no_grad():
        score = {
            passed: sum(
                float(plain_logprobs(model, [list(row.prompt_ids)], [[list(row.token_ids)]]).logprobs.sum())
                for row in rows
                if row.passed is passed
            )
            for passed in (True, False)
        }
    return score[True] - score[False]


def test_what_passes_its_tests_becomes_likelier(tasks: list[Task], tmp_path: Path, grader: Grader) -> None:
    trained = Trained(tasks, tmp_path / "run", grader, SETTINGS.model_copy(update={"steps": 6}))
    rows = trained.run.rollouts(1)
    assert [row.passed for row in rows] == [True, False] * 4
    assert {row.reward for row in rows} == {1.0, 0.1}
    assert [row.advantage for row in rows] == pytest.approx([0.45, -0.45] * 4)
    assert preference(trained.policy, rows) > preference(load_model(TINY_MODEL), rows) + 0.1


@pytest.mark.usefixtures("plain_descent")
def test_a_step_is_the_gradient_of_the_mean_over_all_answers(tasks: list[Task], tmp_path: Path, grader: Grader) -> None:
    """Holds the overrides to the definition: dr_grpo's loss, written down anew from the recorded rollouts."""
    settings = SETTINGS.model_copy(update={"steps": 1, "max_grad_norm": 1e9})
    trained = Trained(tasks, tmp_path / "run", grader, settings)
    rows = trained.run.rollouts(1)
    reference = load_model(TINY_MODEL)
    reference.requires_grad_(True)
    loss = torch.zeros(())
    for row in rows:
        logprobs = plain_logprobs(reference, [list(row.prompt_ids)], [[list(row.token_ids)]]).logprobs[0]
        ratio = torch.exp(logprobs - torch.tensor(row.logprobs))
        assert row.advantage is not None
        loss = loss - (ratio * row.advantage).sum() / (len(rows) * settings.max_new_tokens)
    loss.backward()
    after = dict(trained.policy.named_parameters())
    for name, parameter in reference.named_parameters():
        assert parameter.grad is not None
        step = parameter.detach() - after[name].detach()  # the optimiser is plain SGD with rate 1
        assert (step - parameter.grad).norm() <= 1e-3 * parameter.grad.norm() + 1e-7


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"])
def test_a_step_does_not_depend_on_how_it_is_cut_into_micro_batches(
    tasks: list[Task], tmp_path: Path, grader: Grader, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """One group has no signal and is left out of the forwards; it counts all the same."""
    from code_repair_rl.training.grpo import RepairGRPOTrainer

    def uneven(prompt: str, number: int) -> str:
        return answer(prompt, 0 if "x - 2" in prompt else number) + number * " and so on"

    def rate_one(self: Any, *_: Any) -> None:
        self.optimizer = SGD(self.model.parameters(), 1.0)

    monkeypatch.setattr(RepairGRPOTrainer, "create_optimizer", rate_one)
    start = load_model(TINY_MODEL).state_dict()
    moves, figures = [], []
    for budget in (300, 9000):
        changed = {"loss": loss, "micro_batch_tokens": budget, "steps": 1, "max_grad_norm": 1e9, "tasks_per_step": 3}
        trained = Trained(tasks, tmp_path / str(budget), grader, SETTINGS.model_copy(update=changed), script=uneven)
        moves.append(torch.cat([(one - start[name]).flatten() for name, one in trained.weights().items()]))
        found = trained.run.metrics()[-1].values
        figures.append([found[name] for name in ("train/entropy", "train/clipped") if name in found])
    assert moves[0].norm() > 0
    assert (moves[0] - moves[1]).norm() <= 1e-3 * moves[1].norm()
    assert figures[0] == pytest.approx(figures[1], rel=1e-4)


class Interrupted(ScoredScript):
    """Answers over two turns: the environment says something in the middle."""

    def _answer(self, prompt: Sequence[int], number: int) -> Completion:
        one = super()._answer(prompt, number)
        said = tuple(self.tokenizer.encode("tests: 1 of 2 passed", add_special_tokens=False))
        ids = one.token_ids[:9] + said + one.token_ids[9:]
        marks = (True,) * 9 + (False,) * len(said) + (True,) * len(one.token_ids[9:])
        with torch.no_grad():
            found = plain_logprobs(self.model, [list(prompt)], [[list(ids)]], wanted=[[list(marks)]])
        logprobs = tuple(found.logprobs[0].tolist())
        return dataclasses.replace(one, token_ids=ids, logprobs=logprobs, sampled=marks)


@pytest.mark.usefixtures("plain_descent")
def test_what_the_environment_said_carries_no_loss(tasks: list[Task], tmp_path: Path, grader: Grader) -> None:
    """The step, written down anew with the loss over drawn tokens only; the policy is still its reference."""
    settings = SETTINGS.model_copy(update={"steps": 1, "max_grad_norm": 1e9, "micro_batch_tokens": 500, "kl_beta": 0.3})
    trained = Trained(tasks, tmp_path / "run", grader, settings, engine=Interrupted)
    rows = trained.run.rollouts(1)
    assert all(0 < row.sampled_tokens < len(row.token_ids) for row in rows)
    told = trained.run.metrics()[0].values
    assert told["rollouts/tokens"] == sum(row.sampled_tokens for row in rows)
    assert 0 < told["time/rollout_seconds"] < told["time/step_seconds"]
    reference = load_model(TINY_MODEL)
    reference.requires_grad_(True)
    loss = torch.zeros(())
    for row in rows:
        logprobs = plain_logprobs(reference, [list(row.prompt_ids)], [[list(row.token_ids)]]).logprobs[0]
        drawn = torch.tensor(row.sampled)
        ratio = torch.exp(logprobs - torch.tensor(row.logprobs))[drawn]
        assert row.advantage is not None
        loss = loss - (ratio * row.advantage).sum() / (len(rows) * settings.max_new_tokens)
    loss.backward()
    after = dict(trained.policy.named_parameters())
    for name, parameter in reference.named_parameters():
        assert parameter.grad is not None
        step = parameter.detach() - after[name].detach()
        assert (step - parameter.grad).norm() <= 1e-3 * parameter.grad.norm() + 1e-7


def test_sampler_and_trainer_agree_on_the_log_probabilities(tasks: list[Task], tmp_path: Path, grader: Grader) -> None:
    trained = Trained(tasks, tmp_path / "run", grader, SETTINGS.model_copy(update={"steps": 1}))
    fresh = load_model(TINY_MODEL)
    for row in trained.run.rollouts(1):
        found = plain_logprobs(fresh, [list(row.prompt_ids)], [[list(row.token_ids)]]).logprobs[0]
        assert found.tolist() == pytest.approx(list(row.logprobs), abs=1e-4)


class KilledAt(RunListener):
    """Ends the process's work, as a kill would, when a phase of a step begins."""

    def __init__(self, step: int, phase: str) -> None:
        self.place = (step, phase)

    def on_phase(self, step: int, phase: str) -> None:
        if (step, phase) == self.place:
            raise KeyboardInterrupt


@pytest.mark.parametrize("place", [(2, "sample"), (3, "train"), (4, "sample"), (4, "train"), (4, "checkpoint")])
def test_a_run_cut_anywhere_ends_with_the_same_weights_and_samples_nothing_twice(
    tasks: list[Task], tmp_path: Path, grader: Grader, place: tuple[int, str]
) -> None:
    whole = Trained(tasks, tmp_path / "whole", grader)
    with pytest.raises(KeyboardInterrupt):
        Trained(tasks, tmp_path / "cut", grader, watching=KilledAt(*place))
    recorded = len(RunDir.open(tmp_path / "cut").rollout_steps())
    again = Trained(tasks, tmp_path / "cut", grader)
    assert again.engine.asked == (SETTINGS.steps - recorded) * SETTINGS.tasks_per_step
    assert all(torch.equal(one, again.weights()[name]) for name, one in whole.weights().items())
    assert [row.values["train/loss"] for row in again.run.metrics()] == [
        row.values["train/loss"] for row in whole.run.metrics()
    ]


def test_a_damaged_checkpoint_is_named_and_skipped(
    tasks: list[Task], tmp_path: Path, grader: Grader, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Trained(tasks, tmp_path / "run", grader)
    before = whole.weights()
    shutil.rmtree(whole.run.path / "model")
    (whole.run.path / "checkpoints" / "step-000004" / "model.safetensors").write_bytes(b"torn")
    again = Trained(tasks, tmp_path / "run", grader)
    assert "step-000004" in capsys.readouterr().err
    assert all(torch.equal(one, again.weights()[name]) for name, one in before.items())


def test_recorded_rollouts_of_other_tasks_are_refused(tasks: list[Task], tmp_path: Path, grader: Grader) -> None:
    whole = Trained(tasks, tmp_path / "run", grader, SETTINGS.model_copy(update={"steps": 1, "save_every": 9}))
    shutil.rmtree(whole.run.path / "checkpoints")
    with pytest.raises(BadInput, match="not of the tasks"):
        Trained(tasks[3:], tmp_path / "run", grader, SETTINGS.model_copy(update={"steps": 1}))


def test_groups_without_variance_are_replaced_within_the_budget(
    tasks: list[Task], tmp_path: Path, grader: Grader
) -> None:
    def only_task_one_differs(prompt: str, number: int) -> str:
        return answer(prompt, number if "x - 1\n" in prompt else 0)

    settings = SETTINGS.model_copy(update={"steps": 1, "max_resampled_groups": 3})
    trained = Trained(tasks, tmp_path / "run", grader, settings, script=only_task_one_differs)
    metrics = trained.run.metrics()[0].values
    assert 2 < metrics["rollouts/groups"] <= 5
    assert metrics["rollouts/answers"] == 4 * metrics["rollouts/groups"]


def test_a_step_without_any_signal_moves_nothing(tasks: list[Task], tmp_path: Path, grader: Grader) -> None:
    settings = SETTINGS.model_copy(update={"steps": 2})
    trained = Trained(tasks, tmp_path / "run", grader, settings, script=lambda prompt, number: "no edit")
    start = load_model(TINY_MODEL).state_dict()
    assert all(torch.equal(one, start[name]) for name, one in trained.weights().items())


def test_no_steps_leave_the_model_as_it_is(tasks: list[Task], tmp_path: Path, grader: Grader) -> None:
    trained = Trained(tasks, tmp_path / "run", grader, SETTINGS.model_copy(update={"steps": 0}))
    start = load_model(TINY_MODEL).state_dict()
    assert all(torch.equal(one, start[name]) for name, one in trained.weights().items())


def test_the_first_ratio_is_one_whatever_the_adapters_dropout(
    tasks: list[Task], tmp_path: Path, grader: Grader
) -> None:
    """And cispo's cap does not cut it."""
    settings = SETTINGS.model_copy(update={"steps": 2, "kl_beta": 0.5, "loss": "cispo"})
    model = MODEL.model_copy(update={"lora": LoraSection(rank=4, dropout=0.5)})
    first, second = (
        row.values for row in Trained(tasks, tmp_path / "run", grader, settings, model=model).run.metrics()
    )
    assert first["train/kl"] == pytest.approx(0.0, abs=1e-6) and second["train/kl"] > 0
    assert first["train/clipped_high"] == 0.0


@pytest.mark.parametrize(("lora", "autocast"), [(LoraSection(rank=4), "none"), (None, "bfloat16")])
def test_kl_is_measured_from_the_policy_before_training(
    tasks: list[Task], tmp_path: Path, grader: Grader, lora: LoraSection | None, autocast: str
) -> None:
    settings = SETTINGS.model_copy(update={"steps": 4, "kl_beta": 0.5})
    model = MODEL.model_copy(update={"lora": lora, "autocast": autocast})
    trained = Trained(tasks, tmp_path / "run", grader, settings, model=model)
    divergences = [row.values["train/kl"] for row in trained.run.metrics()]
    assert divergences[0] == pytest.approx(0.0, abs=1e-6)
    assert divergences[-1] > 0


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_a_moving_reference_survives_a_cut(tasks: list[Task], tmp_path: Path, grader: Grader, rate: float) -> None:
    moving = {"kl_beta": 0.5, "kl_reference": "moving", "kl_reference_rate": rate}
    settings = SETTINGS.model_copy(update=moving)
    whole = Trained(tasks, tmp_path / "whole", grader, settings)
    divergences = [row.values["train/kl"] for row in whole.run.metrics()]
    assert divergences[0] == pytest.approx(0.0, abs=1e-6)
    assert min(divergences[1:]) > 0
    with pytest.raises(KeyboardInterrupt):
        Trained(tasks, tmp_path / "cut", grader, settings, watching=KilledAt(4, "train"))
    again = Trained(tasks, tmp_path / "cut", grader, settings)
    assert all(torch.equal(one, again.weights()[name]) for name, one in whole.weights().items())
    assert [row.values["train/kl"] for row in again.run.metrics()] == divergences


def test_without_verdicts_there_is_no_loss(tasks: list[Task], tmp_path: Path, grader: Grader) -> None:
    trained = Trained(tasks, tmp_path / "run", grader, SETTINGS.model_copy(update={"steps": 1}))
    rows = [dataclasses.replace(row, score=None, reward=None, advantage=None) for row in trained.run.rollouts(1)]
    assert [batch.rows for batch in micro_batches([rows], 2, most_tokens=900)] == [(), ()]
    assert tensors(trained.run.rollouts(1), pad_id=0)["advantages"].abs().sum() > 0
