"""GRPO on TRL: a thin subclass of `GRPOTrainer` whose few overrides are named here and held by contract tests.

| override | why |
| --- | --- |
| `_prepare_inputs` | rollouts come from our collector, dealt into micro-batches of whole groups |
| `_get_per_token_logps_and_entropies` | each prompt is computed once per group (`shared_prefix`) |
| `_compute_loss` | answers left out of a forward still count (or not) in the mean |
| `_save_checkpoint` | atomic (`AtomicCheckpoints`) |

The loss itself, clipping, KL and the metrics are TRL's. The policy ratio is taken to the probabilities that the sampler
recorded, so that sampling in another precision is corrected for, not overlooked.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer

from code_repair_rl.recipes import GrpoSection, LaunchSection, ModelSection
from code_repair_rl.runs import RunDir, RunListener
from code_repair_rl.training.batches import MicroBatch, drawn_tokens, micro_batches, tensors
from code_repair_rl.training.callbacks import ROLLOUT_SECONDS, StepClock, Validate, of_every_step
from code_repair_rl.training.checkpointing import AtomicCheckpoints
from code_repair_rl.training.collect import Collector, rollout_metrics
from code_repair_rl.training.launch import add_checks, require_resumable, require_sampling, require_steps, save_whole
from code_repair_rl.training.push import ServerPush
from code_repair_rl.training.reference import Reference, reference_for
from code_repair_rl.training.settings import new_adapter, on_one_device, silence, trainer_arguments
from code_repair_rl.training.sft import model_path
from code_repair_rl.training.shared_prefix import completion_logprobs
from code_repair_rl.training.together import (
    PartOfStep,
    figures_of_step,
    measured_once,
    on_first,
    parts_of_step,
    processes,
    sendable,
    share_of,
    whole_weights,
)

_METRICS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "entropy": "train/entropy",
    "kl": "train/kl",
    "clip_ratio/region_mean": "train/clipped",
    "clip_ratio/low_mean": "train/clipped_low",
    "clip_ratio/high_mean": "train/clipped_high",
    "cispo_clip_ratio": "train/clipped_high",
}

_MEAN_OVER_ROWS = ("grpo", "dr_grpo", "sapo", "luspo")
"""Losses that TRL averages over the rows of a micro-batch."""
_MEAN_OVER_TOKENS = ("bnpo",)
"""Losses that it averages over the tokens of a micro-batch; the others already count tokens over the whole step."""

_STREAM_FILE = "task_stream.json"
_REFERENCE_FILE = "reference.safetensors"


class RepairGRPOTrainer(AtomicCheckpoints, GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPO trainer, fed by a `Collector`."""

    _buffered_inputs: list[dict[str, Any]] | None
    clock: StepClock
    push: ServerPush | None = None
    """Sends the weights to whoever samples, where that is a server."""
    _sampled: torch.Tensor | None = None
    """(B, T) of the micro-batch at hand: 1 where the model drew the token. TRL passes ids and attention mask only."""

    def __init__(
        self,
        *,
        collector: Collector,
        micro_batch_tokens: int,
        args: GRPOConfig,
        reference_rate: float | None = None,
        **arguments: Any,
    ) -> None:
        beta, args.beta = args.beta, 0.0  # TRL would load a second model for its reference
        super().__init__(reward_funcs=_rewarded_by_the_collector, args=args, **arguments)
        self.beta = args.beta = beta
        self.reference: Reference | None = reference_for(self, moving_rate=reference_rate) if beta else None
        self.collector = collector
        self.micro_batch_tokens = micro_batch_tokens
        self.run, self.listener = collector.run, collector.listener

    def extra_state(self) -> dict[str, str]:
        """The position in the task stream."""
        return {_STREAM_FILE: self.collector.stream.state()}

    def extra_tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """A moving reference policy."""
        state = self.reference.state() if self.reference else {}
        return {_REFERENCE_FILE: state} if state else {}

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """The next micro-batch; at the first of a step, its rollouts are collected. TRL's own rows are ignored."""
        per_step = self.args.gradient_accumulation_steps
        place = self._step % per_step
        if place == 0 or self._buffered_inputs is None:
            step = self.state.global_step + 1
            begun = time.monotonic()
            self.model.eval()
            with whole_weights(self):
                groups = on_first(lambda: sendable(self.collector.collect(step)))
            self.model.train()
            self.listener.on_phase(step, "train")
            seconds = self.clock.rollout_seconds(step, time.monotonic() - begun)
            self.listener.on_metrics(step, rollout_metrics(groups) | {ROLLOUT_SECONDS: seconds})
            batches = micro_batches(
                groups,
                per_step * processes(),
                most_tokens=self.micro_batch_tokens,
                keep_silent=self.beta != 0.0,
                mask_truncated=self.mask_truncated_completions,
            )
            share = share_of(batches, per_step, groups[0][0])
            tokens = sum(drawn_tokens(batch.rows, self.mask_truncated_completions) for batch in batches)
            parts = parts_of_step(share, batches, tokens)
            self._buffered_inputs = [self._inputs(batch, part) for batch, part in zip(share, parts, strict=True)]
            if self.reference is not None:
                self.reference.follow()
        inputs: dict[str, Any] = self._buffered_inputs[place]
        return inputs

    def _inputs(self, batch: MicroBatch, part: PartOfStep) -> dict[str, Any]:
        if not batch.rows:
            return {}
        inputs: dict[str, Any] = tensors(batch.rows, self._tokenizer.pad_token_id, self.accelerator.device)
        if self.mask_truncated_completions:
            uncut = [torch.tensor(row.uncut, device=self.accelerator.device) for row in batch.rows]
            inputs["tool_mask"] *= torch.nn.utils.rnn.pad_sequence(uncut, batch_first=True)
            inputs["completion_mask"] *= inputs["tool_mask"].any(dim=1, keepdim=True)  # else it would be computed
        inputs["part_of_step"] = part
        inputs["num_items_in_batch"] = torch.tensor(batch.step_tokens, device=self.accelerator.device)
        scale = batch.token_scale if self.loss_type in _MEAN_OVER_TOKENS else batch.loss_scale
        inputs["loss_scale"] = scale if batch.loss_scale else 0.0
        if self.reference is not None:
            inputs["ref_per_token_logps"] = self._reference_logprobs(inputs, self.reference)
        return inputs

    @torch.no_grad()
    def _reference_logprobs(self, inputs: dict[str, Any], reference: Reference) -> torch.Tensor:
        """(B, T) log-probabilities under the reference policy."""
        self._sampled = inputs["tool_mask"]
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        with reference.in_place():
            logprobs, _, _ = self._get_per_token_logps_and_entropies(
                self.model, ids, mask, inputs["completion_ids"].size(1)
            )
        return logprobs

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """Log-probabilities and entropies (B, T) of the completions, each distinct prompt computed once.

        Both are exactly 0 at tokens of the environment, and so are their ratio to the sampler's, and KL.
        """
        width = input_ids.size(1) - logits_to_keep
        prompts: list[tuple[int, ...]] = []
        groups: list[list[list[int]]] = []
        wanted: list[list[list[bool]]] = []
        drawn = attention_mask[:, width:] if self._sampled is None else self._sampled
        for ids, mask, marks in zip(input_ids.tolist(), attention_mask.tolist(), drawn.tolist(), strict=True):
            prompt = tuple(token for token, seen in zip(ids[:width], mask[:width], strict=True) if seen)
            if not prompts or prompts[-1] != prompt:
                prompts.append(prompt)
                groups.append([])
                wanted.append([])
            seen_at = [place for place, seen in enumerate(mask[width:]) if seen]
            groups[-1].append([ids[width + place] for place in seen_at])
            wanted[-1].append([bool(marks[place]) for place in seen_at])
        with self.accelerator.autocast():
            found = completion_logprobs(
                model,
                prompts,
                groups,
                wanted=wanted,
                temperature=self.temperature,
                with_entropy=True,
                width=logits_to_keep,
            )
        return found.logprobs, found.entropy, None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """TRL's loss, weighted so that the micro-batches of a step add up to the mean over all its answers."""
        if not inputs:  # every answer of these groups has advantage 0: no loss, no gradient
            # A sum, since DeepSpeed takes only what was computed from something for a loss.
            return torch.zeros(1, requires_grad=True, device=self.accelerator.device).sum()
        self._sampled = inputs["tool_mask"]
        here = int((inputs["completion_mask"] * inputs["tool_mask"]).sum())
        with figures_of_step(self.accelerator, inputs["part_of_step"], here):
            loss: torch.Tensor = super()._compute_loss(model, inputs)
        over_micro_batch = self.loss_type in (*_MEAN_OVER_ROWS, *_MEAN_OVER_TOKENS)
        scaled = over_micro_batch or inputs["loss_scale"] == 0.0  # 0: repeated to keep others company
        return loss * inputs["loss_scale"] if scaled else loss


def train_grpo(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    collector: Collector,
    *,
    settings: GrpoSection,
    model_settings: ModelSection,
    seed: int,
    run: RunDir,
    listener: RunListener,
    validate: Callable[[int], float] | None,
    launch: LaunchSection | None = None,
) -> Path:
    """Train `model` in place with GRPO, and leave the result in `run.path / "model"`.

    The result is the best model by validation, or the last one where `validate` is None. Goes on from the run's last
    good checkpoint; steps after it whose rollouts were recorded are trained on again, not sampled again.

    Args:
        collector: makes the rollouts; its engine samples from this very model.
        validate: the validation pass rate of the model as it is now, given the step.
        launch: how many processes train (all of them call this), and how; None: this one alone.
    """
    launch = launch or LaunchSection()
    require_sampling(launch)
    require_steps(launch, settings.steps)
    # At most one micro-batch per answer; those that the token budget does not need stay empty and cost nothing.
    groups_per_process = -(-settings.tasks_per_step // processes())
    most_micro_batches = groups_per_process * settings.completions_per_task
    config = GRPOConfig(
        **trainer_arguments(
            run, model_settings, seed=seed, steps=settings.steps, warmup_steps=settings.warmup_steps, launch=launch
        ),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=most_micro_batches,
        steps_per_generation=most_micro_batches,
        num_generations=settings.completions_per_task,
        learning_rate=settings.learning_rate,
        max_grad_norm=settings.max_grad_norm,
        save_steps=settings.save_every,
        max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature,
        beta=settings.kl_beta,
        epsilon=settings.clip_low,
        # For cispo TRL takes the cap itself.
        epsilon_high=settings.clip_high + (1.0 if settings.loss == "cispo" else 0.0),
        delta=settings.ratio_cap,
        loss_type=settings.loss,
        scale_rewards=settings.scale_rewards,
        importance_sampling_level=settings.importance_sampling,
        mask_truncated_completions=settings.mask_truncated,
        # The sampler has none: with it, the ratio and the divergence would be noise from the first step on.
        disable_dropout=True,
        shuffle_dataset=False,
        log_completions=False,
    )
    on_one_device(config)
    clock = StepClock(run)
    trainer = RepairGRPOTrainer(
        collector=collector,
        micro_batch_tokens=settings.micro_batch_tokens,
        reference_rate=settings.kl_reference_rate if settings.kl_reference == "moving" else None,
        model=model,
        args=config,
        # One row per group of a step: TRL only counts them.
        train_dataset=Dataset.from_dict({"prompt": [""] * (groups_per_process * processes() * max(1, settings.steps))}),
        processing_class=tokenizer,
        peft_config=new_adapter(model_settings, model),
        callbacks=of_every_step(run, listener, _METRICS, settings.max_minutes, clock),
    )
    trainer.launch, trainer.clock = launch, clock
    trainer.push = None if launch.vllm is None else ServerPush(launch.vllm)
    keep = functools.partial(save_whole, trainer, tokenizer, model_path(run))
    add_checks(trainer, launch, model_settings)
    if validate is not None:
        trainer.add_callback(Validate(settings.validate_every, measured_once(trainer, validate), keep, run, listener))
    silence(trainer)
    if settings.steps == 0:
        return keep()
    checkpoint = run.latest_good_checkpoint()
    if checkpoint is not None:
        require_resumable(launch, checkpoint.path)
        collector.stream.restore((checkpoint.path / _STREAM_FILE).read_text())
        if trainer.reference is not None and (checkpoint.path / _REFERENCE_FILE).is_file():
            trainer.reference.restore(load_file(checkpoint.path / _REFERENCE_FILE))
    trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
    return model_path(run) if validate is not None else keep()


def _rewarded_by_the_collector(**_: Any) -> list[float]:
    raise AssertionError("TRL asked for a reward: the collector gives them")
