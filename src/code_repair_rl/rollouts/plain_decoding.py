"""The plain decoding loop, for models that packed passes cannot serve: left padding and transformers' own cache.

It draws with the same sampler and the same random numbers as `decoding`, so it is also what that is checked against.
Slower: every row carries its own copy of the prompt's keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from code_repair_rl.rollouts.decoding import Part, Sampled
from code_repair_rl.rollouts.sampler import draw


@torch.no_grad()
def decode_plainly(
    model: nn.Module, parts: Sequence[Part], stop_ids: Sequence[int], temperature: float, max_rows: int
) -> list[list[Sampled]]:
    """As `decoding.decode`, for any causal language model with a cache; `max_rows` at a time, to the last of them."""
    rows = [(part.prompt, uniforms) for part in parts for uniforms in part.uniforms]
    found: list[Sampled] = []
    for start in range(0, len(rows), max_rows):
        found += _decode_batch(model, rows[start : start + max_rows], stop_ids, temperature)
    flat = iter(found)
    return [[next(flat) for _ in part.uniforms] for part in parts]


def _decode_batch(
    model: nn.Module, rows: Sequence[tuple[Sequence[int], Tensor]], stop_ids: Sequence[int], temperature: float
) -> list[Sampled]:
    device = next(model.parameters()).device
    sampled = [Sampled([], [], False) for _ in rows]
    longest = max(len(prompt) for prompt, _ in rows)
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt, _ in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt, _ in rows], device=device)
    limits = torch.tensor([len(uniforms) for _, uniforms in rows])
    uniforms = torch.nn.utils.rnn.pad_sequence([uniforms for _, uniforms in rows], batch_first=True)
    stops = torch.tensor(sorted(stop_ids), dtype=torch.long)
    open_rows = torch.ones(len(rows), dtype=torch.bool)
    cache = None
    step = 0
    while True:
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        cache = output.past_key_values
        tokens, logprobs = draw(output.logits[:, -1], uniforms[:, step], temperature)
        stopped = torch.isin(tokens.cpu(), stops)
        for number in torch.nonzero(open_rows).flatten().tolist():
            sampled[number].token_ids.append(int(tokens[number]))
            sampled[number].logprobs.append(float(logprobs[number]))
            sampled[number].stopped = bool(stopped[number])
        step += 1
        open_rows &= ~stopped & (limits > step)
        if not open_rows.any():
            return sampled
        ids = tokens.unsqueeze(1)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
