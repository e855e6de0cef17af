"""Log-probabilities of completions with gradients, each distinct prompt computed once: the shared-prefix forward.

In code repair a prompt is long, its answers are short, and a group of answers shares its prompt. The plain way pads
and computes the prompt again for every answer. Here prompts and completions lie end to end in one packed row
(`models.packed`); a completion's tokens attend to the one copy of their prompt's keys and to themselves. What several
completions begin with alike is computed once, too (`prefix_tree`). Gradients of all completions flow into what they
share and from there backward once. The result is that of the plain way, up to the order of sums.

It is one call of the model's own forward, so that hooks of DDP and ZeRO fire once; no logits exist for prompt tokens
but the last (it predicts the first completion token), and never fp32 logits of all completion tokens at once
(`token_logprobs`). Where a model cannot be packed, `completion_logprobs` takes
the plain way and says so once.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from code_repair_rl.models.packed import (
    causal_attention,
    packed_attention,
    packed_forward,
    replaced_head,
    require_plain_head,
    unwrapped,
    why_not_packable,
)
from code_repair_rl.training.prefix_tree import PrefixTree
from code_repair_rl.training.token_logprobs import Against, TokenLogprobHead

_log = logging.getLogger(__name__)

_LEAST_BLOCK = 128
"""Completion tokens that attend together, about: below this, calls cost more than masked-out work."""


@dataclass(frozen=True, slots=True)
class CompletionLogprobs:
    """What `completion_logprobs` finds. B completions in the order given, T the longest (or the width asked for)."""

    logprobs: Tensor
    """`(B, T)` float32, after temperature, with gradients; 0 where no token is wanted."""
    mask: Tensor
    """`(B, T)` bool: where there is a token whose log-probability is wanted."""
    entropy: Tensor | None
    """`(B, T)` float32 in nats, without gradients, of the distribution each token was drawn from; None unless asked."""
    kl: Tensor | None = None
    """`(B, T)` float32 in nats, with gradients: the divergence of the policy from the reference where each wanted token
    is drawn, exact over the whole vocabulary; None without a reference."""


HeadFunction = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
"""What stands in for the language-model head: its own forward and `(1, M, hidden)` to `(1, M, columns)`."""

Wanted = Sequence[Sequence[Sequence[bool]]]
"""For each prompt, for each of its completions, for each token: whether its log-probability is wanted."""


def completion_logprobs(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    groups: Sequence[Sequence[Sequence[int]]],
    *,
    wanted: Wanted | None = None,
    reference: Callable[[], AbstractContextManager[object]] | None = None,
    temperature: float = 1.0,
    with_entropy: bool = False,
    width: int | None = None,
) -> CompletionLogprobs:
    """Log-probabilities of the tokens of completions, each prompt computed once.

    Args:
        model: a causal language model, possibly wrapped (PEFT, DDP); under `torch.autocast` if the caller says so.
        prompts: token ids, none empty.
        groups: for each prompt the token ids of its completions, unpadded (padding would be computed like text).
        wanted: the other tokens (what the environment said between two turns) are context only: no logits are computed
            for them, and nothing is learnt about them. None: all are wanted.
        reference: a context in which the model computes as the reference policy does; asks for `kl`. One more forward
            pass without gradients.
        temperature: logits are divided by it.
        with_entropy: also compute the entropies.
        width: pad the result to so many columns (at least the longest completion).
    """
    reason = why_not_packable(model)
    if reason is not None:
        _say_once(model, reason)
        return plain_logprobs(
            model,
            prompts,
            groups,
            wanted=wanted,
            reference=reference,
            temperature=temperature,
            with_entropy=with_entropy,
            width=width,
        )
    marks = _marks(groups, wanted)
    packed = _Packed(prompts, groups, marks, _device(model))

    def run(head: HeadFunction) -> Tensor:
        with packed_attention(model), replaced_head(model, head):
            return packed_forward(model, packed.layout(), packed.token_ids, packed.position_ids, keep=packed.keep)

    found = _values(model, run, packed.targets, temperature, with_entropy, reference)[packed.chosen]
    return _unpacked(found, marks, width, with_entropy=with_entropy)


def plain_logprobs(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    groups: Sequence[Sequence[Sequence[int]]],
    *,
    wanted: Wanted | None = None,
    reference: Callable[[], AbstractContextManager[object]] | None = None,
    temperature: float = 1.0,
    with_entropy: bool = False,
    width: int | None = None,
) -> CompletionLogprobs:
    """As `completion_logprobs`, the plain way: one padded row per completion, the prompt computed in each.

    The reference that the shared-prefix way is held against, and its fallback. The logits are chunked here, too.
    """
    device = _device(model)
    marks = _marks(groups, wanted)
    rows = [(list(prompt), list(answer)) for prompt, group in zip(prompts, groups, strict=True) for answer in group]
    longest_prompt = max(len(prompt) for prompt, _ in rows)
    longest = max(len(answer) for _, answer in rows)
    ids = torch.zeros(len(rows), longest_prompt + longest, dtype=torch.long)
    seen = torch.zeros_like(ids)
    places, targets = [], []
    for number, (prompt, answer) in enumerate(rows):
        start = longest_prompt - len(prompt)  # prompts end where completions begin, as trainers lay them out
        stop = longest_prompt + len(answer)
        ids[number, start:stop] = torch.tensor(prompt + answer)
        seen[number, start:stop] = 1
        chosen_places = [place for place, mark in enumerate(marks[number]) if mark]
        places += [(number, longest_prompt - 1 + place) for place in chosen_places]
        targets += [answer[place] for place in chosen_places]
    where = torch.tensor(places, device=device, dtype=torch.long).view(-1, 2)
    chosen = torch.tensor(targets, device=device, dtype=torch.long)
    seen = seen.to(device)

    def run(head: HeadFunction) -> Tensor:
        def at_completions(own: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
            return head(own, hidden[where[:, 0], where[:, 1]].unsqueeze(0))

        with replaced_head(model, at_completions):
            output = model(
                input_ids=ids.to(device),
                attention_mask=seen,
                position_ids=(seen.cumsum(1) - 1).clamp(min=0),
                use_cache=False,
            )
        logits: Tensor = output.logits
        return logits.squeeze(0)

    found = _values(model, run, chosen, temperature, with_entropy, reference)
    return _unpacked(found, marks, width, with_entropy=with_entropy)


def _values(
    model: nn.Module,
    run: Callable[[HeadFunction], Tensor],
    targets: Tensor,
    temperature: float,
    with_entropy: bool,
    reference: Callable[[], AbstractContextManager[object]] | None,
) -> Tensor:
    """`(M, columns)` of `TokenLogprobHead`; `run` makes a forward pass with a head at the M wanted places."""
    require_plain_head(model)
    against = None
    if reference is not None:
        head = _ReferenceHead(model, reference)
        with torch.no_grad(), reference():
            against = Against(run(head.passed_by), head.logits)
    vocabulary = _vocabulary(model)
    return run(TokenLogprobHead(targets, temperature, with_entropy, vocabulary=vocabulary, against=against))


class _ReferenceHead:
    """The language-model head as the reference has it, for use inside the policy's forward pass.

    Under ZeRO-3 a trained head cannot be exchanged there: it has been gathered as the policy's. So the reference's is
    kept from its own pass, where it was whole.
    """

    def __init__(self, model: nn.Module, in_place: Callable[[], AbstractContextManager[object]]) -> None:
        self._head: nn.Module = unwrapped(model).get_output_embeddings()
        self._in_place = in_place
        self._kept: dict[str, Tensor] = {}

    def passed_by(self, own: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
        """Stands in for the head in the reference's pass: what would go into it."""
        self._kept = {name: one.detach().clone() for name, one in self._gathered().items()}
        return hidden

    def logits(self, own: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
        """See `Against.logits`."""
        if not self._kept:
            with self._in_place():
                return own(hidden)
        self._exchange()
        try:
            with torch.autocast(hidden.device.type, enabled=False):  # it would remember weights it rounded
                return own(hidden.to(next(iter(self._kept.values())).dtype))
        finally:
            self._exchange()

    def _gathered(self) -> dict[str, nn.Parameter]:
        if hasattr(self._head, "base_layer"):  # an adapter, which is switched off rather than exchanged
            return {}
        return {name: one for name, one in self._head.named_parameters() if one.requires_grad and hasattr(one, "ds_id")}

    def _exchange(self) -> None:
        for name, one in self._gathered().items():
            one.data, self._kept[name] = self._kept[name], one.data


class _SharedPrefixLayout:
    """Prompts causal over themselves; the tokens of completions over their prompt and what comes before them.

    The packed row is prompt, the tree of its completions, next prompt, its tree … A tree attends in blocks of
    consecutive nodes, under a mask that keeps branches apart: few large attention calls instead of many small ones,
    with nothing of the scores kept for the backward pass. What a block's first node has before it in other blocks holds
    all that any of its nodes has there, since branches lie in one piece.
    """

    def __init__(self, prompt_lengths: Sequence[int], trees: Sequence[PrefixTree], device: torch.device):
        self.sizes: list[int] = []
        """Packed row as consecutive parts: a prompt, then its blocks."""
        self._prompt_lengths = list(prompt_lengths)
        self._trees = list(trees)
        self._blocks: list[list[tuple[int, int]]] = []
        """Per prompt the blocks of its tree, first node and the one behind the last."""
        self._contexts: dict[tuple[int, int], Tensor] = {}
        self._masks: dict[tuple[int, int], Tensor] = {}
        self._device = device
        for prompt_length, tree in zip(prompt_lengths, trees, strict=True):
            blocks = _blocks(len(tree), max(prompt_length, _LEAST_BLOCK))
            self.sizes += [prompt_length, *(stop - start for start, stop in blocks)]
            self._blocks.append(blocks)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float) -> Tensor:
        """See `Layout.attend`."""
        # One split per tensor: its backward is one concatenation, where slices would each write a full-size gradient.
        parts = iter(zip(*(torch.split(tensor, self.sizes, dim=2) for tensor in (query, key, value)), strict=True))
        repeats = query.shape[1] // key.shape[1]
        mixed = []
        for number, blocks in enumerate(self._blocks):
            q, prompt_key, prompt_value = next(parts)
            mixed.append(causal_attention(q, prompt_key, prompt_value, scaling, dropout))
            of_blocks = [next(parts) for _ in blocks]
            context_keys = self._in_contexts(number, [k for _, k, _ in of_blocks])
            context_values = self._in_contexts(number, [v for _, _, v in of_blocks])
            for place, (q, k, v) in enumerate(of_blocks):
                keys = torch.cat([prompt_key, *context_keys[place], k], dim=2)
                values = torch.cat([prompt_value, *context_values[place], v], dim=2)
                mask = self._mask(number, place, repeats, q.dtype)
                mixed.append(_attend_block(q, keys, values, mask, scaling, dropout))
        return torch.cat(mixed, dim=2)

    def _in_contexts(self, number: int, of_blocks: Sequence[Tensor]) -> list[list[Tensor]]:
        """Per block what it sees of other blocks, `(1, K, C, D)`, or nothing."""
        contexts = [self._context(number, place) for place in range(len(of_blocks))]
        sizes = list(map(len, contexts))
        if not any(sizes):
            return [[] for _ in of_blocks]
        seen = torch.cat(list(of_blocks), dim=2).index_select(2, torch.cat(contexts))
        return [[one] if size else [] for one, size in zip(torch.split(seen, sizes, dim=2), sizes, strict=True)]

    def _context(self, number: int, place: int) -> Tensor:
        """The nodes outside a block that come before its first one, `(C,)`; made once per forward for all layers."""
        found = self._contexts.get((number, place))
        if found is None:
            start, _ = self._blocks[number][place]
            found = torch.tensor(self._trees[number].before(start), dtype=torch.long, device=self._device)
            self._contexts[number, place] = found
        return found

    def _mask(self, number: int, place: int, repeats: int, dtype: torch.dtype) -> Tensor:
        """Additive `(1, 1, repeats * S, P + C + S)`, made once per forward for all layers."""
        found = self._masks.get((number, place))
        if found is None:
            start, stop = self._blocks[number][place]
            ends = torch.tensor(self._trees[number].ends, device=self._device)
            nodes = torch.arange(start, stop, device=self._device)
            seen = torch.cat([self._context(number, place), nodes])
            allowed = (seen[None, :] <= nodes[:, None]) & (nodes[:, None] < ends[seen][None, :])
            allowed = F.pad(allowed, (self._prompt_lengths[number], 0), value=True)
            additive = torch.zeros(allowed.shape, dtype=dtype, device=self._device)
            additive.masked_fill_(~allowed, float("-inf"))
            found = additive.repeat(repeats, 1)[None, None]
            self._masks[number, place] = found
        return found


def _attend_block(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, dropout: float) -> Tensor:
    """Masked attention of `(1, H, S, D)` over `(1, K, P + C + S, D)`.

    The queries that share a key head are laid one after another, so that keys need not be repeated.
    """
    _, heads, tokens, size = query.shape
    folded = query.reshape(1, key.shape[1], heads // key.shape[1] * tokens, size)
    mixed = F.scaled_dot_product_attention(folded, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return mixed.reshape(1, heads, tokens, size)


def _blocks(nodes: int, about: int) -> list[tuple[int, int]]:
    """Consecutive nodes in blocks of like size, about `about` nodes each."""
    count = max(1, round(nodes / about)) if nodes else 0
    return [(nodes * place // count, nodes * (place + 1) // count) for place in range(count)]


class _Packed:
    """The packed row of a batch. A completion's last token predicts nothing we want, so it is left out.

    `token_ids`, `position_ids` are `(N,)`; `keep` `(M,)` are the places whose output predicts the M distinct wanted
    tokens `targets`. `chosen` says for each wanted token, completion after completion, which of the M it is.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        groups: Sequence[Sequence[Sequence[int]]],
        marks: Sequence[Sequence[bool]],
        device: torch.device,
    ) -> None:
        tokens: list[int] = []
        positions: list[int] = []
        distinct: dict[tuple[int, int], int] = {}
        chosen: list[int] = []
        self._prompt_lengths = [len(prompt) for prompt in prompts]
        self._trees = [PrefixTree.of([answer[:-1] for answer in group]) for group in groups]
        self._device = device
        marks_left = iter(marks)
        for prompt, group, tree in zip(prompts, groups, self._trees, strict=True):
            tokens += prompt
            positions += range(len(prompt))
            first = len(tokens)
            for answer, path in zip(group, tree.paths, strict=True):
                # What predicts the first token is the end of the prompt, then each token the next one.
                predicting = [first - 1, *(first + node for node in path)]
                for token, place, wanted in zip(answer, predicting, next(marks_left), strict=False):
                    if wanted:
                        chosen.append(distinct.setdefault((place, token), len(distinct)))
            tokens += tree.tokens
            positions += [len(prompt) + depth for depth in tree.depths]
        self.token_ids = torch.tensor(tokens, device=device)
        self.position_ids = torch.tensor(positions, device=device)
        self.keep = torch.tensor([place for place, _ in distinct], device=device, dtype=torch.long)
        self.targets = torch.tensor([token for _, token in distinct], device=device, dtype=torch.long)
        self.chosen = torch.tensor(chosen, device=device, dtype=torch.long)

    def layout(self) -> _SharedPrefixLayout:
        return _SharedPrefixLayout(self._prompt_lengths, self._trees, self._device)


def _marks(groups: Sequence[Sequence[Sequence[int]]], wanted: Wanted | None) -> list[Sequence[bool]]:
    """For each completion, over all groups, which of its tokens are wanted."""
    answers = [answer for group in groups for answer in group]
    if wanted is None:
        return [[True] * len(answer) for answer in answers]
    marks = [one for group in wanted for one in group]
    if [len(one) for one in marks] != [len(answer) for answer in answers]:
        raise ValueError("`wanted` does not fit the completions")
    return marks


def _unpacked(
    found: Tensor, marks: Sequence[Sequence[bool]], width: int | None, *, with_entropy: bool
) -> CompletionLogprobs:
    """`(M, columns)` values, completion after completion, to rows."""
    longest = max(map(len, marks)) if width is None else width
    mask = torch.tensor([[*one, *[False] * (longest - len(one))] for one in marks], dtype=torch.bool).to(found.device)

    def rows(column: Tensor) -> Tensor:
        # masked_scatter keeps gradients and fills row by row, which is the order of the values.
        return torch.zeros(mask.shape, device=found.device).masked_scatter(mask, column.float())

    entropy = rows(found[:, 1].detach()) if with_entropy else None
    kl = rows(found[:, -1]) if found.shape[1] > 1 + with_entropy else None
    return CompletionLogprobs(rows(found[:, 0]), mask, entropy, kl)


_spoken: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def _say_once(model: nn.Module, reason: str) -> None:
    inner = unwrapped(model)
    if inner not in _spoken:
        _spoken.add(inner)
        _log.warning("every completion computes its prompt again for this model: %s", reason)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _vocabulary(model: nn.Module) -> int:
    return int(unwrapped(model).config.get_text_config().vocab_size)
