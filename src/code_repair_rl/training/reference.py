"""The reference policy: what the policy is held against by a KL term, without a second model.

| policy | fixed reference | moving reference |
| --- | --- | --- |
| adapters (LoRA) | the base: the same model with its adapters disabled, nothing is stored | a copy of the adapters |
| all weights | a copy of the weights at the start | a copy of the weights |

Copies take the places of the policy's weights while the reference computes, by exchanging pointers; nothing is moved.
A moving reference follows the policy: after it was asked in a step, it goes `rate` of the way to the weights that this
step started from. With rate 1 it is the policy one step ago, so the term bounds how far each step leads away from the
last; smaller rates look further back. (A reference equal to the policy would do nothing: the divergence from oneself
is least, and its gradient 0.)

What this does not do: weights that are sharded over processes (ZeRO-3, FSDP), whose tensors are empty between uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from code_repair_rl.errors import BadInput
from code_repair_rl.models.packed import unwrapped


class Reference(Protocol):
    """A policy that takes the place of the trained one for a while."""

    def in_place(self) -> AbstractContextManager[None]:
        """While the block runs, the model computes as the reference does; use it without gradients."""
        ...

    def follow(self) -> None:
        """Move towards the policy as it is now; a fixed reference stays."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold so that a resumed run has the same reference; empty for a fixed one."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`."""
        ...


def reference_of(model: nn.Module, *, moving_rate: float | None = None) -> Reference:
    """The reference for a policy that is about to be trained.

    Args:
        model: with its weights as they are before training.
        moving_rate: in (0, 1]; None keeps the reference where it is.

    Raises:
        BadInput: the weights are sharded over processes.
    """
    inner: Any = unwrapped(model)
    if hasattr(inner, "disable_adapter") and moving_rate is None:
        return _AdaptersOff(inner)
    weights = {name: parameter for name, parameter in inner.named_parameters() if parameter.requires_grad}
    if any(parameter.numel() == 0 or hasattr(parameter, "ds_id") for parameter in weights.values()):
        raise BadInput(
            "a reference policy needs its own copy of weights that are sharded over processes",
            where="kl_beta",
            mend="train adapters (model.lora) with a fixed reference, or leave kl_beta at 0",
        )
    return _Copy(weights, moving_rate or 0.0)


class _AdaptersOff:
    def __init__(self, model: Any) -> None:
        self._model = model

    @contextmanager
    def in_place(self) -> Iterator[None]:
        with self._model.disable_adapter():
            yield

    def follow(self) -> None:
        return

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        return


class _Copy:
    def __init__(self, policy: Mapping[str, Tensor], rate: float) -> None:
        self._policy = dict(policy)
        self._rate = rate
        self._copy = {name: weight.detach().clone() for name, weight in self._policy.items()}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        device = next(iter(self._policy.values())).device.type
        self._exchange()
        try:
            # Autocast remembers weights rounded to bf16 by the identity of their tensors, which stays: ask it not to.
            with torch.autocast(
                device,
                dtype=torch.get_autocast_dtype(device),
                enabled=torch.is_autocast_enabled(device),
                cache_enabled=False,
            ):
                yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, weight in self._policy.items():
            weight.data, self._copy[name] = self._copy[name], weight.data

    @torch.no_grad()
    def follow(self) -> None:
        if self._rate:
            for name, weight in self._policy.items():
                self._copy[name].lerp_(weight, self._rate)

    def state(self) -> dict[str, Tensor]:
        return dict(self._copy) if self._rate else {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in state.items():
                self._copy[name].copy_(weight)
