"""Our decoding loop: prompts computed once, one copy of their keys per group, no padding between rows.

A batch is a list of prompts of any lengths, each with several rows (completions). The prompts are prefilled in packed
passes; then all living rows advance one token per packed pass. Rows of a prompt attend to the prompt's keys, of which
there is one copy, and to their own suffix in a preallocated cache. Finished rows leave when enough of them have
gathered to pay for the copying.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from code_repair_rl.models.packed import SequencesLayout, packed_attention, packed_forward
from code_repair_rl.rollouts.sampler import draw

_PREFILL_TOKENS = 4096
"""Prompt tokens per packed prefill pass: bounds the activations (about 100 MB for a 135 M model)."""
_SUFFIX_STEP = 32
"""The suffix cache grows by so many tokens at a time, so that short answers do not pay for the longest allowed."""
_DROP_SHARE = 0.2
"""Finished rows leave once they are this share of the batch: their upkeep then costs more than copying the rest."""


@dataclass(frozen=True, slots=True)
class Row:
    """One completion to be sampled."""

    prompt: int
    """Which of the batch's prompts it answers."""
    uniforms: Tensor
    """`(max_new_tokens,)` float64: its random numbers, one per token; the length bounds the completion."""


@dataclass(slots=True)
class Sampled:
    """What was drawn for one row."""

    token_ids: list[int]
    logprobs: list[float]
    stopped: bool
    """It ends with a stop token."""


class _Prefill(SequencesLayout):
    """Causal attention over each prompt, keeping keys and values."""

    def __init__(self, lengths: Sequence[int]) -> None:
        super().__init__(lengths)
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float) -> Tensor:
        self.kept[layer] = (key, value)
        return super().attend(layer, query, key, value, scaling, dropout)


class _Decode:
    """Attention of one new token per row over its prompt's keys and its own suffix.

    Shapes: R rows, G prompts with at most S rows each, K key heads, Q query heads per key head, P longest prompt,
    T suffix so far. Everything is fp32: small batched products are slower in bf16 on CPUs, and more exact this way.
    """

    def __init__(self, prompt_keys: list[Tensor], prompt_values: list[Tensor], lengths: Tensor, rows: list[int]):
        self.prompt_keys = prompt_keys
        """Per layer `(G, K, D, P)`."""
        self.prompt_values = prompt_values
        """Per layer `(G, K, P, D)`."""
        self.lengths = lengths
        """`(G,)`, prompt lengths."""
        layers = len(prompt_keys)
        groups, heads, width, _ = prompt_keys[0].shape
        device = prompt_keys[0].device
        self.suffix_keys = [torch.empty(len(rows), heads, 0, width, device=device) for _ in range(layers)]
        self.suffix_values = [torch.empty(len(rows), heads, 0, width, device=device) for _ in range(layers)]
        self.suffix = 0
        self._place(torch.tensor(rows, device=device), groups)

    def _place(self, group_of_row: Tensor, groups: int) -> None:
        """Give each row a place in a `(G, S)` grid, so that one batched product serves all prompts."""
        self.group_of_row = group_of_row
        counts = torch.bincount(group_of_row, minlength=groups)
        self.slots = int(counts.max())
        first_of_group = counts.cumsum(0) - counts
        rank = torch.arange(len(group_of_row), device=group_of_row.device) - first_of_group[group_of_row]
        self.place_of_row = group_of_row * self.slots + rank
        self.full = len(group_of_row) == groups * self.slots
        self.row_of_place = torch.zeros(groups * self.slots, dtype=torch.long, device=group_of_row.device)
        self.row_of_place[self.place_of_row] = torch.arange(len(group_of_row), device=group_of_row.device)
        longest = self.prompt_keys[0].shape[-1]
        beyond = torch.arange(longest, device=self.lengths.device).unsqueeze(0) >= self.lengths.unsqueeze(1)
        self.prompt_mask = torch.zeros(beyond.shape, device=beyond.device).masked_fill_(beyond, float("-inf"))
        self.ragged = bool(beyond.any())

    def reserve(self) -> None:
        """Make room for one more suffix token."""
        if self.suffix < self.suffix_keys[0].shape[2]:
            return
        for cache in (self.suffix_keys, self.suffix_values):
            for layer, old in enumerate(cache):
                rows, heads, room, width = old.shape
                new = torch.empty(rows, heads, room + _SUFFIX_STEP, width, device=old.device)
                new[:, :, :room] = old
                cache[layer] = new

    def keep_rows(self, rows: Tensor) -> None:
        """Drop all rows but these (ascending), and the prompts that nobody is left to answer."""
        for cache in (self.suffix_keys, self.suffix_values):
            for layer, old in enumerate(cache):
                cache[layer] = old[rows]
        groups, group_of_row = torch.unique(self.group_of_row[rows], return_inverse=True)
        if len(groups) < len(self.lengths):
            self.lengths = self.lengths[groups]
            longest = int(self.lengths.max())
            for layer in range(len(self.prompt_keys)):
                self.prompt_keys[layer] = self.prompt_keys[layer][groups, :, :, :longest].contiguous()
                self.prompt_values[layer] = self.prompt_values[layer][groups, :, :longest].contiguous()
        self._place(group_of_row, len(groups))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float) -> Tensor:
        _, heads, rows, width = query.shape
        key_heads = key.shape[1]
        queries = heads // key_heads
        upto = self.suffix + 1
        self.suffix_keys[layer][:, :, self.suffix] = key[0].transpose(0, 1)
        self.suffix_values[layer][:, :, self.suffix] = value[0].transpose(0, 1)
        prompt_keys, prompt_values = self.prompt_keys[layer], self.prompt_values[layer]
        groups, _, _, longest = prompt_keys.shape

        query_rkqd = query[0].transpose(0, 1).reshape(rows, key_heads, queries, width).float() * scaling
        in_places = query_rkqd if self.full else query_rkqd[self.row_of_place]
        in_grid = in_places.view(groups, self.slots, key_heads, queries, width).transpose(1, 2)
        in_grid = in_grid.reshape(groups, key_heads, self.slots * queries, width)
        prompt_scores = in_grid @ prompt_keys
        if self.ragged:
            prompt_scores += self.prompt_mask[:, None, None]
        prompt_scores = self._to_rows(prompt_scores, queries)
        suffix_scores = query_rkqd @ self.suffix_keys[layer][:, :, :upto].transpose(-1, -2)

        weights = torch.softmax(torch.cat([prompt_scores, suffix_scores], dim=-1), dim=-1)
        on_prompt, on_suffix = torch.split(weights, [longest, upto], dim=-1)
        if not self.full:
            on_prompt = on_prompt[self.row_of_place]
        on_prompt = on_prompt.reshape(groups, self.slots, key_heads, queries, longest).transpose(1, 2)
        mixed = on_prompt.reshape(groups, key_heads, self.slots * queries, longest) @ prompt_values
        mixed = self._to_rows(mixed, queries) + on_suffix @ self.suffix_values[layer][:, :, :upto]
        return mixed.to(query.dtype).reshape(rows, heads, width).transpose(0, 1).unsqueeze(0)

    def _to_rows(self, in_grid: Tensor, queries: int) -> Tensor:
        """`(G, K, S * Q, X)` to `(R, K, Q, X)`."""
        groups, key_heads, _, last = in_grid.shape
        by_place: Tensor = in_grid.view(groups, key_heads, self.slots, queries, last).transpose(1, 2)
        by_place = by_place.reshape(groups * self.slots, key_heads, queries, last)
        return by_place if self.full else by_place[self.place_of_row]


@torch.no_grad()
def decode(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Row],
    stop_ids: Sequence[int],
    temperature: float,
) -> list[Sampled]:
    """Sample every row to its stop token or its last uniform.

    Args:
        model: packable (see `why_not_packable`), in evaluation mode.
        prompts: token ids, none empty.
        rows: sorted by prompt, every prompt having at least one.
        stop_ids: tokens that end a completion.
        temperature: see `draw`.
    """
    device = next(model.parameters()).device
    sampled = [Sampled([], [], False) for _ in rows]
    with packed_attention(model):
        layout, first_logits = _prefill(model, prompts, [row.prompt for row in rows], device)
        logits = first_logits[layout.group_of_row]
        limits = torch.tensor([len(row.uniforms) for row in rows])
        uniforms = torch.nn.utils.rnn.pad_sequence([row.uniforms for row in rows], batch_first=True)
        stops = torch.tensor(sorted(stop_ids))
        living = torch.arange(len(rows))
        """Which row each line of the batch is."""
        open_lines = torch.ones(len(rows), dtype=torch.bool)
        """Lines whose row is not finished."""
        step = 0
        while True:
            tokens, logprobs = draw(logits, uniforms[living, step], temperature)
            on_host = tokens.cpu()
            stopped = torch.isin(on_host, stops)
            token_list, logprob_list = on_host.tolist(), logprobs.tolist()
            for line in torch.nonzero(open_lines).flatten().tolist():
                row = sampled[living[line]]
                row.token_ids.append(token_list[line])
                row.logprobs.append(logprob_list[line])
                row.stopped = bool(stopped[line])
            step += 1
            open_lines &= ~stopped & (limits[living] > step)
            left = int(open_lines.sum())
            if left == 0:
                return sampled
            if left <= (1.0 - _DROP_SHARE) * len(living):
                kept = torch.nonzero(open_lines).flatten()
                layout.keep_rows(kept.to(device))
                living, tokens, open_lines = living[kept], tokens[kept.to(device)], open_lines[kept]
            layout.reserve()
            positions = layout.lengths[layout.group_of_row] + layout.suffix
            logits = packed_forward(model, layout, tokens, positions)
            layout.suffix += 1


def _prefill(
    model: nn.Module, prompts: Sequence[Sequence[int]], rows: list[int], device: torch.device
) -> tuple[_Decode, Tensor]:
    """Compute the prompts once; returns the decoding layout and the logits after each prompt, `(G, V)`."""
    lengths = [len(prompt) for prompt in prompts]
    longest = max(lengths)
    keys: list[Tensor] = []
    values: list[Tensor] = []
    logits: list[Tensor] = []
    for start, stop in _portions(lengths, _PREFILL_TOKENS):
        portion = lengths[start:stop]
        layout = _Prefill(portion)
        ids = torch.tensor([token for prompt in prompts[start:stop] for token in prompt], device=device)
        positions = torch.cat([torch.arange(length, device=device) for length in portion])
        last = torch.tensor(portion, device=device).cumsum(0) - 1
        logits.append(packed_forward(model, layout, ids, positions, keep=last))
        for layer in range(len(layout.kept)):
            key, value = layout.kept.pop(layer)
            if len(keys) <= layer:
                heads, width = key.shape[1], key.shape[3]
                keys.append(torch.zeros(len(prompts), heads, width, longest, device=device))
                values.append(torch.zeros(len(prompts), heads, longest, width, device=device))
            pieces = zip(torch.split(key[0], portion, dim=1), torch.split(value[0], portion, dim=1), strict=True)
            for group, (k, v) in enumerate(pieces, start=start):
                keys[layer][group, :, :, : k.shape[1]] = k.transpose(1, 2)
                values[layer][group, :, : v.shape[1]] = v
    return _Decode(keys, values, torch.tensor(lengths, device=device), rows), torch.cat(logits)


def _portions(lengths: Sequence[int], budget: int) -> list[tuple[int, int]]:
    """Consecutive ranges of prompts whose tokens fit the budget (at least one prompt each)."""
    portions = []
    start, tokens = 0, 0
    for number, length in enumerate(lengths):
        if number > start and tokens + length > budget:
            portions.append((start, number))
            start, tokens = number, 0
        tokens += length
    return [*portions, (start, len(lengths))]
