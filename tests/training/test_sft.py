"""Fine-tuning on oracle edits: the right tokens carry the loss, and a cut run goes on as if nothing had been."""

import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from trl import SFTConfig, SFTTrainer

from code_repair_rl.errors import BadInput
from code_repair_rl.models import TINY_MODEL, load_model, load_tokenizer
from code_repair_rl.recipes import LoraSection, ModelSection, SftSection
from code_repair_rl.rollouts.local import LocalEngine
from code_repair_rl.runs import CompositeListener, RunDir, RunRecorder
from code_repair_rl.tasks import Task
from code_repair_rl.training.sft import Example, RepairSFTTrainer, examples, in_training_order, train_sft

MODEL = ModelSection(name=TINY_MODEL, autocast="none")
SETTINGS = SftSection(steps=4, batch_size=2, micro_batch_tokens=9, learning_rate=1e-3, warmup_steps=0, save_every=2)


def trained(tasks: list[Task], folder: Path, settings: SftSection = SETTINGS, model: ModelSection = MODEL) -> RunDir:
    policy, tokenizer = load_model(model.name, trainable=True), load_tokenizer(TINY_MODEL)
    found = examples(tasks, LocalEngine(policy, tokenizer).encode, tokenizer, "exact-line")
    run = RunDir.create(folder, {"name": "test"}, resume=True)
    listener = CompositeListener(RunRecorder())
    listener.on_start(run, settings.steps)
    train_sft(policy, tokenizer, found, settings=settings, model_settings=model, seed=0, run=run, listener=listener)
    return run


def weights(run: RunDir) -> dict[str, torch.Tensor]:
    return load_model(run.path / "model").state_dict()


def test_the_answer_carries_the_loss_and_ends_the_turn(tasks: list[Task]) -> None:
    tokenizer = load_tokenizer(TINY_MODEL)
    engine = LocalEngine(load_model(TINY_MODEL), tokenizer)
    found = examples(tasks[:1], engine.encode, tokenizer, "exact-line")[0]
    answer = tokenizer.decode(found.answer_ids)
    assert answer.startswith("<<<<<<< SEARCH\n    return x - 1\n=======\n    return x + 1\n>>>>>>> REPLACE")
    assert found.answer_ids[-1] == tokenizer.eos_token_id
    assert "return x - 1" in tokenizer.decode(found.prompt_ids)


def test_the_loss_falls_and_every_step_is_recorded(tasks: list[Task], tmp_path: Path) -> None:
    run = trained(tasks, tmp_path / "run", SETTINGS.model_copy(update={"steps": 12}))
    losses = [row.values["train/loss"] for row in run.metrics()]
    assert len(losses) == 12
    assert losses[-1] < losses[0]
    assert all(row.values["time/step_seconds"] > 0 for row in run.metrics())
    assert not list(run.path.glob(".checkpoint.*"))


def test_the_first_step_of_the_warm_up_already_learns(tasks: list[Task], tmp_path: Path) -> None:
    run = trained(tasks, tmp_path / "run", SETTINGS.model_copy(update={"steps": 5, "warmup_steps": 3}))
    rates = [row.values["train/learning_rate"] for row in run.metrics()]
    assert rates == pytest.approx([SETTINGS.learning_rate * share for share in (0.25, 0.5, 0.75, 1.0, 1.0)])


def test_a_run_that_was_killed_after_a_checkpoint_ends_with_the_same_weights(tasks: list[Task], tmp_path: Path) -> None:
    whole = trained(tasks, tmp_path / "whole")
    cut = tmp_path / "cut"
    shutil.copytree(whole.path, cut)
    shutil.rmtree(cut / "model")
    shutil.rmtree(cut / "checkpoints" / "step-000004")
    again = trained(tasks, cut)
    assert all(torch.equal(one, weights(again)[name]) for name, one in weights(whole).items())


def test_the_loss_is_trls(tasks: list[Task]) -> None:
    """Ours packs rows and skips the prompt's logits; the value and the gradient must be TRL's."""
    policy, tokenizer = load_model(TINY_MODEL, trainable=True), load_tokenizer(TINY_MODEL)
    found = examples(tasks, LocalEngine(policy, tokenizer).encode, tokenizer, "exact-line")
    rows = [
        {"input_ids": [*one.prompt_ids, *one.answer_ids], "labels": [-100] * len(one.prompt_ids) + [*one.answer_ids]}
        for one in found
    ]
    config = SFTConfig(output_dir="unused", use_cpu=True, bf16=False, report_to="none", max_length=None)
    config.dataset_kwargs = {"skip_prepare_dataset": True}
    trainer = RepairSFTTrainer(
        model=policy, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    batch = trainer.data_collator(rows)
    gradients = []
    for loss in (trainer.compute_loss(policy, dict(batch)), SFTTrainer.compute_loss(trainer, policy, dict(batch))):
        policy.zero_grad()
        loss.backward()
        gradients.append([loss.detach(), *(p.grad.clone() for p in policy.parameters() if p.grad is not None)])
    assert len(gradients[0]) == len(gradients[1]) > 10
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_lora_leaves_an_adapter(tasks: list[Task], tmp_path: Path) -> None:
    run = trained(tasks, tmp_path / "run", model=MODEL.model_copy(update={"lora": LoraSection(rank=2)}))
    assert (run.path / "model" / "adapter_config.json").is_file()


def test_an_adapter_is_trained_on_and_held_near_where_it_was(tasks: list[Task], tmp_path: Path) -> None:
    load_model(TINY_MODEL).save_pretrained(tmp_path / "base")
    first = MODEL.model_copy(update={"name": str(tmp_path / "base"), "lora": LoraSection(rank=2)})
    warm = trained(tasks, tmp_path / "warm", model=first)
    model = first.model_copy(update={"name": str(warm.path / "model")})
    further = trained(tasks, tmp_path / "further", SETTINGS.model_copy(update={"kl_beta": 0.5}), model)
    assert further.metrics()[0].values["train/kl"] == pytest.approx(0.0, abs=1e-6)
    assert further.metrics()[0].values["train/loss"] < warm.metrics()[0].values["train/loss"]
    assert list(weights(further)) == list(weights(warm))
    with pytest.raises(BadInput, match="adapter of rank 2"):
        trained(tasks, tmp_path / "other", model=model.model_copy(update={"lora": LoraSection(rank=4)}))


def test_no_steps_leave_the_model_as_it_is(tasks: list[Task], tmp_path: Path) -> None:
    run = trained(tasks, tmp_path / "run", SETTINGS.model_copy(update={"steps": 0}))
    start = load_model(TINY_MODEL).state_dict()
    assert all(torch.equal(one, start[name]) for name, one in weights(run).items())


def test_no_examples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no example"):
        trained([], tmp_path / "run")


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 30), st.integers(1, 4), st.integers(0, 3))
def test_every_epoch_sees_every_example_once(lengths: list[int], count: int, batch_size: int, seed: int) -> None:
    found = [Example((number,) * length, (0,)) for number, length in enumerate(lengths)]
    ordered = in_training_order(found, count, batch_size, seed)
    assert len(ordered) == count
    for start in range(0, count - len(found) + 1, len(found)):
        epoch = ordered[start : start + len(found)]
        assert sorted(one.prompt_ids for one in epoch) == sorted(one.prompt_ids for one in found)


def test_the_divergence_term_holds_the_model_near_its_start(tasks: list[Task], tmp_path: Path) -> None:
    free = trained(tasks, tmp_path / "free", SETTINGS.model_copy(update={"steps": 8, "kl_beta": 1e-9}))
    held = trained(tasks, tmp_path / "held", SETTINGS.model_copy(update={"steps": 8, "kl_beta": 5.0}))
    divergences = {run: [row.values["train/kl"] for row in run.metrics()] for run in (free, held)}
    assert divergences[held][0] == pytest.approx(0.0, abs=1e-6)
    assert 0 < divergences[held][-1] < 0.5 * divergences[free][-1]
    assert held.metrics()[-1].values["train/loss"] > free.metrics()[-1].values["train/loss"]


@pytest.mark.parametrize("lora", [None, LoraSection(rank=2)])
@pytest.mark.parametrize("autocast", ["none", "bfloat16"])
def test_the_reference_is_the_model_before_training(
    tasks: list[Task], tmp_path: Path, lora: LoraSection | None, autocast: str
) -> None:
    """In bf16, too: rounded weights of the policy must not pass for the reference's."""
    model = MODEL.model_copy(update={"lora": lora, "autocast": autocast})
    run = trained(tasks, tmp_path / "run", SETTINGS.model_copy(update={"kl_beta": 0.5}), model=model)
    divergences = [row.values["train/kl"] for row in run.metrics()]
    assert divergences[0] == pytest.approx(0.0, abs=1e-6)
    assert divergences[-1] > 0
