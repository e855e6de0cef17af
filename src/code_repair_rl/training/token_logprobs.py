"""From hidden states to log-probabilities of chosen tokens, without ever keeping fp32 logits of a whole vocabulary.

The logits stay in the precision that the head gave (bf16 under autocast); softmax is taken over a few rows at a time,
small enough to stay in the processor's cache, in the forward and again in the backward pass. Where even those logits
would be large, the head itself runs in chunks, and again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_SLICE_BYTES = 8 * 2**20
"""Of fp32 logits worked on at a time: fits the last-level cache of current processors."""


@dataclass(frozen=True, slots=True)
class Against:
    """The reference policy at the places of a head."""

    hidden: Tensor
    """`(M, hidden)`, what the reference's last layer gave there."""
    logits: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
    """The head's own forward, and what goes into it, to what comes out with the reference's weights."""


class TokenLogprobHead:
    """Stands in for the language-model head: `(1, M, hidden)` to `(1, M, columns)`.

    The columns are the log-probability; the entropy, where asked for, without gradient; the KL divergence from the
    reference, where there is one, exact over the whole vocabulary and with gradient.
    """

    def __init__(
        self,
        targets: Tensor,
        temperature: float,
        with_entropy: bool,
        *,
        vocabulary: int,
        kept_logits: int = 2**26,
        against: Against | None = None,
    ) -> None:
        """Set what is wanted.

        Args:
            targets: `(M,)`, the tokens.
            temperature: logits are divided by it.
            with_entropy: compute the entropies, too.
            vocabulary: how many logits the head gives for a token.
            kept_logits: up to so many logits are kept for the backward pass (134 MB in bf16); of more, chunks of that
                many are computed twice, which is a quarter more work in the head.
            against: the reference policy.
        """
        self.targets = targets
        self.temperature = temperature
        self.with_entropy = with_entropy
        self.against = against
        self.rows = max(1, kept_logits // vocabulary // (1 if against is None else 2))

    def __call__(self, own: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
        """Apply it to `(1, M, hidden)`; `own` is the head's own forward."""
        places = torch.arange(len(self.targets), device=hidden.device)
        values = []
        for piece, at in zip(torch.split(hidden[0], self.rows), torch.split(places, self.rows), strict=True):
            entropies: list[Tensor] = []
            if len(places) <= self.rows or not torch.is_grad_enabled():
                logprobs, divergences = self._logprobs(own, piece, at, entropies)
            else:
                logprobs, divergences = checkpoint(self._logprobs, own, piece, at, entropies, use_reentrant=False)
            columns = [logprobs, *entropies] + ([] if self.against is None else [divergences])
            values.append(torch.stack(columns, dim=-1))
        return torch.cat(values).unsqueeze(0)

    def _logprobs(
        self, own: Callable[[Tensor], Tensor], hidden: Tensor, places: Tensor, entropies: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities and divergences; the entropies are added to the list unless an earlier call did that."""
        wanted = self.with_entropy and not entropies
        logits, reference = own(hidden), None
        if self.against is not None:
            with torch.no_grad():
                reference = self.against.logits(own, self.against.hidden[places])
        logprobs, entropy, divergences = _TokenLogprobs.apply(  # type: ignore[no-untyped-call]
            logits, self.targets[places], reference, self.temperature, wanted
        )
        if wanted:
            entropies.append(entropy)
        return logprobs, divergences


class _TokenLogprobs(torch.autograd.Function):
    """`log_softmax(logits / temperature)` at the targets, the entropies, and KL from the reference, each `(R,)`."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, reference: Tensor | None, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = len(logits)
        norms = torch.empty(rows, device=logits.device)
        chosen = torch.empty(rows, device=logits.device)
        entropy = torch.zeros(rows, device=logits.device)
        divergence = torch.zeros(rows, device=logits.device)
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
            if reference is not None:
                log_ratios, weights = _log_ratios(logits[part], norms[part], reference[part], temperature)
                divergence[part] = weights.mul_(log_ratios).nansum(dim=-1)
        ctx.save_for_backward(logits, targets, norms, reference, divergence)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy)
        return chosen, entropy, divergence

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, targets, norms, reference, divergence = ctx.saved_tensors
        share = gradients[0] / ctx.temperature
        pull = gradients[2] / ctx.temperature
        out = torch.empty_like(logits)
        for part in _slices(logits):
            if reference is None:
                weights = _scaled(logits[part], ctx.temperature).sub_(norms[part].unsqueeze(1)).exp_()
                weights.mul_(-share[part].unsqueeze(1))
            else:  # d KL / d logit = p (log p - log r - KL)
                log_ratios, weights = _log_ratios(logits[part], norms[part], reference[part], ctx.temperature)
                log_ratios.sub_(divergence[part].unsqueeze(1)).mul_(pull[part].unsqueeze(1))
                weights.mul_(log_ratios.sub_(share[part].unsqueeze(1))).nan_to_num_(0.0)
            weights.scatter_add_(1, targets[part].unsqueeze(1), share[part].unsqueeze(1))
            out[part] = weights
        return out, None, None, None, None


def _log_ratios(logits: Tensor, norms: Tensor, reference: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """`log p - log r` and `p` over the vocabulary, `(R, V)` float32 both."""
    log_ratios = _scaled(logits, temperature).sub_(norms.unsqueeze(1))
    weights = log_ratios.exp()
    others = _scaled(reference, temperature)
    log_ratios.sub_(others).add_(others.logsumexp(dim=-1, keepdim=True))
    return log_ratios, weights


def _slices(logits: Tensor) -> list[slice]:
    step = max(1, _SLICE_BYTES // (4 * logits.shape[1]))
    return [slice(start, start + step) for start in range(0, len(logits), step)]


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    """A fresh fp32 copy, divided by the temperature."""
    copied = logits.to(torch.float32, copy=True)
    return copied if temperature == 1.0 else copied.div_(temperature)
