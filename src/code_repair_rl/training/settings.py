"""From a recipe's sections to the arguments of TRL's trainers."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from code_repair_rl.errors import BadInput
from code_repair_rl.recipes import LaunchSection, ModelSection
from code_repair_rl.runs import RunDir
from code_repair_rl.training.launch import trainer_settings
from code_repair_rl.training.speedups import speedup_settings


def trainer_arguments(
    run: RunDir, model: ModelSection, *, seed: int, steps: int, warmup_steps: int, launch: LaunchSection | None = None
) -> dict[str, Any]:
    """What SFT and GRPO have in common.

    The learning rate is constant after its warm-up, so that a run that a time budget ends is a prefix of a longer one.
    With N warm-up steps the first step has 1/(N + 1) of it, not nothing, as transformers' usual warm-up would have it:
    where a step takes a minute, none is given away.
    """
    return {
        "output_dir": str(run.path),
        "max_steps": steps,
        "seed": seed,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": model.in_bf16,
        "fp16": False,
        "activation_checkpointing": model.gradient_checkpointing,
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {"num_decay_steps": 0, "min_lr_ratio": 1 / (warmup_steps + 1)},
        "warmup_steps": warmup_steps,
        "weight_decay": 0.0,
        "optim": "adamw_torch_fused",
        "save_strategy": "steps",
        "logging_steps": 1,
        "logging_strategy": "steps",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "ignore_data_skip": False,
        **speedup_settings(launch or LaunchSection()),
        **trainer_settings(launch or LaunchSection(), model),
    }


def on_one_device(config: TrainingArguments) -> None:
    """Let a process train on one GPU, however many it can see: transformers would spread the batch over all of them by
    `nn.DataParallel`, which TRL refuses."""
    if config.n_gpu > 1:
        config._n_gpu = 1


def silence(trainer: Trainer) -> None:
    """Leave all talking to the run's listener: no printed dictionaries, no bars of transformers' own."""
    trainer.remove_callback(PrinterCallback)
    disable_progress_bar()


def new_adapter(section: ModelSection, model: Any) -> LoraConfig | None:
    """The adapter that training has to add to `model`: none where the recipe asks for none, or the model has one, which
    then goes on.

    Raises:
        BadInput: the model's adapter is of another rank than the recipe's.
    """
    if section.lora is None:
        return None
    if hasattr(model, "disable_adapter"):
        there = model.active_peft_config.r
        if there != section.lora.rank:
            raise BadInput(
                f"the model has an adapter of rank {there}, and the recipe asks for one of rank {section.lora.rank}",
                where="model.lora.rank",
                mend=f"go on with rank {there}, or merge the adapter first (crrl model export)",
            )
        return None
    targets = section.lora.target_modules
    return LoraConfig(
        r=section.lora.rank,
        lora_alpha=section.lora.alpha,
        lora_dropout=section.lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
