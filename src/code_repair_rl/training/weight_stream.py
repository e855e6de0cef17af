"""The policy's weights, one module at a time, as a generation server takes them: adapters merged, shards gathered.

A model trained with LoRA under ZeRO-3 lies in pieces on all processes, and its merged weights nowhere. Gathering it
whole to send it takes the memory that sharding saved. Here each module is gathered, merged into a copy, handed on and
let go, so that at no time more than one is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

_ADAPTER = ("lora_A", "lora_B", "lora_dropout", "lora_embedding", "lora_magnitude")

Gather = Callable[[Sequence[nn.Parameter]], AbstractContextManager[Any]]
"""While open, the parameters are whole in this process."""


def gathering(model: nn.Module) -> Gather:
    """How this model's parameters are made whole: ZeRO-3 gathers them (all processes at once), others have them."""
    if not any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        return lambda parameters: nullcontext()
    import deepspeed

    return lambda parameters: deepspeed.zero.GatheredParameters(list(parameters))


def weights(
    model: nn.Module, dtype: torch.dtype | None = None, gather: Gather | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Name and merged weight of every parameter of the plain model, module by module.

    Args:
        model: plain, or a PEFT model with one active LoRA adapter; unwrapped of DDP and DeepSpeed.
        dtype: of what is handed on; None leaves it.
        gather: see `gathering`; None finds it out.

    Yields:
        Names as the plain model's state has them. Tied weights come once. A tensor is good until the next one is asked
        for.
    """
    make_whole = gather or gathering(model)
    for path, module, fresh in _modules(model):
        with torch.no_grad(), make_whole([*fresh.values(), *_adapter_parameters(module)]):
            for name, parameter in fresh.items():
                value = parameter.detach()
                if name == "weight" and hasattr(module, "base_layer") and hasattr(module, "get_delta_weight"):
                    for adapter in module.active_adapters:
                        value = value + module.get_delta_weight(adapter).to(value.dtype)
                yield _plain_name(f"{path}.{name}"), value if dtype is None else value.to(dtype)


def named_shapes(model: nn.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What `weights` will yield, in its order, without gathering anything."""
    for path, _, fresh in _modules(model):
        for name, parameter in fresh.items():
            # Under ZeRO-3 a parameter's own shape is that of nothing, or of its piece.
            yield _plain_name(f"{path}.{name}"), tuple(getattr(parameter, "ds_shape", parameter.shape))


def _modules(model: nn.Module) -> Iterator[tuple[str, Any, dict[str, nn.Parameter]]]:
    """Path, module and those of its own parameters that no earlier module had."""
    whole: Any = model
    plain: nn.Module = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
    seen: set[int] = set()
    for path, module in plain.named_modules():
        if _is_adapter(path) or path.endswith("base_layer"):
            continue
        fresh = {name: one for name, one in _parameters(module).items() if id(one) not in seen}
        if fresh:
            seen |= {id(one) for one in fresh.values()}
            yield path, module, fresh


def _parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """A module's own parameters; of a layer with an adapter those of the layer underneath."""
    inner: Any = module.base_layer if hasattr(module, "base_layer") else module
    return dict(inner.named_parameters(recurse=False))


def _adapter_parameters(module: nn.Module) -> list[nn.Parameter]:
    return (
        [one for name, one in module.named_parameters() if _is_adapter(name)] if hasattr(module, "base_layer") else []
    )


def _is_adapter(path: str) -> bool:
    return any(part in _ADAPTER for part in path.split("."))


def _plain_name(name: str) -> str:
    return name.replace(".base_layer.", ".").removeprefix(".")
