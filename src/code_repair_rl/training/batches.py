"""From rollouts to tensors: micro-batches in which answers to one prompt stay together and share its forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from code_repair_rl.training.prefix_tree import PrefixTree

if TYPE_CHECKING:
    import torch

    from code_repair_rl.runs import RolloutRow


_WORTH_SPLITTING = 1.5
"""A group is split only where it has more than so many times the tokens of a prompt with one answer: whatever it is
split into computes at least these, and the prompt again each time."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows of one forward and backward pass; B may be 0."""

    rows: tuple[RolloutRow, ...]
    loss_scale: float
    """What the loss of this micro-batch, a mean over its B rows, is multiplied by, so that the sum over the
    micro-batches of a step is the mean over all its answers: those left out because their advantage is 0 still count,
    those without a verdict do not."""
    token_scale: float = 0.0
    """The same for a loss that is a mean over the drawn tokens of its rows."""
    step_tokens: int = 0
    """Drawn tokens of all answers that count in the step, those with advantage 0 included."""


def micro_batches(
    groups: Sequence[Sequence[RolloutRow]],
    count: int,
    *,
    most_tokens: int,
    keep_silent: bool = False,
    mask_truncated: bool = False,
) -> list[MicroBatch]:
    """Deal a step's groups into as few micro-batches as the token budget allows; the rest of the `count` stay empty.

    Few large forwards waste less than many small ones: what a pass costs beside its tokens (gradients of the embedding,
    weights rounded to bf16) is paid per pass. A group larger than the budget is split, and its prompt computed again
    for each piece; not where that would save less than a third of the memory, as with a long prompt and short answers.
    Empty micro-batches come first, so that the step ends with a real one.

    Answers without a verdict are left out, and so are those that cannot move the policy (advantage 0), unless
    `keep_silent`: with a KL term they do. An attempt that ended before its first answer has no tokens, and only counts.

    Args:
        groups: rows with advantages; each group's rows share one prompt.
        count: how many, at least 1; where that is too few for the budget, they get larger.
        most_tokens: of a micro-batch, each prompt and each common beginning of answers counted once; a single answer
            may exceed it, and so may a group of at most half as many tokens again as its prompt with one answer. (A
            model that cannot be packed computes more, in padded rows.)
        mask_truncated: tokens of answers that were cut off do not count (the answers do).
    """
    kept = [
        tuple(
            row
            for row in group
            if row.token_ids and row.advantage is not None and (keep_silent or row.advantage != 0.0)
        )
        for group in groups
    ]
    pieces = [piece for group in kept for piece in _pieces(group, most_tokens)]
    bins: list[list[RolloutRow]] = []
    loads: list[int] = []
    costs = list(map(_cost, pieces))
    for place in sorted(range(len(pieces)), key=costs.__getitem__, reverse=True):
        piece, cost = pieces[place], costs[place]
        fitting = [number for number, load in enumerate(loads) if load + cost <= most_tokens]
        if not fitting and len(bins) < count:
            bins.append([])
            loads.append(0)
            fitting = [len(bins) - 1]
        home = fitting[0] if fitting else loads.index(min(loads))
        bins[home].extend(piece)
        loads[home] += cost
    bins = [[] for _ in range(count - len(bins))] + bins
    counted = [row for group in groups for row in group if row.advantage is not None]
    step_tokens = drawn_tokens(counted, mask_truncated)
    return [
        MicroBatch(
            tuple(rows),
            loss_scale=len(rows) * count / max(1, len(counted)),
            token_scale=drawn_tokens(rows, mask_truncated) * count / max(1, step_tokens),
            step_tokens=step_tokens,
        )
        for rows in bins
    ]


def drawn_tokens(rows: Sequence[RolloutRow], mask_truncated: bool) -> int:
    """Drawn tokens that carry a loss."""
    return sum(sum(row.uncut) if mask_truncated else row.sampled_tokens for row in rows)


def _pieces(group: Sequence[RolloutRow], most_tokens: int) -> list[list[RolloutRow]]:
    """The group's rows in order, in pieces within the budget (at least one row each)."""
    if group:
        most_tokens = max(most_tokens, int(_WORTH_SPLITTING * max(_cost([row]) for row in group)))
    pieces: list[list[RolloutRow]] = []
    for row in group:
        if pieces and _cost([*pieces[-1], row]) <= most_tokens:
            pieces[-1].append(row)
        else:
            pieces.append([row])
    return pieces


def tensors(rows: Sequence[RolloutRow], pad_id: int, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    """The rows as the tensors TRL's loss reads.

    Returns:
        `prompt_ids`, `prompt_mask` (B, P), padded on the left; `completion_ids`, `completion_mask`, `tool_mask` (1
        where the model drew the token, 0 where the environment put it), `old_per_token_logps` (B, T), padded on the
        right; `advantages` (B,).
    """
    import torch

    width = max(len(row.prompt_ids) for row in rows)
    length = max(len(row.token_ids) for row in rows)

    def left(values: Sequence[int], fill: int) -> list[int]:
        return [fill] * (width - len(values)) + list(values)

    def right(values: Sequence[float], fill: float) -> list[float]:
        return list(values) + [fill] * (length - len(values))

    def tensor(values: object, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return {
        "prompt_ids": tensor([left(row.prompt_ids, pad_id) for row in rows], torch.long),
        "prompt_mask": tensor([left([1] * len(row.prompt_ids), 0) for row in rows], torch.long),
        "completion_ids": tensor([right(row.token_ids, pad_id) for row in rows], torch.long),
        "completion_mask": tensor([right([1] * len(row.token_ids), 0) for row in rows], torch.long),
        "tool_mask": tensor([right(row.sampled or [1] * len(row.token_ids), 0) for row in rows], torch.long),
        "old_per_token_logps": tensor([right(row.logprobs, 0.0) for row in rows], torch.float32),
        "advantages": tensor([row.advantage or 0.0 for row in rows], torch.float32),
    }


def _cost(group: Sequence[RolloutRow]) -> int:
    """Tokens that a forward pass has to compute where prompts and common beginnings of answers are computed once."""
    return len(group[0].prompt_ids) + len(PrefixTree.of([row.token_ids for row in group]))
