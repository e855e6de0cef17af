"""Optional packages that make training faster or smaller: used where the recipe asks for them, or refused."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch

from code_repair_rl.errors import BadInput
from code_repair_rl.recipes import LaunchSection


@dataclass(frozen=True, slots=True)
class Speedup:
    """What a switch needs, and what it sets."""

    module: str
    package: str
    """As pip knows it."""
    settings: dict[str, Any]
    """Arguments of transformers' trainer."""
    needs_gpu: bool = True
    refused: str = ""
    """Why it cannot be used although it may be there; empty: it can."""


SPEEDUPS: dict[str, Speedup] = {
    "liger": Speedup(
        "liger_kernel",
        "liger-kernel",
        # The loss is ours (log-probabilities in chunks): only the layers' kernels are Liger's.
        {
            "use_liger_kernel": True,
            "liger_kernel_config": {
                "rope": True,
                "rms_norm": True,
                "swiglu": True,
                "cross_entropy": False,
                "fused_linear_cross_entropy": False,
            },
        },
    ),
    "paged-adamw-8bit": Speedup("bitsandbytes", "bitsandbytes", {"optim": "paged_adamw_8bit"}),
    "flash-attention": Speedup(
        "flash_attn",
        "flash-attn",
        {},
        refused="the shared-prefix pass brings its own attention, so that the model's is never called in training",
    ),
    "unsloth": Speedup(
        "unsloth",
        "unsloth",
        {},
        refused="it replaces the model's forward pass, and with it the shared-prefix pass that training is built on",
    ),
}
"""None of them has been run on a GPU by this project yet."""


def speedup_settings(section: LaunchSection) -> dict[str, Any]:
    """What the recipe's switches set.

    Raises:
        BadInput: a package, or a GPU, is not there, or the switch cannot be combined with our training.
    """
    settings: dict[str, Any] = {}
    for name in section.speedups:
        settings |= _settings(name, SPEEDUPS[name])
    return settings


def _settings(name: str, one: Speedup) -> dict[str, Any]:
    where = f"launch.speedups: {name}"
    if one.refused:
        raise BadInput(f"cannot be used: {one.refused}", where=where, mend="take it out of the list")
    if importlib.util.find_spec(one.module) is None:
        raise BadInput(
            f"the package {one.package} is not installed",
            where=where,
            mend=f"pip install {one.package}, or take it out",
        )
    if one.needs_gpu and not torch.cuda.is_available():
        raise BadInput("needs a GPU, and none is here", where=where, mend="take it out of the list on this machine")
    return one.settings
