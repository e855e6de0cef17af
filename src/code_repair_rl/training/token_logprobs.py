"""From hidden states to log-probabilities of chosen tokens, without ever keeping fp32 logits of a whole vocabulary.

The logits stay in the precision that the head gave (bf16 under autocast); softmax is taken over a few rows at a time,
small enough to stay in the processor's cache, in the forward and again in the backward pass. Where even those logits
would be large, the head itself runs in chunks, and again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_SLICE_BYTES = 8 * 2**20
"""Of fp32 logits worked on at a time: fits the last-level cache of current processors."""


class TokenLogprobHead:
    """Stands in for the language-model head: `(1, M, hidden)` to `(1, M, 1 or 2)`, log-probability and entropy.

    The entropy carries no gradient.
    """

    def __init__(
        self, targets: Tensor, temperature: float, with_entropy: bool, *, vocabulary: int, kept_logits: int = 2**26
    ) -> None:
        """Set what is wanted.

        Args:
            targets: `(M,)`, the tokens.
            temperature: logits are divided by it.
            with_entropy: compute the entropies, too.
            vocabulary: how many logits the head gives for a token.
            kept_logits: up to so many logits are kept for the backward pass (134 MB in bf16); of more, chunks of that
                many are computed twice, which is a quarter more work in the head.
        """
        self.targets = targets
        self.temperature = temperature
        self.with_entropy = with_entropy
        self.rows = max(1, kept_logits // vocabulary)

    def __call__(self, own: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
        """Apply it to `(1, M, hidden)`; `own` is the head's own forward."""
        if len(self.targets) <= self.rows:
            return self._values(own, hidden[0], self.targets, [])
        pieces = zip(torch.split(hidden[0], self.rows), torch.split(self.targets, self.rows), strict=True)
        if not torch.is_grad_enabled():
            return torch.cat([self._values(own, *piece, [])[0] for piece in pieces]).unsqueeze(0)
        values = []
        for piece in pieces:
            entropies: list[Tensor] = []
            logprobs = checkpoint(self._logprobs, own, *piece, entropies, use_reentrant=False)
            values.append(torch.stack([logprobs, *entropies], dim=-1))
        return torch.cat(values).unsqueeze(0)

    def _values(
        self, own: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, entropies: list[Tensor]
    ) -> Tensor:
        logprobs = self._logprobs(own, hidden, targets, entropies)
        return torch.stack([logprobs, *entropies], dim=-1).unsqueeze(0)

    def _logprobs(
        self, own: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, entropies: list[Tensor]
    ) -> Tensor:
        """The log-probabilities; the entropies are added to the list unless an earlier call did that."""
        wanted = self.with_entropy and not entropies
        logprobs, entropy = _TokenLogprobs.apply(own(hidden), targets, self.temperature, wanted)  # type: ignore[no-untyped-call]
        if wanted:
            entropies.append(entropy)
        return logprobs  # type: ignore[no-any-return]


class _TokenLogprobs(torch.autograd.Function):
    """`log_softmax(logits / temperature)` at the targets, `(R,)`, and the entropies, `(R,)`."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        rows = len(logits)
        norms = torch.empty(rows, device=logits.device)
        chosen = torch.empty(rows, device=logits.device)
        entropy = torch.zeros(rows, device=logits.device)
        for part in _slices(logits):
            scaled = _scaled(logits[part], temperature)
            best = scaled.amax(dim=-1, keepdim=True)
            scaled.sub_(best)
            chosen[part] = scaled.gather(1, targets[part].unsqueeze(1)).squeeze(1)
            if with_entropy:
                weights = scaled.exp()
                total = weights.sum(dim=-1)
                # -inf logits have no weight: their product would be undefined, and is 0
                entropy[part] = total.log() - weights.mul_(scaled).nansum(dim=-1) / total
            else:
                total = scaled.exp_().sum(dim=-1)
            norms[part] = best.squeeze(1) + total.log()
            chosen[part] -= total.log()
        ctx.save_for_backward(logits, targets, norms)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy)
        return chosen, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        logits, targets, norms = ctx.saved_tensors
        share = gradients[0] / ctx.temperature
        out = torch.empty_like(logits)
        for part in _slices(logits):
            weights = _scaled(logits[part], ctx.temperature).sub_(norms[part].unsqueeze(1)).exp_()
            weights.mul_(-share[part].unsqueeze(1))
            weights.scatter_add_(1, targets[part].unsqueeze(1), share[part].unsqueeze(1))
            out[part] = weights
        return out, None, None, None


def _slices(logits: Tensor) -> list[slice]:
    step = max(1, _SLICE_BYTES // (4 * logits.shape[1]))
    return [slice(start, start + step) for start in range(0, len(logits), step)]


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    """A fresh fp32 copy, divided by the temperature."""
    copied = logits.to(torch.float32, copy=True)
    return copied if temperature == 1.0 else copied.div_(temperature)
