"""The reference policy: what the policy is held against by a KL term, without a second model.

| policy | fixed reference | moving reference |
| --- | --- | --- |
| new adapters (LoRA) | the base: the same model with its adapters off, nothing is stored | a copy of the adapters |
| adapters trained before | a copy of the adapters at the start | a copy of the adapters |
| all weights | a copy of the weights at the start | a copy of the weights |

Copies take the places of the policy's weights while the reference computes, by exchanging pointers; nothing is moved.
A moving reference follows the policy: after it was asked in a step, it goes `rate` of the way to the weights that this
step started from. With rate 1 it is the policy one step ago, so the term bounds how far each step leads away from the
last; smaller rates look further back. (A reference equal to the policy would do nothing: the divergence from oneself
is least, and its gradient 0.)

Under ZeRO-3 each process keeps the copy of its own pieces only, and the pieces take each other's places.

What this does not do: a moving reference under ZeRO-3, and copies of weights under FSDP.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from code_repair_rl.errors import BadInput
from code_repair_rl.models.packed import unwrapped
from code_repair_rl.training import together

if TYPE_CHECKING:
    from transformers import Trainer


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


def reference_for(trainer: Trainer, *, moving_rate: float | None = None) -> Reference:
    """As `reference_of`, for a trainer that has not begun, whatever it will do with the weights.

    Raises:
        BadInput: it will share them out in a way that this reference cannot follow.
    """
    if not together.shares_out_weights(trainer):
        return reference_of(trainer.model, moving_rate=moving_rate)
    if moving_rate is not None:
        raise BadInput(
            "a moving reference cannot follow weights that are shared out over processes",
            where="grpo.kl_reference",
            mend="keep the reference fixed, or choose launch.kind=ddp",
        )
    inner: Any = unwrapped(trainer.model)
    if _is_its_base(inner):
        return _AdaptersOff(inner)
    if trainer.is_fsdp_enabled:
        raise BadInput(
            "a reference policy needs its own copy of the weights, which FSDP2 shares out",
            where="kl_beta",
            mend="train new adapters (model.lora), or choose launch.kind=zero3",
        )
    return _Pieces(_trained(inner), lambda: trainer.model_wrapped)


def reference_of(model: nn.Module, *, moving_rate: float | None = None) -> Reference:
    """The reference for a policy that is about to be trained, whose weights are whole in this process.

    Args:
        model: with its weights as they are before training.
        moving_rate: in (0, 1]; None keeps the reference where it is.
    """
    inner: Any = unwrapped(model)
    if moving_rate is None and _is_its_base(inner):
        return _AdaptersOff(inner)
    return _Copy(_trained(inner), moving_rate or 0.0)


def _is_its_base(model: Any) -> bool:
    """Whether the model has adapters that add nothing yet: all their second factors are 0, as PEFT makes them."""
    factors = [one for name, one in model.named_parameters() if ".lora_B." in name]
    return bool(factors) and not any(getattr(one, "ds_tensor", one).detach().any() for one in factors)


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


class _Fixed:
    """What stays where it is, and needs nothing of a checkpoint."""

    def follow(self) -> None:
        return

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        return


class _Exchanged(ABC):
    """Weights of its own take the policy's places."""

    _policy: Mapping[str, Tensor]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        self._exchange()
        try:
            with _nothing_remembered(next(iter(self._policy.values())).device.type):
                yield
        finally:
            self._exchange()

    @abstractmethod
    def _exchange(self) -> None:
        """Weights here and there change places."""


class _AdaptersOff(_Fixed):
    def __init__(self, model: Any) -> None:
        self._model = model

    @contextmanager
    def in_place(self) -> Iterator[None]:
        with self._model.disable_adapter():
            yield


class _Copy(_Exchanged):
    def __init__(self, policy: Mapping[str, Tensor], rate: float) -> None:
        self._policy = dict(policy)
        self._rate = rate
        self._copy = {name: weight.detach().clone() for name, weight in self._policy.items()}

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


class _Pieces(_Fixed, _Exchanged):
    """A copy of this process's pieces of weights that ZeRO-3 shares out. Every process must open it."""

    def __init__(self, policy: Mapping[str, nn.Parameter], engine: Callable[[], Any]) -> None:
        """Copy the weights as they are.

        Args:
            policy: not shared out yet, or in pieces already.
            engine: DeepSpeed's, which is there once training has begun.
        """
        self._policy: dict[str, Any] = dict(policy)
        self._engine = engine
        # Of weights that are still whole all, until DeepSpeed says which part is ours.
        self._copy = {
            name: (one.ds_tensor if hasattr(one, "ds_tensor") else one).detach().clone()
            for name, one in self._policy.items()
        }

    def _exchange(self) -> None:
        # What is whole at the moment (small weights stay so between uses) is let go, and gathered from pieces anew.
        self._engine().optimizer.parameter_offload.partition_all_parameters()
        for name, weight in self._policy.items():
            piece = weight.ds_tensor
            piece.data, self._copy[name] = _piece_like(self._copy[name], piece), piece.data


def _piece_like(weight: Tensor, piece: Tensor) -> Tensor:
    """This process's piece of a whole weight as DeepSpeed cuts it: of equal size in order, the last ones filled up."""
    if weight.dim() == 1 and weight.numel() == piece.numel() and weight.dtype == piece.dtype:
        return weight
    cut = torch.zeros_like(piece)
    part = weight.flatten()[together.place() * piece.numel() :][: piece.numel()]
    cut[: part.numel()] = part
    return cut


def _nothing_remembered(device: str) -> AbstractContextManager[Any]:
    """Autocast as it is, without its memory of weights rounded to bf16: it goes by the identity of tensors, which
    stays when their values are exchanged."""
    return torch.autocast(
        device,
        dtype=torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=False,
    )
