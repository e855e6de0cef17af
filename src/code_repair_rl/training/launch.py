"""How a recipe's `launch` section becomes a distributed job, and how a silent fall-back becomes an error.

Libraries choose quietly: on CPUs accelerate makes FSDP2 plain DDP, a missing environment variable makes two processes
two runs of one. So what came of it is read back from the trainer before the first step, and compared with the recipe.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainerCallback

from code_repair_rl.errors import BadInput
from code_repair_rl.home import built_atomically
from code_repair_rl.models.load import name_base
from code_repair_rl.recipes import LaunchSection, ModelSection
from code_repair_rl.training import together

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer

STATE_FILE = "launch.json"
"""In a checkpoint: what it was written under."""

_DEEPSPEED = ("zero2", "zero3")


@dataclass(frozen=True, slots=True)
class Realised:
    """What a trainer really does."""

    kind: str
    processes: int
    precision: str
    """`bf16` or `no` (fp32)."""
    sharded: bool
    """Whether this process holds only a part of the weights."""


def join(section: LaunchSection) -> None:
    """Make this process one of the job's, before any model is loaded.

    Raises:
        BadInput: the job has another number of processes than the recipe, or the kind cannot work here.
    """
    if section.kind == "single":
        return
    _require_possible(section)
    found = int(os.environ.get("WORLD_SIZE", "1"))
    if found != section.processes:
        raise BadInput(
            f"the recipe asks for {section.processes} processes and this job has {found}",
            where="launch.processes",
            mend="start it with `crrl`, which starts them, or with torchrun or sbatch and the same number",
        )
    if found == 1:
        # A job of one: torchrun's variables, as it would set them.
        for name, value in _ALONE.items():
            os.environ.setdefault(name, value)
    on_gpu = torch.cuda.is_available()
    if section.kind in _DEEPSPEED:
        # Not ACCELERATE_USE_CPU beside it, on CPUs either: with that, accelerate drops DeepSpeed and makes it DDP.
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
        if not on_gpu:
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if dist.is_initialized():
        return
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=timedelta(minutes=section.timeout_minutes)
    )


_ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29577"}


def _require_possible(section: LaunchSection) -> None:
    if section.kind in _DEEPSPEED and importlib.util.find_spec("deepspeed") is None:
        raise BadInput(
            "DeepSpeed is not installed",
            where="launch.kind",
            mend="pip install 'code-repair-rl[deepspeed]', or choose ddp",
        )
    if section.kind == "fsdp2" and not torch.cuda.is_available():
        raise BadInput(
            "FSDP2 needs GPUs: on CPUs it would quietly become DDP, with nothing shared out",
            where="launch.kind",
            mend="choose ddp or zero3",
        )


def require_sampling(section: LaunchSection) -> None:
    """Refuse kinds whose weights nobody can sample from while they are trained.

    Raises:
        BadInput: FSDP2, whose pieces only a pass of all processes together puts together.
    """
    if section.kind == "fsdp2":
        raise BadInput(
            "under FSDP2 no process has whole weights to sample with, as reinforcement and validation do",
            where="launch.kind",
            mend="choose zero3 or ddp",
        )


def require_steps(section: LaunchSection, steps: int) -> None:
    """Refuse to share out weights for nothing: what puts them together again is there once training has begun.

    Raises:
        BadInput: no step, and weights in pieces.
    """
    if steps == 0 and section.kind in ("zero3", "fsdp2"):
        raise BadInput(
            "no steps, and weights that are shared out", where="steps", mend="take launch.kind=single for it"
        )


@contextmanager
def loading(section: LaunchSection, model: ModelSection) -> Iterator[None]:
    """While open, models are loaded as the job will hold them: under ZeRO-3 each process keeps its pieces only.

    The first process reads the weights and hands them out module by module, so that no device ever holds all of them.
    Every process must open it, after `join`. The tiny double is made, not loaded, and shared out when training begins.
    """
    if section.kind != "zero3":
        yield
        return
    from transformers.integrations import HfDeepSpeedConfig

    settings = {name: value for name, value in _deepspeed(section, model).items() if value != "auto"}
    # transformers looks for it as long as it lives; the trainer makes its own, with what is "auto" filled in.
    known = HfDeepSpeedConfig({**settings, "train_micro_batch_size_per_gpu": 1})
    try:
        yield
    finally:
        del known


def trainer_settings(section: LaunchSection, model: ModelSection) -> dict[str, Any]:
    """The section as arguments of transformers' trainer."""
    if section.kind == "single":
        return {}
    settings: dict[str, Any] = {
        "ddp_timeout": int(60 * section.timeout_minutes),
        "ddp_find_unused_parameters": False,
    }
    if section.kind in _DEEPSPEED:
        settings["deepspeed"] = _deepspeed(section, model)
    if section.kind == "fsdp2":
        settings["fsdp"] = True
        settings["fsdp_config"] = {
            "version": 2,
            "reshard_after_forward": True,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "state_dict_type": "FULL_STATE_DICT",
        }
    return settings


def _deepspeed(section: LaunchSection, model: ModelSection) -> dict[str, Any]:
    # ZeRO-2 makes its contiguous buffer at the first gradient, and fails on a micro-batch that has none: those of
    # groups without variance.
    zero: dict[str, Any] = {"stage": int(section.kind[-1]), "contiguous_gradients": section.kind == "zero3"}
    if section.kind == "zero3":
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if section.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if section.offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": model.in_bf16},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }


def realised(trainer: Trainer) -> Realised:
    """What the trainer's wrapped model really is; call it once training has begun."""
    wrapped: Any = trainer.model_wrapped
    count = together.processes()
    precision = str(trainer.accelerator.mixed_precision)
    if hasattr(wrapped, "zero_optimization_stage"):  # a DeepSpeed engine
        parameters = [one for one in wrapped.module.parameters() if getattr(one, "ds_numel", 0) > count]
        sharded = bool(parameters) and all(one.ds_tensor.numel() < one.ds_numel for one in parameters)
        precision = "bf16" if wrapped.bfloat16_enabled() else "no"
        return Realised(f"zero{wrapped.zero_optimization_stage()}", count, precision, sharded)
    if isinstance(wrapped, DistributedDataParallel):
        return Realised("ddp", count, precision, False)
    if any(type(one).__name__.startswith("FSDP") for one in wrapped.modules()):
        return Realised("fsdp2", count, precision, count > 1)
    return Realised("single", count, precision, False)


def require_realised(section: LaunchSection, model: ModelSection, found: Realised) -> None:
    """Hold what came of it against the recipe.

    Raises:
        BadInput: anything differs.
    """
    kind = section.kind
    asked = Realised(
        # One process of DDP has nothing to wrap.
        "single" if kind == "ddp" and section.processes == 1 else kind,
        section.processes,
        "bf16" if model.in_bf16 else "no",
        kind in ("zero3", "fsdp2") and section.processes > 1,
    )
    differing = [name for name, value in asdict(asked).items() if value != asdict(found)[name]]
    if differing:
        told = ", ".join(f"{name}: asked {asdict(asked)[name]}, is {asdict(found)[name]}" for name in differing)
        raise BadInput(
            f"training would not run as the recipe says ({told})",
            where="launch",
            mend="start it with `crrl` or with a launcher of that many processes, and see `crrl doctor`",
        )


class CheckLaunch(TrainerCallback):  # type: ignore[misc]
    """Compares recipe and reality before the first step."""

    def __init__(self, trainer: Trainer, section: LaunchSection, model: ModelSection) -> None:
        self._trainer, self._section, self._model = trainer, section, model

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Read back and compare."""
        require_realised(self._section, self._model, realised(self._trainer))


def add_checks(trainer: Trainer, section: LaunchSection, model: ModelSection) -> None:
    """Let the trainer end at its start where it is not what the recipe says."""
    trainer.add_callback(CheckLaunch(trainer, section, model))


def state_of(section: LaunchSection) -> dict[str, str]:
    """What a checkpoint keeps about the job that wrote it."""
    return {STATE_FILE: json.dumps({"kind": section.kind, "processes": section.processes}) + "\n"}


def require_resumable(section: LaunchSection, checkpoint: Path) -> None:
    """Refuse checkpoints whose optimizer state lies in as many pieces as there were processes, where that differs.

    DDP and single processes read one another's; DeepSpeed's are read by the same kind and number only.

    Raises:
        BadInput: the checkpoint cannot be read by this job.
    """
    path = checkpoint / STATE_FILE
    alone = {"kind": "single", "processes": 1}
    written = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else alone
    now = {"kind": section.kind, "processes": section.processes}
    pieces = [one for one in (written, now) if one["kind"] in (*_DEEPSPEED, "fsdp2")]
    if pieces and written != now:
        raise BadInput(
            f"the checkpoint was written by {written['processes']} process(es) of {written['kind']}, and its optimizer "
            f"state cannot be read by {now['processes']} of {now['kind']}",
            where=str(checkpoint),
            mend="resume with the same launch section, or start a new run from the saved model (model.name=…/model)",
        )


def portion(total: int, what: str) -> int:
    """`total` shared out evenly.

    Raises:
        BadInput: the number of processes does not divide it.
    """
    count = together.processes()
    if total % count:
        raise BadInput(
            f"{total} cannot be shared out among {count} processes", where=what, mend=f"choose a multiple of {count}"
        )
    return total // count


def save_whole(trainer: Trainer, tokenizer: PreTrainedTokenizerBase, destination: Path) -> Path:
    """Write the consolidated weights (or the adapter) and the tokenizer, whole or not at all; all processes call it."""
    several = together.processes() > 1
    model: Any = trainer.accelerator.unwrap_model(trainer.model_wrapped) if several else trainer.model
    # Gathered only where no process has all: what accelerate gathers of whole weights holds tied ones twice.
    pieces = together.shares_out_weights(trainer)
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if pieces else None

    def write() -> None:
        with built_atomically(destination) as scratch:
            model.save_pretrained(scratch, **({} if state is None else {"state_dict": state}))
            name_base(scratch)
            tokenizer.save_pretrained(scratch)

    together.on_first(write)
    return destination
