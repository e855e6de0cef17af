"""Drawing tokens: inverse-CDF sampling with one uniform number per draw, exact over the whole vocabulary.

`torch.multinomial` draws one exponential per vocabulary entry, which on a CPU costs more than a small network. Here a
row costs one pass for the exponentials and their block sums; the rest happens inside one block of 256 entries.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_BLOCK = 256
"""Vocabulary entries per block: near the square root of usual vocabularies (49,152 to 262,144)."""


def row_uniforms(seed: int, prompt: int, completion: int, count: int) -> Tensor:
    """Uniform numbers in [0, 1) for one row, `(count,)` float64.

    They depend on the seed and the row's place only, so that a row's answer does not depend on what shares its batch.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, prompt, completion])))
    return torch.from_numpy(generator.random(count))


def draw(logits: Tensor, uniforms: Tensor, temperature: float, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Draw one token per number.

    Args:
        logits: `(R, V)`, any float type, before temperature.
        uniforms: `(N,)` float64 in [0, 1).
        temperature: 0 takes the most likely token.
        rows: `(N,)`, the row of `logits` that each number draws from; None: one number per row, in order.

    Returns:
        tokens `(N,)` int64, and their log-probabilities `(N,)` float32 after temperature (greedy: at temperature 1).
    """
    count, vocabulary = logits.shape
    rows = torch.arange(count, device=logits.device) if rows is None else rows
    tokens_of_best = logits.argmax(dim=-1)
    best = logits.gather(1, tokens_of_best.unsqueeze(1)).float()
    blocks = -(-vocabulary // _BLOCK)
    weights = torch.zeros if blocks * _BLOCK != vocabulary else torch.empty
    padded = weights(count, blocks * _BLOCK, dtype=torch.float32, device=logits.device)
    scaled = padded[:, :vocabulary]
    scaled.copy_(logits).sub_(best)
    if temperature not in (0.0, 1.0):
        scaled.div_(temperature)
    scaled.exp_()
    grid = padded.view(count, blocks, _BLOCK)
    # Sums over 256 entries in fp32 (pairwise), across blocks in fp64: the tail of the distribution stays in.
    block_ends = grid.sum(dim=-1).double().cumsum(dim=-1)
    total = block_ends[:, -1:]
    greedy = temperature == 0.0
    tokens = tokens_of_best[rows] if greedy else _invert(grid, block_ends, uniforms.to(logits.device), rows)
    chosen = logits[rows, tokens].float() - best[rows, 0]
    divisor = temperature if temperature > 0.0 else 1.0
    return tokens, (chosen.double() / divisor - total[rows, 0].log()).float()


def _invert(grid: Tensor, block_ends: Tensor, uniforms: Tensor, rows: Tensor) -> Tensor:
    """The entry where the cumulated weights pass `uniforms` of their total; an entry without weight is never taken.

    Args:
        grid: `(R, blocks, 256)` unnormalised weights.
        block_ends: `(R, blocks)` float64, cumulated sums of the blocks.
        uniforms: `(N,)` float64 in [0, 1).
        rows: `(N,)`, the row that each number draws from.
    """
    block_ends = block_ends[rows]
    total = block_ends[:, -1:]
    target = (uniforms.unsqueeze(1) * total).minimum(torch.nextafter(total, torch.zeros_like(total)))
    block = torch.searchsorted(block_ends, target, right=True)
    inside = grid[rows, block.squeeze(1)].double().cumsum(dim=-1)
    start = torch.where(block > 0, block_ends.gather(1, (block - 1).clamp(min=0)), torch.zeros_like(total))
    # The block's own sum may be rounded differently from its entries' running sum: scale the rest onto the latter.
    share = (target - start) / (block_ends.gather(1, block) - start)
    end = inside[:, -1:]
    rest = (share * end).minimum(torch.nextafter(end, torch.zeros_like(end)))
    entry = torch.searchsorted(inside, rest, right=True)
    return (block * _BLOCK + entry).squeeze(1)
