"""Which precision this machine is fast in: not every processor that knows bf16 gains by it."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from code_repair_rl.recipes import Recipe, read

if TYPE_CHECKING:
    import torch

WORTH_IT = 0.8
"""From this share of fp32's speed on bf16 is chosen: it also takes less memory."""


def bf16_speed() -> float:
    """How fast this processor multiplies matrices in bf16, as a multiple of fp32; quickly measured."""
    import torch

    # A layer of the embedded model over a micro-batch of tokens; the best of some, in turn, for machines are noisy.
    shapes = (512, 576), (1536, 576)
    operands = {one: [torch.ones(shape, dtype=one) for shape in shapes] for one in (torch.float32, torch.bfloat16)}
    best: dict[torch.dtype, float] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for each other where other work keeps a core busy
    try:
        for _ in range(12):
            for dtype, (tokens, weights) in operands.items():
                begun = time.perf_counter()
                torch.nn.functional.linear(tokens, weights)
                best[dtype] = min(best.get(dtype, float("inf")), time.perf_counter() - begun)
    finally:
        torch.set_num_threads(threads)
    return best[torch.float32] / best[torch.bfloat16]


@cache
def bf16_pays() -> bool:
    """Whether this machine had better compute in bf16: on a GPU, or on a processor that does not lose by it."""
    import torch

    return torch.cuda.is_available() or bf16_speed() >= WORTH_IT


def faster_dtype() -> str:
    """`bfloat16` or `float32`: what a model that is only sampled from had better be loaded in."""
    return "bfloat16" if bf16_pays() else "float32"


def settled(recipe: Recipe, folder: Path | None = None) -> Recipe:
    """The recipe with `model.autocast=auto` replaced by what this machine is fast in.

    Args:
        folder: the run's; where it has begun with a precision, it goes on with that.
    """
    if recipe.model.autocast != "auto":
        return recipe
    chosen = "auto"
    if folder is not None and (folder / "recipe.yaml").is_file():
        chosen = read(folder / "recipe.yaml").model.autocast
    if chosen == "auto":
        chosen = "bfloat16" if bf16_pays() else "none"
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"autocast": chosen})})
