"""Packed forward passes: many token sequences laid end to end in one row, with an attention of one's own choosing.

transformers' decoders keep everything except attention independent per token, and take attention from a registry. So
one registered function, steered by a *layout* passed through `forward`, lets any such model compute several prompts
and their completions without padding, without copies of the prompt's keys and without a custom kernel. Sampling
(`rollouts`) and the training forward (`training.shared_prefix`) bring a layout each.

What this does not do: sliding windows, attention sinks, soft-capped logits, and models that are not decoders with
rotary (or learned absolute) positions. `why_not_packable` finds out by asking the model, not by its name.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from code_repair_rl.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IMPLEMENTATION = "crrl_packed"
"""Name under which the attention function is registered with transformers."""


class NotPackable(Exception):  # noqa: N818 - caught by the callers, who then take the plain path
    """This model's attention asks for something that packed passes cannot give."""


class Layout(Protocol):
    """Which tokens of a packed row attend to which."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float) -> Tensor:
        """Attention of one layer.

        Args:
            layer: 0-based number of the decoder layer.
            query: `(1, H, N, D)`, rotated.
            key: `(1, K, N, D)`, rotated; `K` divides `H`.
            value: `(1, K, N, D)`.
            scaling: factor of the scores.
            dropout: probability of dropping an attention weight.

        Returns:
            `(1, H, N, D)`.
        """
        ...


def portions(lengths: Sequence[int], budget: int) -> list[tuple[int, int]]:
    """Consecutive ranges whose lengths add up to at most the budget (at least one each)."""
    ranges: list[tuple[int, int]] = []
    tokens = 0
    for number, length in enumerate(lengths):
        if ranges and tokens + length <= budget:
            ranges[-1] = (ranges[-1][0], number + 1)
            tokens += length
        else:
            ranges.append((number, number + 1))
            tokens = length
    return ranges


class SequencesLayout:
    """Independent sequences, each causal over itself."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = list(lengths)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float) -> Tensor:
        """See `Layout.attend`."""
        parts = zip(*(torch.split(tensor, self.lengths, dim=2) for tensor in (query, key, value)), strict=True)
        return torch.cat([causal_attention(q, k, v, scaling, dropout) for q, k, v in parts], dim=2)


def causal_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float) -> Tensor:
    """Causal attention of `(1, H, S, D)` over `(1, K, S, D)`, heads sharing keys in consecutive groups of `H / K`."""
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:  # the CPU's flash kernel wants as many key heads as query heads
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True, scale=scaling)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed_layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The registered function: `(1, H, N, D)` in, `(1, N, H, D)` out, as transformers wants it."""
    if packed_layout is None:
        raise NotPackable(f"{type(module).__name__} does not pass keyword arguments on to its attention")
    for refused in ("sliding_window", "softcap", "s_aux", "position_bias"):
        if kwargs.get(refused) is not None:
            raise NotPackable(f"{type(module).__name__} uses {refused}")
    layer = getattr(module, "layer_idx", None)
    if not isinstance(layer, int) or query.shape[0] != 1:
        raise NotPackable(f"{type(module).__name__} is not an attention layer that packed passes know")
    if query.dtype != value.dtype:  # under autocast the rotation leaves queries and keys in fp32
        query, key = query.to(value.dtype), key.to(value.dtype)
    scale = float(query.shape[-1] ** -0.5 if scaling is None else scaling)
    return packed_layout.attend(layer, query, key, value, scale, dropout).transpose(1, 2).contiguous(), None


@contextmanager
def packed_attention(model: nn.Module) -> Iterator[None]:
    """While the block runs, the model's attention is the packed one; afterwards what it was before.

    Layers under gradient checkpointing, which run again in the backward pass, have the packed one then, too. No mask is
    built meanwhile: transformers builds none for implementations that registered no mask function.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, _attention)
    found: dict[int, Any] = {}
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation_internal"):
            found[id(config)] = config
    configs = list(found.values())
    with _implementation(configs), _packed_when_run_again(model, configs):
        yield


@contextmanager
def _implementation(configs: Sequence[Any]) -> Iterator[None]:
    before = [config._attn_implementation_internal for config in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = IMPLEMENTATION
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation_internal = implementation


@contextmanager
def _packed_when_run_again(model: nn.Module, configs: Sequence[Any]) -> Iterator[None]:
    """Let checkpointed layers choose the packed attention whenever they run."""
    layers: list[Any] = [
        module
        for module in model.modules()
        if getattr(module, "gradient_checkpointing", False) and hasattr(module, "_gradient_checkpointing_func")
    ]
    before = [layer._gradient_checkpointing_func for layer in layers]

    def wrapped(checkpoint: Callable[..., Any]) -> Callable[..., Any]:
        def checkpoint_packed(function: Callable[..., Any], *arguments: Any) -> Any:
            def packed(*inner: Any) -> Any:
                with _implementation(configs):
                    return function(*inner)

            return checkpoint(packed, *arguments)

        return checkpoint_packed

    try:
        for layer in layers:
            layer._gradient_checkpointing_func = wrapped(layer._gradient_checkpointing_func)
        yield
    finally:
        for layer, checkpoint in zip(layers, before, strict=True):
            layer._gradient_checkpointing_func = checkpoint


def packed_forward(
    model: nn.Module, layout: Layout, token_ids: Tensor, position_ids: Tensor, keep: Tensor | None = None
) -> Tensor:
    """One forward pass over a packed row; call it inside `packed_attention`.

    Args:
        model: a causal language model, possibly wrapped (PEFT, DDP).
        layout: who attends to whom.
        token_ids: `(N,)`.
        position_ids: `(N,)`, each token's position in its own sequence.
        keep: `(M,)`, the packed places whose output is wanted; None for all.

    Returns:
        What the language-model head gives, `(M, V)` logits unless the head was replaced.
    """
    extra = {} if keep is None else {"logits_to_keep": keep}
    output = model(
        input_ids=token_ids.unsqueeze(0),
        position_ids=position_ids.unsqueeze(0),
        use_cache=False,
        packed_layout=layout,
        **extra,
    )
    logits: Tensor = output.logits
    return logits.squeeze(0)


@contextmanager
def replaced_head(model: nn.Module, forward: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]) -> Iterator[None]:
    """While the block runs, the language-model head computes `forward(own_forward, hidden)` instead.

    Staying inside the model's own forward keeps the hooks of DDP and ZeRO right.
    """
    head: Any = unwrapped(model).get_output_embeddings()
    own = head.forward
    had_one = "forward" in vars(head)
    head.forward = lambda hidden: forward(own, hidden)
    try:
        yield
    finally:
        if had_one:
            head.forward = own
        else:
            del head.forward


def unwrapped(model: nn.Module) -> PreTrainedModel:
    """The causal language model inside DDP, ZeRO or FSDP wrappers (a PEFT model stays one)."""
    inner: Any = model
    while isinstance(getattr(inner, "module", None), nn.Module):
        inner = inner.module
    return inner


_plain_heads: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def require_plain_head(model: nn.Module) -> None:
    """See that what a replaced head gives is what the model gives: some scale or cap their logits after the head.

    Found by one tiny forward pass, once per model object.

    Raises:
        BadInput: the model changes it.
    """
    inner = unwrapped(model)
    if inner in _plain_heads:
        return
    told = 7.0
    ids = torch.zeros(1, 2, dtype=torch.long, device=inner.get_input_embeddings().weight.device)
    was_training = inner.training
    inner.eval()
    try:
        with (
            torch.no_grad(),
            torch.autocast(ids.device.type, enabled=False),
            _own_forward(inner),
            replaced_head(inner, lambda own, hidden: torch.full_like(hidden[..., :1], told)),
        ):
            found = inner(input_ids=ids, use_cache=False).logits
    finally:
        inner.train(was_training)
        torch.clear_autocast_cache()  # as in _try_packing
    if not bool((found == told).all()):
        raise BadInput(
            f"{type(inner).__name__} scales or caps its logits after its head (logits_scaling, logit_scale"
            " or final_logit_softcapping), and log-probabilities here are those of the head alone",
            where="model.name",
            mend="choose a model that does not",
        )
    _plain_heads.add(inner)


@contextmanager
def _own_forward(model: nn.Module) -> Iterator[None]:
    """While the block runs, the model computes in its weights' precision: a trainer wraps its forward in autocast."""
    wrapped = vars(model).get("forward")
    if wrapped is None or "_original_forward" not in vars(model):
        yield
        return
    model.forward = vars(model)["_original_forward"]
    try:
        yield
    finally:
        model.forward = wrapped


_verdicts: weakref.WeakKeyDictionary[nn.Module, str | None] = weakref.WeakKeyDictionary()


def why_not_packable(model: nn.Module) -> str | None:
    """Why packed passes cannot serve this model, or None if they can.

    Found by running two short sequences packed and plain and comparing the logits, once per model object (two tiny
    forward passes), so that an architecture we never saw is either right or refused.
    """
    inner = unwrapped(model)
    if inner not in _verdicts:
        _verdicts[inner] = _try_packing(inner)
    return _verdicts[inner]


def _try_packing(model: PreTrainedModel) -> str | None:
    config = model.config
    if (window := getattr(config, "sliding_window", None)) and getattr(config, "use_sliding_window", True):
        return f"it attends through a sliding window of {window} tokens"
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder-decoder"
    device = model.get_input_embeddings().weight.device
    vocabulary = config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randint(vocabulary, (length,), generator=generator).to(device) for length in (7, 5)]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False), _own_forward(model):
            plain = torch.cat([model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0] for ids in sequences])
            positions = torch.cat([torch.arange(len(ids), device=device) for ids in sequences])
            with packed_attention(model):
                layout = SequencesLayout([len(ids) for ids in sequences])
                packed = packed_forward(model, layout, torch.cat(sequences), positions)
    except (NotPackable, TypeError, ValueError, RuntimeError, AttributeError) as error:
        return f"a packed pass fails on it ({(str(error) or type(error).__name__).splitlines()[0]})"
    finally:
        model.train(was_training)
        # Weights that autocast rounded and kept here, without gradients, would be cut off from the training forward
        # that comes next under the caller's own autocast.
        torch.clear_autocast_cache()
    gap = float((packed.float() - plain.float()).abs().max())
    # Rounding differs by the order of sums only; another attention pattern moves logits by a good part of their size.
    tolerance = (1e-3 if plain.dtype == torch.float32 else 5e-2) * float(plain.float().abs().max())
    if not gap <= tolerance:
        return f"packed and plain logits differ by {gap:.2g}"
    return None
