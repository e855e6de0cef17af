"""`LocalEngine`: samples from a model that lives in this process, usually the one being trained."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from code_repair_rl.errors import BadInput
from code_repair_rl.models.packed import unwrapped, why_not_packable
from code_repair_rl.rollouts.chat_format import prompt_ids
from code_repair_rl.rollouts.completion import Completion, FinishReason, Message, Sampling
from code_repair_rl.rollouts.decoding import Part, Sampled, decode
from code_repair_rl.rollouts.plain_decoding import decode_plainly
from code_repair_rl.rollouts.prefixes import alike, apart
from code_repair_rl.rollouts.sampler import row_uniforms

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

_ROWS_ON_A_CPU = 64
_ROWS_ON_A_GPU = 256


class LocalEngine:
    """Samples with our own decoding loop over the model's own modules (see `Engine` for the contract).

    Without a working copy (`copy_dtype=None`) the weights are the live ones of `model`, always current, and the
    recorded log-probabilities agree with a teacher-forced forward of it to rounding. With `copy_dtype="bfloat16"`
    sampling runs on a bf16 copy, more than twice as fast on a CPU; call `refresh()` after the model has changed.
    Log-probabilities are those of the distribution that was sampled from; greedy ones are at temperature 1.

    A row's answer depends on the weights, its prompt, the seed and its place (prompt number, completion number), not on
    what else is in the batch, as far as floating point allows.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        copy_dtype: str | None = None,
        max_rows: int | None = None,
        packed: bool | None = None,
    ) -> None:
        """Wrap a model.

        Args:
            model: a causal language model, possibly wrapped by PEFT.
            tokenizer: its tokenizer, with a chat template.
            copy_dtype: sample from a copy in this dtype (`bfloat16`, `float16`, `float32`); None samples from `model`.
            max_rows: so many different beginnings of completions advance together, and up to twice as many completions,
                since those that have drawn the same so far are computed as one; bounds the memory of the suffix cache.
                Finished ones are replaced by waiting ones, so that asking for many at once is faster than asking batch
                by batch. None: 64 on a CPU, 256 on a GPU.
            packed: use the packed decoding loop; None decides by trying (and says so once where it cannot).
        """
        self.model = model
        self.tokenizer: Any = tokenizer
        self._max_rows = max_rows
        self._copy_dtype: torch.dtype | None = getattr(torch, copy_dtype) if copy_dtype else None
        self._copy: nn.Module | None = None
        self.packed = packed
        """Whether the packed loop serves; None until it has been tried."""
        self.weights_version = 0
        """How often `refresh` was called: answers with the same number come from the same weights."""
        self.stop_ids = stop_ids(model, tokenizer)

    @property
    def max_rows(self) -> int:
        """How many distinct beginnings of completions advance together."""
        if self._max_rows is not None:
            return self._max_rows
        on_gpu = next(self.model.parameters()).device.type != "cpu"  # asked late: trainers move their model
        return _ROWS_ON_A_GPU if on_gpu else _ROWS_ON_A_CPU

    @property
    def context_tokens(self) -> int:
        """Most tokens of a prompt with its answer."""
        return int(unwrapped(self.model).config.get_text_config().max_position_embeddings)

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The token ids of a conversation under the model's chat template, ready for the answer."""
        return prompt_ids(self.tokenizer, messages)

    def refresh(self) -> None:
        """Bring the working copy up to the model's current weights; without a copy there is nothing to do."""
        self.weights_version += 1
        if self._copy_dtype is None:
            return
        if self._copy is not None and _copy_weights(self.model, self._copy):
            return
        self._copy = _working_copy(self.model, self._copy_dtype)

    def generate(
        self, prompts: Sequence[Sequence[int]], *, completions_per_prompt: int, sampling: Sampling
    ) -> list[list[Completion]]:
        """For each prompt (token ids) that many completions, in the order of the prompts.

        Raises:
            BadInput: a prompt is empty or fills the model's whole context.
        """
        return self.generate_each(prompts, [completions_per_prompt] * len(prompts), sampling)

    def generate_each(
        self,
        prompts: Sequence[Sequence[int]],
        counts: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """As `generate`, with a number of completions for each prompt.

        With `seeds`, one for each prompt, an answer depends on its own seed and number, and not on the prompt's place.
        """
        context = self.context_tokens
        if sampling.max_new_tokens < 1:
            raise BadInput(f"max_new_tokens is {sampling.max_new_tokens}", mend="ask for at least one token")
        for number, prompt in enumerate(prompts):
            if not 1 <= len(prompt) < context:
                raise BadInput(
                    f"prompt {number} has {len(prompt)} tokens; the model takes 1 to {context - 1}",
                    mend="shorten it, for example by showing fewer files",
                )
        if self._copy_dtype is not None and self._copy is None:
            self.refresh()
        model = self.model if self._copy is None else self._copy
        packs = self._packs(model)
        places = alike(prompts, counts, self.max_rows) if packs else apart(prompts, counts, self.max_rows)
        # Prompts of like length together, long ones first: they share one padded block of keys.
        places.sort(key=lambda place: (-place.shared, place.rows[0]))
        streams = [(sampling.seed, number) if seeds is None else (seeds[number], 0) for number in range(len(prompts))]

        def uniforms(number: int, row: int) -> Tensor:
            limit = min(sampling.max_new_tokens, context - len(prompts[number]))
            return row_uniforms(*streams[number], row, limit)

        parts = [
            Part(
                prompts[place.rows[0][0]][: place.shared],
                [uniforms(*row) for row in place.rows],
                [prompts[number][place.shared :] for number, _ in place.rows],
            )
            for place in places
        ]
        with _evaluating(model):
            way = decode if packs else decode_plainly
            found = way(model, parts, self.stop_ids, sampling.temperature, self.max_rows)
        drawn = {
            row: sampled
            for place, group in zip(places, found, strict=True)
            for row, sampled in zip(place.rows, group, strict=True)
        }
        return [
            [self._completion(tuple(prompt), drawn[number, row]) for row in range(counts[number])]
            for number, prompt in enumerate(prompts)
        ]

    def _packs(self, model: nn.Module) -> bool:
        if self.packed is None:
            reason = why_not_packable(model)
            if reason:
                _log.warning("sampling takes the slower plain path for this model: %s", reason)
            self.packed = reason is None
        return self.packed

    def _completion(self, prompt: tuple[int, ...], sampled: Sampled) -> Completion:
        return Completion(
            prompt_ids=prompt,
            token_ids=tuple(sampled.token_ids),
            logprobs=tuple(sampled.logprobs),
            text=self.tokenizer.decode(sampled.token_ids, skip_special_tokens=True),
            finish_reason=FinishReason.STOP if sampled.stopped else FinishReason.LENGTH,
        )


def stop_ids(model: nn.Module, tokenizer: Any) -> tuple[int, ...]:
    """End-of-turn tokens: the tokenizer's and those of the model's generation settings."""
    found: set[int] = set()
    settings = getattr(unwrapped(model), "generation_config", None)
    for source in (tokenizer.eos_token_id, getattr(settings, "eos_token_id", None)):
        if isinstance(source, int):
            found.add(source)
        elif isinstance(source, Iterable):
            found.update(source)
    return tuple(sorted(found))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout while the block runs."""
    was_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in was_training:
            module.training = True


def _working_copy(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of the model in `dtype`, with LoRA adapters merged into it."""
    inner: Any = unwrapped(model)
    with torch.no_grad():
        if hasattr(inner, "merge_and_unload"):  # merged in the master's precision, then rounded
            duplicate = copy.deepcopy(inner).merge_and_unload().to(dtype)
        else:
            # Rounded while copying: the master is never held twice.
            memo: dict[int, Any] = {
                id(parameter): nn.Parameter(parameter.detach().to(dtype, copy=True), requires_grad=False)
                for parameter in inner.parameters()
            }
            duplicate = copy.deepcopy(inner, memo)
    for name in ("forward", "_original_forward"):  # a trainer wraps the master's forward, in autocast for one
        duplicate.__dict__.pop(name, None)
    return duplicate.eval().requires_grad_(False)  # type: ignore[no-any-return]


def _copy_weights(model: nn.Module, duplicate: nn.Module) -> bool:
    """Copy the weights over in place; False where the two are not built alike (adapters)."""
    sources: dict[str, Tensor] = dict(unwrapped(model).named_parameters())
    targets: dict[str, Tensor] = dict(duplicate.named_parameters())
    if sources.keys() != targets.keys():
        return False
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(sources[name])
    return True
