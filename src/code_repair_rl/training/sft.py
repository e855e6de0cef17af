"""Supervised fine-tuning on oracle edits: the warm start, and the baseline that reinforcement has to beat.

The loss is the mean negative log-likelihood of the answer's tokens; the prompt carries none.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from code_repair_rl.errors import BadInput
from code_repair_rl.models.packed import portions
from code_repair_rl.recipes import LaunchSection, ModelSection, SftSection
from code_repair_rl.runs import RunDir, RunListener
from code_repair_rl.tasks import Task
from code_repair_rl.tasks.prompts import messages, oracle_answer
from code_repair_rl.training.callbacks import StepClock, Validate, of_every_step
from code_repair_rl.training.checkpointing import AtomicCheckpoints
from code_repair_rl.training.launch import (
    add_checks,
    portion,
    require_resumable,
    require_sampling,
    require_steps,
    save_whole,
)
from code_repair_rl.training.reference import Reference, reference_for
from code_repair_rl.training.settings import new_adapter, on_one_device, silence, trainer_arguments
from code_repair_rl.training.shared_prefix import completion_logprobs
from code_repair_rl.training.together import measured_once

_IGNORED = -100
"""The label that torch's cross-entropy leaves out."""

_METRICS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "entropy": "train/entropy",
    "kl": "train/kl",
}


@dataclass(frozen=True, slots=True)
class Example:
    """One training example as tokens."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    """Ends with the end-of-turn token. Of a conversation: all from the first learnt token to the last."""
    learnt: tuple[bool, ...] = ()
    """For each of `answer_ids` whether it is learnt (the others are what the environment said); empty: all are."""

    @property
    def labels(self) -> list[int]:
        """For each token of prompt and answer its id where it is learnt."""
        learnt = self.learnt or (True,) * len(self.answer_ids)
        answer = [token if mark else _IGNORED for token, mark in zip(self.answer_ids, learnt, strict=True)]
        return [_IGNORED] * len(self.prompt_ids) + answer


class RepairSFTTrainer(AtomicCheckpoints, SFTTrainer):  # type: ignore[misc]
    """TRL's SFT trainer with atomic checkpoints, and its loss without padding and without logits of the prompt."""

    micro_batch_tokens: int | None = None
    """At most so many tokens in a forward, at least one example; None: a batch is one forward."""
    kl_beta: float = 0.0
    reference: Reference | None = None
    """What the policy is held against (KL-regularised SFT)."""

    def training_step(
        self, model: Any, inputs: dict[str, torch.Tensor], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """A step's batch in as many forward and backward passes as the token budget asks for.

        Several processes take it in one, since their passes have to meet.
        """
        if self.micro_batch_tokens is None or self.accelerator.num_processes > 1:
            return super().training_step(model, inputs, num_items_in_batch)  # type: ignore[no-any-return]
        count = (inputs["labels"] != _IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        losses = [
            super(RepairSFTTrainer, self).training_step(
                model, {name: value[start:stop] for name, value in inputs.items()}, count
            )
            for start, stop in portions(lengths, self.micro_batch_tokens)
        ]
        return torch.stack(losses).sum()

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The negative log-likelihood of the labelled tokens, over their number in the whole step's batch.

        With a reference, `kl_beta` times the divergence from it where these tokens are predicted is added. Without, it
        is TRL's value (a test compares them), from packed rows: no padding is computed, and the language-model
        head sees answers only. Each row is a prompt followed by its answer, whose tokens without a label are context.
        """
        rows = map(_split, inputs["input_ids"].tolist(), inputs["labels"].tolist())
        prompts, answers, learnt = zip(*rows, strict=True)
        with self.accelerator.autocast():
            found = completion_logprobs(
                model,
                prompts,
                [[answer] for answer in answers],
                wanted=[[marks] for marks in learnt],
                reference=self.reference.in_place if self.reference else None,
                with_entropy=True,
            )
        assert found.entropy is not None
        divergences = torch.zeros_like(found.entropy) if found.kl is None else found.kl
        sums = torch.stack([found.entropy.sum(), divergences.detach().sum(), found.mask.sum().float()])
        entropy, divergence, tokens = self._over_processes(sums).tolist()
        self._metrics["train"]["entropy"].append(entropy / tokens)
        total = -found.logprobs.sum()
        if found.kl is not None:
            self._metrics["train"]["kl"].append(divergence / tokens)
            total = total + self.kl_beta * found.kl.sum()
        # Of several processes the gradients are averaged, and each takes its part in one pass.
        count = self.accelerator.num_processes
        here = found.mask.sum() if num_items_in_batch is None else num_items_in_batch
        loss: torch.Tensor = total / (here if count == 1 else tokens / count)
        return loss

    def _over_processes(self, sums: torch.Tensor) -> torch.Tensor:
        """The sums of all processes, added up; `(N,)` to `(N,)`."""
        if self.accelerator.num_processes == 1:
            return sums
        whole: torch.Tensor = self.accelerator.gather(sums[None]).sum(dim=0)
        return whole


def _split(ids: Sequence[int], labels: Sequence[int]) -> tuple[list[int], list[int], list[bool]]:
    """Prompt and answer of a padded row, and which of the answer's tokens are learnt."""
    places = [place for place, label in enumerate(labels) if label != _IGNORED]
    first, stop = places[0], places[-1] + 1
    return list(ids[:first]), list(ids[first:stop]), [label != _IGNORED for label in labels[first:stop]]


def examples(tasks: Sequence[Task], encode: Any, tokenizer: PreTrainedTokenizerBase, hint: str) -> list[Example]:
    """The tasks as prompts and oracle answers in tokens.

    Args:
        encode: messages to token ids, ready for the answer (an engine's `encode`).
        hint: level of the prompt's hint.
    """
    return [
        Example(
            tuple(encode(messages(task, hint))),
            (*tokenizer.encode(oracle_answer(task), add_special_tokens=False), int(tokenizer.eos_token_id)),
        )
        for task in tasks
    ]


def in_training_order(found: Sequence[Example], count: int, batch_size: int, seed: int) -> list[Example]:
    """`count` examples, epoch after epoch, each shuffled by the seed; batches hold similar lengths to save padding.

    Within a window of eight batches the examples are sorted by length and the batches shuffled, so that the order stays
    close to random.
    """
    ordered: list[Example] = []
    epoch = 0
    while len(ordered) < count:
        rng = random.Random(f"{seed}/{epoch}")
        shuffled = rng.sample(list(found), len(found))
        window = 8 * batch_size
        for start in range(0, len(shuffled), window):
            part = sorted(shuffled[start : start + window], key=lambda one: len(one.prompt_ids) + len(one.answer_ids))
            batches = [part[at : at + batch_size] for at in range(0, len(part), batch_size)]
            rng.shuffle(batches)
            ordered += [one for batch in batches for one in batch]
        epoch += 1
    return ordered[:count]


def train_sft(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    found: Sequence[Example],
    *,
    settings: SftSection,
    model_settings: ModelSection,
    seed: int,
    run: RunDir,
    listener: RunListener,
    validate: Callable[[int], float] | None = None,
    validate_every: int = 1,
    launch: LaunchSection | None = None,
) -> Path:
    """Fine-tune `model` in place on the examples, and leave the result in `run.path / "model"`.

    Goes on from the run's last good checkpoint where there is one.

    Args:
        validate: the validation pass rate of the model as it is now, given the step; the result is then the best model
            by it. None: the result is the last model.
        validate_every: steps between validations.
        launch: how many processes train (all of them call this), and how; None: this one alone.

    Raises:
        BadInput: no examples.
    """
    if not found:
        raise BadInput("there is no example to train on", mend="build the task set, or raise tasks.limit")
    launch = launch or LaunchSection()
    if validate is not None:
        require_sampling(launch)
    steps = settings.steps
    require_steps(launch, steps)
    rows = in_training_order(found, max(1, steps) * settings.batch_size, settings.batch_size, seed)
    dataset = Dataset.from_list(
        [
            {
                "input_ids": [*one.prompt_ids, *one.answer_ids],
                "labels": one.labels,
            }
            for one in rows
        ]
    )
    config = SFTConfig(
        **trainer_arguments(
            run, model_settings, seed=seed, steps=steps, warmup_steps=settings.warmup_steps, launch=launch
        ),
        per_device_train_batch_size=portion(settings.batch_size, "sft.batch_size"),
        learning_rate=settings.learning_rate,
        save_steps=settings.save_every,
        train_sampling_strategy="sequential",
        max_length=None,
        shuffle_dataset=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    on_one_device(config)
    clock = StepClock(run)
    trainer = RepairSFTTrainer(
        model=model,
        args=config,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=new_adapter(model_settings, model),
        callbacks=of_every_step(run, listener, _METRICS, settings.max_minutes, clock),
    )
    trainer.launch = launch
    keep = functools.partial(save_whole, trainer, tokenizer, model_path(run))
    add_checks(trainer, launch, model_settings)
    if validate is not None:
        trainer.add_callback(Validate(validate_every, measured_once(trainer, validate), keep, run, listener))
    silence(trainer)
    trainer.run, trainer.listener = run, listener
    trainer.micro_batch_tokens = settings.micro_batch_tokens
    if settings.kl_beta:
        trainer.kl_beta, trainer.reference = settings.kl_beta, reference_for(trainer)
    if steps == 0:
        return keep()
    checkpoint = run.latest_good_checkpoint()
    if checkpoint is not None:
        require_resumable(launch, checkpoint.path)
    listener.on_phase(checkpoint.step if checkpoint else 0, "train")
    trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
    return model_path(run) if validate is not None else keep()


def model_path(run: RunDir) -> Path:
    """Where a run leaves its result."""
    return run.path / "model"
