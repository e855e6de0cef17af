"""Attention layouts of the decoding loop: prompts, one new token per line, and beginnings of lines.

A *line* is one distinct sequence that is being continued: rows that have drawn the same tokens so far share it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from code_repair_rl.models.packed import SequencesLayout

_SUFFIX_STEP = 32
"""The suffix cache grows by so many tokens at a time, so that short answers do not pay for the longest allowed."""
_LINES_STEP = 1.5
"""And by this factor in lines, so that those that part from others seldom have all caches copied."""


class Prefill(SequencesLayout):
    """Causal attention over each prompt, keeping keys and values."""

    def __init__(self, lengths: Sequence[int]) -> None:
        super().__init__(lengths)
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float) -> Tensor:
        """See `Layout.attend`."""
        self.kept[layer] = (key, value)
        return super().attend(layer, query, key, value, scaling, dropout)


class Decode:
    """Attention of one new token per line over its prompt's keys and its own suffix.

    Shapes: R lines, G prompts with at most S lines each, K key heads, Q query heads per key head, D their size, P
    longest prompt, T longest suffix. Everything is fp32: small batched products are slower in bf16 on CPUs, and more
    exact so. Lines are in no order; the caches hold room for more than there are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.prompt_keys: list[Tensor] = []
        """Per layer `(G, K, D, P)`."""
        self.prompt_values: list[Tensor] = []
        """Per layer `(G, K, P, D)`."""
        self.suffix_keys: list[Tensor] = []
        """Per layer `(at least R, K, room, D)`; `suffix_values` alike."""
        self.suffix_values: list[Tensor] = []
        self.lengths = torch.zeros(0, dtype=torch.long, device=device)
        """`(G,)`, prompt lengths."""
        self.group_of_line = torch.zeros(0, dtype=torch.long, device=device)
        """`(R,)`"""
        self.ages = torch.zeros(0, dtype=torch.long, device=device)
        """`(R,)`, suffix tokens in the cache."""
        self.most_lines = 0
        """There are never more, however lines part."""

    def positions(self) -> Tensor:
        """`(R,)`: where each line's next token stands in its sequence."""
        return self.lengths[self.group_of_line] + self.ages

    def admit(self, keys: list[Tensor], values: list[Tensor], lengths: Tensor, lines_of_group: Sequence[int]) -> None:
        """Add prompts (`(G', K, P', D)` per layer) with so many new lines each."""
        first = len(self.lengths)
        counts = torch.tensor(lines_of_group, device=self.device)
        added = torch.repeat_interleave(torch.arange(len(counts), device=self.device) + first, counts)
        self.group_of_line = torch.cat([self.group_of_line, added])
        self.ages = torch.cat([self.ages, torch.zeros_like(added)])
        self.lengths = torch.cat([self.lengths, lengths])
        keys = [key.transpose(-1, -2) for key in keys]
        if not self.prompt_keys:
            heads, width = values[0].shape[1], values[0].shape[3]
            empty = torch.zeros(0, heads, 0, width, device=self.device)
            self.prompt_keys = [empty.transpose(-1, -2)] * len(keys)
            self.prompt_values, self.suffix_keys, self.suffix_values = ([empty] * len(keys) for _ in range(3))
        for layer, (key, value) in enumerate(zip(keys, values, strict=True)):
            self.prompt_keys[layer] = _stacked(self.prompt_keys[layer], key, dim=3)
            self.prompt_values[layer] = _stacked(self.prompt_values[layer], value, dim=2)
        self._room_for_lines()
        self._place()

    def part(self, sources: Sequence[int], places: Sequence[int]) -> None:
        """Let lines part: at each of `places` (a line that has ended, or the next one behind the last) goes a copy of
        the line in `sources`."""
        behind = sum(place >= len(self.ages) for place in places)
        self.ages = torch.cat([self.ages, self.ages.new_zeros(behind)])
        self.group_of_line = torch.cat([self.group_of_line, self.group_of_line.new_zeros(behind)])
        self._room_for_lines()
        origin = torch.tensor(sources, device=self.device)
        place = torch.tensor(places, device=self.device)
        self.ages[place] = self.ages[origin]
        self.group_of_line[place] = self.group_of_line[origin]
        upto = int(self.ages[origin].max())
        for cache in (self.suffix_keys, self.suffix_values):
            for one in cache:
                one[place, :, :upto] = one[origin, :, :upto]
        self._place()

    def _room_for_lines(self) -> None:
        """Let the suffix caches hold as many lines as there are."""
        lines, room = len(self.ages), len(self.suffix_keys[0])
        if lines <= room:
            return
        added = max(lines, min(int(room * _LINES_STEP), self.most_lines)) - room
        for cache in (self.suffix_keys, self.suffix_values):
            for layer, old in enumerate(cache):
                cache[layer] = torch.cat([old, old.new_zeros(added, *old.shape[1:])])

    def keep_lines(self, lines: Tensor) -> None:
        """Drop all lines but these, and the prompts that nobody is left to answer."""
        for cache in (self.suffix_keys, self.suffix_values):
            for layer, old in enumerate(cache):
                cache[layer] = old[lines]
        self.ages = self.ages[lines]
        groups, self.group_of_line = torch.unique(self.group_of_line[lines], return_inverse=True)
        if len(groups) < len(self.lengths):
            self.lengths = self.lengths[groups]
            longest = int(self.lengths.max()) if len(groups) else 0
            for layer in range(len(self.prompt_keys)):
                self.prompt_keys[layer] = self.prompt_keys[layer][groups, :, :, :longest].contiguous()
                self.prompt_values[layer] = self.prompt_values[layer][groups, :, :longest].contiguous()
        self._place()

    def _place(self) -> None:
        """Give each line a place in a `(G, S)` grid, so that one batched product serves all prompts."""
        groups, lines = len(self.lengths), len(self.group_of_line)
        if lines == 0:
            return
        counts = torch.bincount(self.group_of_line, minlength=groups)
        self.slots = int(counts.max())
        first_of_group = counts.cumsum(0) - counts
        by_group = torch.argsort(self.group_of_line, stable=True)
        rank = torch.arange(lines, device=self.device) - first_of_group[self.group_of_line[by_group]]
        self.place_of_line = torch.empty_like(by_group)
        self.place_of_line[by_group] = self.group_of_line[by_group] * self.slots + rank
        self.in_order = torch.equal(self.place_of_line, torch.arange(groups * self.slots, device=self.device))
        self.line_of_place = torch.zeros(groups * self.slots, dtype=torch.long, device=self.device)
        self.line_of_place[self.place_of_line] = torch.arange(lines, device=self.device)
        self.prompt_mask = _beyond(self.lengths, self.prompt_keys[0].shape[-1])

    def begin_step(self) -> None:
        """Make room for one more suffix token per line."""
        self.upto = int(self.ages.max()) + 1
        self.lines = torch.arange(len(self.ages), device=self.device)
        self.suffix_mask = _beyond(self.ages + 1, self.upto)
        self.make_room(self.upto)

    def make_room(self, tokens: int) -> None:
        """Let the suffix cache hold so many tokens of a line."""
        missing = tokens - self.suffix_keys[0].shape[2]
        if missing <= 0:
            return
        added = -(-missing // _SUFFIX_STEP) * _SUFFIX_STEP
        for cache in (self.suffix_keys, self.suffix_values):
            for layer, old in enumerate(cache):
                cache[layer] = torch.cat([old, old.new_zeros(len(old), old.shape[1], added, old.shape[3])], dim=2)

    def end_step(self) -> None:
        """The lines' new tokens are in the cache."""
        self.ages = self.ages + 1

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float) -> Tensor:
        """See `Layout.attend`; one token per line."""
        _, heads, lines, width = query.shape
        key_heads = key.shape[1]
        queries = heads // key_heads
        suffix_keys, suffix_values = self.suffix_keys[layer], self.suffix_values[layer]
        suffix_keys[self.lines, :, self.ages] = key[0].transpose(0, 1).float()
        suffix_values[self.lines, :, self.ages] = value[0].transpose(0, 1).float()
        prompt_keys, prompt_values = self.prompt_keys[layer], self.prompt_values[layer]
        groups, _, _, longest = prompt_keys.shape

        query_rkqd = query[0].transpose(0, 1).reshape(lines, key_heads, queries, width).float() * scaling
        in_places = query_rkqd if self.in_order else query_rkqd[self.line_of_place]
        in_grid = in_places.view(groups, self.slots, key_heads, queries, width).transpose(1, 2)
        in_grid = in_grid.reshape(groups, key_heads, self.slots * queries, width)
        prompt_scores = in_grid @ prompt_keys
        if self.prompt_mask is not None:
            prompt_scores += self.prompt_mask
        prompt_scores = self._to_lines(prompt_scores, queries)
        suffix_scores = query_rkqd @ suffix_keys[:lines, :, : self.upto].transpose(-1, -2)
        if self.suffix_mask is not None:
            suffix_scores += self.suffix_mask

        weights = torch.softmax(torch.cat([prompt_scores, suffix_scores], dim=-1), dim=-1)
        on_prompt, on_suffix = torch.split(weights, [longest, self.upto], dim=-1)
        if not self.in_order:
            on_prompt = on_prompt[self.line_of_place]
        on_prompt = on_prompt.reshape(groups, self.slots, key_heads, queries, longest).transpose(1, 2)
        mixed = on_prompt.reshape(groups, key_heads, self.slots * queries, longest) @ prompt_values
        mixed = self._to_lines(mixed, queries) + on_suffix @ suffix_values[:lines, :, : self.upto]
        return mixed.to(query.dtype).reshape(lines, heads, width).transpose(0, 1).unsqueeze(0)

    def _to_lines(self, in_grid: Tensor, queries: int) -> Tensor:
        """`(G, K, S * Q, X)` to `(R, K, Q, X)`."""
        groups, key_heads, _, last = in_grid.shape
        by_place: Tensor = in_grid.view(groups, key_heads, self.slots, queries, last).transpose(1, 2)
        by_place = by_place.reshape(groups * self.slots, key_heads, queries, last)
        return by_place if self.in_order else by_place[self.place_of_line]


class Tails:
    """Lines' own beginnings, end to end in one pass: each attends to its prompt's keys and causally to itself."""

    def __init__(self, decode: Decode, lines: Sequence[int], lengths: Sequence[int]) -> None:
        self._decode = decode
        self._lines = list(lines)
        self._lengths = list(lengths)
        groups = decode.group_of_line[torch.tensor(self._lines, device=decode.device)]
        self._groups: list[int] = groups.tolist()
        self._prompts: list[int] = decode.lengths[groups].tolist()

    def positions(self) -> Tensor:
        """`(N,)`: where the tokens stand in their sequences."""
        pairs = zip(self._prompts, self._lengths, strict=True)
        return torch.cat([torch.arange(start, start + length, device=self._decode.device) for start, length in pairs])

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float) -> Tensor:
        """See `Layout.attend`; the keys and values stay in the suffix cache."""
        decode = self._decode
        repeats = query.shape[1] // key.shape[1]
        mixed = []
        parts = zip(*(torch.split(tensor[0], self._lengths, dim=1) for tensor in (query, key, value)), strict=True)
        for line, group, prompt, (q, k, v) in zip(self._lines, self._groups, self._prompts, parts, strict=True):
            own = q.shape[1]
            decode.suffix_keys[layer][line, :, :own] = k.float()
            decode.suffix_values[layer][line, :, :own] = v.float()
            before_k = decode.prompt_keys[layer][group, :, :, :prompt].transpose(-1, -2).to(k.dtype)
            before_v = decode.prompt_values[layer][group, :, :prompt].to(v.dtype)
            k = torch.cat([before_k, k], dim=1).repeat_interleave(repeats, dim=0)
            v = torch.cat([before_v, v], dim=1).repeat_interleave(repeats, dim=0)
            seen = torch.ones(own, prompt + own, dtype=torch.bool, device=q.device).tril(prompt)
            mixed.append(
                nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=seen, scale=scaling)
            )
        return torch.cat(mixed, dim=2)

    def end(self) -> None:
        """The tokens are in the cache."""
        lines = torch.tensor(self._lines, device=self._decode.device)
        self._decode.ages[lines] = torch.tensor(self._lengths, device=self._decode.device)


def _beyond(lengths: Tensor, longest: int) -> Tensor | None:
    """Additive mask `(X, 1, 1, longest)`: minus infinity from each length on; None where nothing is masked."""
    beyond = torch.arange(longest, device=lengths.device).unsqueeze(0) >= lengths.unsqueeze(1)
    if not beyond.any():
        return None
    mask = torch.zeros(beyond.shape, device=lengths.device).masked_fill_(beyond, float("-inf"))
    return mask[:, None, None]


def _stacked(one: Tensor, other: Tensor, dim: int) -> Tensor:
    """Concatenated along dimension 0, the shorter along `dim` filled up with zeros."""
    shape = list(one.shape)
    shape[0] += other.shape[0]
    shape[dim] = max(one.shape[dim], other.shape[dim])
    out = torch.zeros(shape, device=other.device)
    out[: len(one)].narrow(dim, 0, one.shape[dim]).copy_(one)
    out[len(one) :].narrow(dim, 0, other.shape[dim]).copy_(other)
    return out
