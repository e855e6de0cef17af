"""Which precision this processor is fast in: not every one that knows bf16 gains by it."""

from __future__ import annotations

import time

SLOW = 0.8
"""Below this share of fp32's speed, bf16 does not pay."""


def bf16_speed() -> float:
    """How fast this processor multiplies matrices in bf16, as a multiple of fp32; quickly measured."""
    import torch

    def seconds(dtype: torch.dtype) -> float:
        # A layer of the embedded model over a micro-batch of tokens; the best of some, for machines are noisy.
        tokens, weights = torch.ones(512, 576, dtype=dtype), torch.ones(1536, 576, dtype=dtype)
        times = []
        for _ in range(12):
            begun = time.perf_counter()
            torch.nn.functional.linear(tokens, weights)
            times.append(time.perf_counter() - begun)
        return min(times)

    return seconds(torch.float32) / seconds(torch.bfloat16)


def handicap() -> float | None:
    """`bf16_speed` where this machine would lose by training in bf16; None where it would not, or has a GPU."""
    import torch

    if torch.cuda.is_available() or (speed := bf16_speed()) >= SLOW:
        return None
    return speed
