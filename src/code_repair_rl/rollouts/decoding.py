"""Our decoding loop: prompts computed once, rows that have drawn the same tokens so far computed as one.

A call is a list of parts: a prompt of any length with several rows (completions). Prompts are prefilled in packed
passes. A *line* is a sequence that is being continued, for all rows of a prompt that have drawn the same so far: they
draw from the same distribution, each with its own random number, and part where they draw differently. All lines
advance one token per packed pass; they attend to their prompt's keys, of which there is one copy, and to their own
suffix in a preallocated cache. Rows may begin with tokens of their own, in which they differ from the others (later
turns of attempts at one task). Lines that have ended make place for those that part, or leave when enough of them have
gathered to pay for the copying; then waiting parts are admitted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from code_repair_rl.models.packed import packed_attention, packed_forward, portions
from code_repair_rl.rollouts.decoding_layouts import Decode, Prefill, Tails
from code_repair_rl.rollouts.sampler import draw

_PREFILL_TOKENS = 4096
"""Prompt tokens per packed prefill pass: bounds the activations (about 100 MB for a 135 M model)."""
_DROP_SHARE = 0.2
"""Ended lines leave once they are this share of the batch: their upkeep then costs more than copying the rest."""
_ADMIT_SHARE = 0.25
"""Waiting parts are admitted once this share of the places is free: every admission copies the caches."""
_ROWS_PER_LINE = 2
"""So many times more rows than lines may be open, since many share a line. If all of them part, there are as many more
lines, and as much more memory in use."""


@dataclass(frozen=True, slots=True)
class Part:
    """A prompt and the completions to be sampled for it."""

    prompt: Sequence[int]
    """Token ids, not empty."""
    uniforms: Sequence[Tensor]
    """Per completion `(limit,)` float64: its random numbers, one per token; the length bounds the completion."""
    tails: Sequence[Sequence[int]] = ()
    """Per completion the tokens that its own prompt has beyond the shared one; empty: none has any."""

    def rows_by_tail(self) -> dict[tuple[int, ...], list[int]]:
        """The numbers of the completions that begin alike, a line each."""
        found: dict[tuple[int, ...], list[int]] = {}
        for row, tail in enumerate(self.tails or [()] * len(self.uniforms)):
            found.setdefault(tuple(tail), []).append(row)
        return found


@dataclass(slots=True)
class Sampled:
    """What was drawn for one row."""

    token_ids: list[int]
    logprobs: list[float]
    stopped: bool
    """It ends with a stop token."""


Row = tuple[int, int]
"""Number of the part, and of the row in it."""


class _Batch:
    """The lines that are being continued, and their books on the host."""

    def __init__(
        self,
        parts: Sequence[Part],
        temperature: float,
        stop_ids: Sequence[int],
        max_lines: int,
        device: torch.device,
    ) -> None:
        self.temperature = temperature
        self.max_lines = max_lines
        self.stops = frozenset(stop_ids)
        self.sampled = [[Sampled([], [], False) for _ in part.uniforms] for part in parts]
        self.layout = Decode(device)
        self.rows_of_line: list[list[Row]] = []
        """The open rows that each line continues; none: it has ended."""
        self._uniforms = [[row.numpy() for row in part.uniforms] for part in parts]
        self._drawn: list[dict[int, list[Row]]] = []
        """Per line, by the token that they drew last, the rows that go on."""

    @property
    def living(self) -> int:
        """Lines that go on."""
        return sum(map(bool, self.rows_of_line))

    @property
    def open_rows(self) -> int:
        """Rows that go on."""
        return sum(map(len, self.rows_of_line))

    def has_places_for(self, part: Part) -> bool:
        """Whether enough places are free to pay for an admission, and this part fits into them."""
        living, rows = self.living, self.open_rows
        most_lines, most_rows = self.max_lines, _ROWS_PER_LINE * self.max_lines
        free = living <= (1.0 - _ADMIT_SHARE) * most_lines and rows <= (1.0 - _ADMIT_SHARE) * most_rows
        fits = living + len(part.rows_by_tail()) <= most_lines and rows + len(part.uniforms) <= most_rows
        return living == 0 or (free and fits)

    def draw(self, logits: Tensor) -> None:
        """One token for every open row; `logits` is `(lines, V)`."""
        lines = [line for line, rows in enumerate(self.rows_of_line) for _ in rows]
        rows = [row for rows in self.rows_of_line for row in rows]
        uniforms = [self._uniforms[part][row][len(self.sampled[part][row].token_ids)] for part, row in rows]
        tokens, logprobs = draw(
            logits,
            torch.tensor(uniforms, dtype=torch.float64),
            self.temperature,
            rows=torch.tensor(lines, device=logits.device),
        )
        self._drawn = [{} for _ in self.rows_of_line]
        for line, (part, row), token, logprob in zip(lines, rows, tokens.tolist(), logprobs.tolist(), strict=True):
            sampled = self.sampled[part][row]
            sampled.token_ids.append(token)
            sampled.logprobs.append(logprob)
            sampled.stopped = token in self.stops
            if not sampled.stopped and len(sampled.token_ids) < len(self._uniforms[part][row]):
                self._drawn[line].setdefault(token, []).append((part, row))

    def advance(self, following: Part | None) -> Tensor:
        """Let lines part and end; returns the next token of each, `(lines,)`.

        Args:
            following: the part that waits to be admitted; lines that have ended leave once it fits.
        """
        tokens = [0] * len(self._drawn)
        parting: list[tuple[int, int, list[Row]]] = []
        for line, drawn in enumerate(self._drawn):
            self.rows_of_line[line] = []
            for number, (token, rows) in enumerate(drawn.items()):
                if number == 0:
                    tokens[line], self.rows_of_line[line] = token, rows
                else:
                    parting.append((line, token, rows))
        if parting:
            ended = deque(line for line, rows in enumerate(self.rows_of_line) if not rows)
            places: list[int] = []
            for _, token, rows in parting:
                if ended:
                    places.append(ended.popleft())
                    tokens[places[-1]], self.rows_of_line[places[-1]] = token, rows
                else:
                    places.append(len(tokens))
                    tokens.append(token)
                    self.rows_of_line.append(rows)
            self.layout.part([line for line, _, _ in parting], places)
        living, lines = self.living, len(self.rows_of_line)
        making_room = following is not None and living < lines and self.has_places_for(following)
        if making_room or living <= (1.0 - _DROP_SHARE) * lines:
            kept = [line for line, rows in enumerate(self.rows_of_line) if rows]
            self.layout.keep_lines(torch.tensor(kept, dtype=torch.long, device=self.layout.device))
            self.rows_of_line = [self.rows_of_line[line] for line in kept]
            tokens = [tokens[line] for line in kept]
        return torch.tensor(tokens, dtype=torch.long, device=self.layout.device)


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
        max_rows: so many lines advance together, and up to twice as many where rows that were admitted because they
            shared lines part after all.
    """
    device = next(model.parameters()).device
    batch = _Batch(parts, temperature, stop_ids, max_rows, device)
    waiting = deque(number for number, part in enumerate(parts) if part.uniforms)
    logits = torch.zeros(0, 0)
    with packed_attention(model):
        while waiting or batch.living:
            if waiting and batch.has_places_for(parts[waiting[0]]):
                living = batch.living
                admitted = _next(waiting, parts, max_rows - living, _ROWS_PER_LINE * max_rows - batch.open_rows)
                fresh = _admit(model, batch, admitted, parts)
                logits = fresh if living == 0 else torch.cat([logits, fresh])
            batch.draw(logits)
            tokens = batch.advance(parts[waiting[0]] if waiting else None)
            if not batch.living:
                continue
            batch.layout.begin_step()
            logits = packed_forward(model, batch.layout, tokens, batch.layout.positions())
            batch.layout.end_step()
    return batch.sampled


def _next(waiting: deque[int], parts: Sequence[Part], lines: int, rows: int) -> list[int]:
    """Take the parts off the queue that fit: a line each for those that begin alike, and all of their rows."""
    taken: list[int] = []
    while waiting:
        part = parts[waiting[0]]
        lines -= len(part.rows_by_tail())
        rows -= len(part.uniforms)
        if lines < 0 or rows < 0:
            break
        taken.append(waiting.popleft())
    return taken


def _admit(model: nn.Module, batch: _Batch, numbers: Sequence[int], parts: Sequence[Part]) -> Tensor:
    """Compute these parts' prompts once, then the lines' tails; returns the new lines' first logits, `(lines, V)`."""
    prompts = [parts[number].prompt for number in numbers]
    by_tail = [parts[number].rows_by_tail() for number in numbers]
    counts = list(map(len, by_tail))
    lengths = [len(prompt) for prompt in prompts]
    device = batch.layout.device
    logits: list[Tensor] = []
    batch.layout.most_lines = batch.open_rows + sum(len(parts[number].uniforms) for number in numbers)
    for start, stop in portions(lengths, _PREFILL_TOKENS):
        portion = lengths[start:stop]
        layout = Prefill(portion)
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
    for number, lines in zip(numbers, by_tail, strict=True):
        batch.rows_of_line += [[(number, row) for row in rows] for rows in lines.values()]
    of_lines = torch.cat(logits).repeat_interleave(torch.tensor(counts, device=device), dim=0)
    return _extended(model, batch.layout, of_lines, [tail for lines in by_tail for tail in lines])


def _extended(model: nn.Module, layout: Decode, logits: Tensor, tails: Sequence[Sequence[int]]) -> Tensor:
    """Compute the tails of the lines added last; `logits` `(lines, V)` are theirs after the prompt, and become those
    after the tail."""
    first = len(layout.ages) - len(tails)
    with_tail = [line for line, tail in enumerate(tails) if tail]
    if not with_tail:
        return logits
    layout.make_room(max(map(len, tails)))
    lengths = [len(tails[line]) for line in with_tail]
    for start, stop in portions(lengths, _PREFILL_TOKENS):
        lines, portion = with_tail[start:stop], lengths[start:stop]
        beginnings = Tails(layout, [first + line for line in lines], portion)
        ids = torch.tensor([token for line in lines for token in tails[line]], device=layout.device)
        last = torch.tensor(portion, device=layout.device).cumsum(0) - 1
        logits[lines] = packed_forward(model, beginnings, ids, beginnings.positions(), keep=last)
        beginnings.end()
    return logits


def _padded(packed: Tensor, lengths: Sequence[int]) -> Tensor:
    """`(1, K, N, D)` of sequences end to end to `(G, K, P, D)` float32."""
    pieces = [piece.transpose(0, 1) for piece in torch.split(packed[0], list(lengths), dim=1)]
    return torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True).transpose(1, 2).float()
