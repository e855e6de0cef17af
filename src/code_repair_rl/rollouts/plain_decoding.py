"""The plain decoding loop, for models that packed passes cannot serve: left padding and transformers' own cache.

It draws with the same sampler and the same random numbers as `decoding`, so it is also what that is checked against.
Slower: every row carries its own copy of the prompt's keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from code_repair_rl.rollouts.decoding import Row, Sampled
from code_repair_rl.rollouts.sampler import draw


@torch.no_grad()
def decode_plainly(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Row],
    stop_ids: Sequence[int],
    temperature: float,
) -> list[Sampled]:
    """As `decoding.decode`, for any causal language model with a cache."""
    device = next(model.parameters()).device
    sampled = [Sampled([], [], False) for _ in rows]
    longest = max(len(prompt) for prompt in prompts)
    padded = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    seen = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    ids = torch.tensor([padded[row.prompt] for row in rows], device=device)
    mask = torch.tensor([seen[row.prompt] for row in rows], device=device)
    limits = torch.tensor([len(row.uniforms) for row in rows])
    uniforms = torch.nn.utils.rnn.pad_sequence([row.uniforms for row in rows], batch_first=True)
    stops = torch.tensor(sorted(stop_ids))
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
