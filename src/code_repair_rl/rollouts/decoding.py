"""Our decoding loop: prompts computed once, one copy of their keys per group, no padding between rows.

A call is a list of parts: a prompt of any length with several rows (completions). Prompts are prefilled in packed
passes; then all living rows advance one token per packed pass. Rows of a prompt attend to the prompt's keys, of which
there is one copy, and to their own suffix in a preallocated cache. Rows may begin with tokens of their own, in which
they differ from the others (later turns of attempts at one task). Finished rows leave when enough of them have gathered
to pay for the copying, and waiting parts take their places.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from code_repair_rl.models.packed import SequencesLayout, packed_attention, packed_forward, portions
from code_repair_rl.rollouts.sampler import draw

_PREFILL_TOKENS = 4096
"""Prompt tokens per packed prefill pass: bounds the activations (about 100 MB for a 135 M model)."""
_SUFFIX_STEP = 32
"""The suffix cache grows by so many tokens at a time, so that short answers do not pay for the longest allowed."""
_DROP_SHARE = 0.2
"""Finished rows leave once they are this share of the batch: their upkeep then costs more than copying the rest."""
_ADMIT_SHARE = 0.25
"""Waiting parts are admitted once this share of the places is free: every admission copies the caches."""


@dataclass(frozen=True, slots=True)
class Part:
    """A prompt and the completions to be sampled for it."""

    prompt: Sequence[int]
    """Token ids, not empty."""
    uniforms: Sequence[Tensor]
    """Per completion `(limit,)` float64: its random numbers, one per token; the length bounds the completion."""
    tails: Sequence[Sequence[int]] = ()
    """Per completion the tokens that its own prompt has beyond the shared one; empty: none has any."""


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

    Shapes: R rows, G prompts with at most S rows each, K key heads, Q query heads per key head, D their size, P longest
    prompt, T longest suffix. Everything is fp32: small batched products are slower in bf16 on CPUs, and more exact so.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.prompt_keys: list[Tensor] = []
        """Per layer `(G, K, D, P)`."""
        self.prompt_values: list[Tensor] = []
        """Per layer `(G, K, P, D)`."""
        self.suffix_keys: list[Tensor] = []
        """Per layer `(R, K, room, D)`; `suffix_values` alike."""
        self.suffix_values: list[Tensor] = []
        self.lengths = torch.zeros(0, dtype=torch.long, device=device)
        """`(G,)`, prompt lengths."""
        self.group_of_row = torch.zeros(0, dtype=torch.long, device=device)
        """`(R,)`, ascending."""
        self.ages = torch.zeros(0, dtype=torch.long, device=device)
        """`(R,)`, suffix tokens in the cache."""

    def positions(self) -> Tensor:
        """`(R,)`: where each row's next token stands in its sequence."""
        return self.lengths[self.group_of_row] + self.ages

    def admit(self, keys: list[Tensor], values: list[Tensor], lengths: Tensor, rows_of_group: Sequence[int]) -> None:
        """Add prompts (`(G', K, P', D)` per layer) with so many new rows each."""
        first = len(self.lengths)
        counts = torch.tensor(rows_of_group, device=self.device)
        added = torch.repeat_interleave(torch.arange(len(counts), device=self.device) + first, counts)
        self.group_of_row = torch.cat([self.group_of_row, added])
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
        for cache in (self.suffix_keys, self.suffix_values):
            for layer, old in enumerate(cache):
                cache[layer] = torch.cat([old, old.new_zeros(len(added), *old.shape[1:])])
        self._place()

    def keep_rows(self, rows: Tensor) -> None:
        """Drop all rows but these (ascending), and the prompts that nobody is left to answer."""
        for cache in (self.suffix_keys, self.suffix_values):
            for layer, old in enumerate(cache):
                cache[layer] = old[rows]
        self.ages = self.ages[rows]
        groups, self.group_of_row = torch.unique(self.group_of_row[rows], return_inverse=True)
        if len(groups) < len(self.lengths):
            self.lengths = self.lengths[groups]
            longest = int(self.lengths.max()) if len(groups) else 0
            for layer in range(len(self.prompt_keys)):
                self.prompt_keys[layer] = self.prompt_keys[layer][groups, :, :, :longest].contiguous()
                self.prompt_values[layer] = self.prompt_values[layer][groups, :, :longest].contiguous()
        self._place()

    def _place(self) -> None:
        """Give each row a place in a `(G, S)` grid, so that one batched product serves all prompts."""
        groups, rows = len(self.lengths), len(self.group_of_row)
        if rows == 0:
            return
        counts = torch.bincount(self.group_of_row, minlength=groups)
        self.slots = int(counts.max())
        first_of_group = counts.cumsum(0) - counts
        rank = torch.arange(rows, device=self.device) - first_of_group[self.group_of_row]
        self.place_of_row = self.group_of_row * self.slots + rank
        self.full = rows == groups * self.slots
        self.row_of_place = torch.zeros(groups * self.slots, dtype=torch.long, device=self.device)
        self.row_of_place[self.place_of_row] = torch.arange(rows, device=self.device)
        self.prompt_mask = _beyond(self.lengths, self.prompt_keys[0].shape[-1])

    def begin_step(self) -> None:
        """Make room for one more suffix token per row."""
        self.upto = int(self.ages.max()) + 1
        self.rows = torch.arange(len(self.ages), device=self.device)
        self.suffix_mask = _beyond(self.ages + 1, self.upto)
        self.make_room(self.upto)

    def make_room(self, tokens: int) -> None:
        """Let the suffix cache hold so many tokens of a row."""
        missing = tokens - self.suffix_keys[0].shape[2]
        if missing <= 0:
            return
        added = -(-missing // _SUFFIX_STEP) * _SUFFIX_STEP
        for cache in (self.suffix_keys, self.suffix_values):
            for layer, old in enumerate(cache):
                cache[layer] = torch.cat([old, old.new_zeros(len(old), old.shape[1], added, old.shape[3])], dim=2)

    def end_step(self) -> None:
        """The rows' new tokens are in the cache."""
        self.ages = self.ages + 1

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float) -> Tensor:
        """See `Layout.attend`; one token per row."""
        _, heads, rows, width = query.shape
        key_heads = key.shape[1]
        queries = heads // key_heads
        suffix_keys, suffix_values = self.suffix_keys[layer], self.suffix_values[layer]
        suffix_keys[self.rows, :, self.ages] = key[0].transpose(0, 1).float()
        suffix_values[self.rows, :, self.ages] = value[0].transpose(0, 1).float()
        prompt_keys, prompt_values = self.prompt_keys[layer], self.prompt_values[layer]
        groups, _, _, longest = prompt_keys.shape

        query_rkqd = query[0].transpose(0, 1).reshape(rows, key_heads, queries, width).float() * scaling
        in_places = query_rkqd if self.full else query_rkqd[self.row_of_place]
        in_grid = in_places.view(groups, self.slots, key_heads, queries, width).transpose(1, 2)
        in_grid = in_grid.reshape(groups, key_heads, self.slots * queries, width)
        prompt_scores = in_grid @ prompt_keys
        if self.prompt_mask is not None:
            prompt_scores += self.prompt_mask
        prompt_scores = self._to_rows(prompt_scores, queries)
        suffix_scores = query_rkqd @ suffix_keys[:, :, : self.upto].transpose(-1, -2)
        if self.suffix_mask is not None:
            suffix_scores += self.suffix_mask

        weights = torch.softmax(torch.cat([prompt_scores, suffix_scores], dim=-1), dim=-1)
        on_prompt, on_suffix = torch.split(weights, [longest, self.upto], dim=-1)
        if not self.full:
            on_prompt = on_prompt[self.row_of_place]
        on_prompt = on_prompt.reshape(groups, self.slots, key_heads, queries, longest).transpose(1, 2)
        mixed = on_prompt.reshape(groups, key_heads, self.slots * queries, longest) @ prompt_values
        mixed = self._to_rows(mixed, queries) + on_suffix @ suffix_values[:, :, : self.upto]
        return mixed.to(query.dtype).reshape(rows, heads, width).transpose(0, 1).unsqueeze(0)

    def _to_rows(self, in_grid: Tensor, queries: int) -> Tensor:
        """`(G, K, S * Q, X)` to `(R, K, Q, X)`."""
        groups, key_heads, _, last = in_grid.shape
        by_place: Tensor = in_grid.view(groups, key_heads, self.slots, queries, last).transpose(1, 2)
        by_place = by_place.reshape(groups * self.slots, key_heads, queries, last)
        return by_place if self.full else by_place[self.place_of_row]


class _Tails:
    """Rows' own beginnings, end to end in one pass: each attends to its prompt's keys and causally to itself."""

    def __init__(self, decode: _Decode, lines: Sequence[int], lengths: Sequence[int]) -> None:
        self._decode = decode
        self._lines = list(lines)
        self._lengths = list(lengths)
        groups = decode.group_of_row[torch.tensor(self._lines, device=decode.device)]
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


class _Batch:
    """The rows that are being sampled, and their books on the host."""

    def __init__(
        self, parts: Sequence[Part], temperature: float, stop_ids: Sequence[int], device: torch.device
    ) -> None:
        self.parts = parts
        self.temperature = temperature
        self.stops = torch.tensor(sorted(stop_ids), dtype=torch.long)
        self.sampled = [[Sampled([], [], False) for _ in part.uniforms] for part in parts]
        self.layout = _Decode(device)
        self.row_of_line: list[tuple[int, int]] = []
        """Which row (part, number) each line of the batch is."""
        self.open: list[bool] = []
        """Whether the line's row goes on."""

    def add(self, numbers: Sequence[int]) -> None:
        """Lines for the rows of these parts."""
        for number in numbers:
            self.row_of_line += [(number, row) for row in range(len(self.parts[number].uniforms))]
        self.open += [True] * (len(self.row_of_line) - len(self.open))

    def draw(self, logits: Tensor) -> Tensor:
        """One token for every line, `(R,)`; entered for those that are open."""
        uniforms = torch.stack([self._uniform(line) for line in range(len(self.open))])
        tokens, logprobs = draw(logits, uniforms, self.temperature)
        stopped = torch.isin(tokens.cpu(), self.stops).tolist()
        found = zip(tokens.tolist(), logprobs.tolist(), stopped, strict=True)
        for line, (token, logprob, stops) in enumerate(found):
            if not self.open[line]:
                continue
            part, number = self.row_of_line[line]
            row = self.sampled[part][number]
            row.token_ids.append(token)
            row.logprobs.append(logprob)
            row.stopped = stops
            self.open[line] = not stops and len(row.token_ids) < len(self.parts[part].uniforms[number])
        return tokens

    def _uniform(self, line: int) -> Tensor:
        part, number = self.row_of_line[line]
        uniforms = self.parts[part].uniforms[number]
        return uniforms[min(len(self.sampled[part][number].token_ids), len(uniforms) - 1)]

    def drop_finished(self, tokens: Tensor) -> Tensor:
        """Close up the open lines; `tokens` `(R,)` goes along."""
        kept = [line for line, goes_on in enumerate(self.open) if goes_on]
        rows = torch.tensor(kept, dtype=torch.long, device=tokens.device)
        self.layout.keep_rows(rows)
        self.row_of_line = [self.row_of_line[line] for line in kept]
        self.open = [True] * len(kept)
        return tokens[rows]


@torch.no_grad()
def decode(
    model: nn.Module, parts: Sequence[Part], stop_ids: Sequence[int], temperature: float, max_rows: int
) -> list[list[Sampled]]:
    """Sample every row of every part to its stop token or its last uniform.

    Args:
        model: packable (see `why_not_packable`), in evaluation mode.
        parts: admitted in this order; long prompts first keeps the padding of keys small. None with more than
            `max_rows` rows.
        stop_ids: tokens that end a completion.
        temperature: see `draw`.
        max_rows: rows that advance together at most.
    """
    device = next(model.parameters()).device
    batch = _Batch(parts, temperature, stop_ids, device)
    waiting = deque(number for number, part in enumerate(parts) if part.uniforms)
    logits = torch.zeros(0, 0)
    with packed_attention(model):
        while waiting or any(batch.open):
            living = sum(batch.open)
            if waiting and (living == 0 or living <= (1.0 - _ADMIT_SHARE) * max_rows):
                admitted = _next(waiting, parts, max_rows - living)
                if admitted:
                    fresh = _admit(model, batch, admitted)
                    logits = fresh if living == 0 else torch.cat([logits, fresh])
            tokens = batch.draw(logits)
            living = sum(batch.open)
            making_room = waiting and living <= (1.0 - _ADMIT_SHARE) * max_rows
            if living <= (1.0 - _DROP_SHARE) * len(batch.open) or (making_room and living < len(batch.open)):
                tokens = batch.drop_finished(tokens)
            if living == 0:
                continue
            batch.layout.begin_step()
            logits = packed_forward(model, batch.layout, tokens, batch.layout.positions())
            batch.layout.end_step()
    return batch.sampled


def _next(waiting: deque[int], parts: Sequence[Part], room: int) -> list[int]:
    """Take the parts off the queue that fit into `room` rows."""
    taken: list[int] = []
    while waiting and len(parts[waiting[0]].uniforms) <= room:
        room -= len(parts[waiting[0]].uniforms)
        taken.append(waiting.popleft())
    return taken


def _admit(model: nn.Module, batch: _Batch, numbers: Sequence[int]) -> Tensor:
    """Compute these parts' prompts once, then the rows' tails; returns the new rows' first logits, `(R', V)`."""
    prompts = [batch.parts[number].prompt for number in numbers]
    counts = [len(batch.parts[number].uniforms) for number in numbers]
    lengths = [len(prompt) for prompt in prompts]
    device = batch.layout.device
    logits: list[Tensor] = []
    for start, stop in portions(lengths, _PREFILL_TOKENS):
        portion = lengths[start:stop]
        layout = _Prefill(portion)
        ids = torch.tensor([token for prompt in prompts[start:stop] for token in prompt], device=device)
        positions = torch.cat([torch.arange(length, device=device) for length in portion])
        last = torch.tensor(portion, device=device).cumsum(0) - 1
        logits.append(packed_forward(model, layout, ids, positions, keep=last))
        keys, values = [], []
        for layer in range(len(layout.kept)):
            key, value = layout.kept.pop(layer)
            keys.append(_padded(key, portion))
            values.append(_padded(value, portion))
        batch.layout.admit(keys, values, torch.tensor(portion, device=device), counts[start:stop])
    batch.add(numbers)
    of_rows = torch.cat(logits).repeat_interleave(torch.tensor(counts, device=device), dim=0)
    tails = [
        tail
        for number, count in zip(numbers, counts, strict=True)
        for tail in batch.parts[number].tails or [()] * count
    ]
    return _extended(model, batch.layout, of_rows, tails)


def _extended(model: nn.Module, layout: _Decode, logits: Tensor, tails: Sequence[Sequence[int]]) -> Tensor:
    """Compute the tails of the rows added last; `logits` `(R', V)` are theirs after the prompt, and become those after
    the tail."""
    first = len(layout.ages) - len(tails)
    with_tail = [row for row, tail in enumerate(tails) if tail]
    if not with_tail:
        return logits
    layout.make_room(max(map(len, tails)))
    lengths = [len(tails[row]) for row in with_tail]
    for start, stop in portions(lengths, _PREFILL_TOKENS):
        rows, portion = with_tail[start:stop], lengths[start:stop]
        beginnings = _Tails(layout, [first + row for row in rows], portion)
        ids = torch.tensor([token for row in rows for token in tails[row]], device=layout.device)
        last = torch.tensor(portion, device=layout.device).cumsum(0) - 1
        logits[rows] = packed_forward(model, beginnings, ids, beginnings.positions(), keep=last)
        beginnings.end()
    return logits


def _padded(packed: Tensor, lengths: Sequence[int]) -> Tensor:
    """`(1, K, N, D)` of sequences end to end to `(G, K, P, D)` float32."""
    pieces = [piece.transpose(0, 1) for piece in torch.split(packed[0], list(lengths), dim=1)]
    return torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True).transpose(1, 2).float()
