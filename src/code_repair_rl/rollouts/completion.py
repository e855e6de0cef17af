"""How completions are made, as a contract: prompts in, exact tokens out. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypedDict

from code_repair_rl.errors import BadInput


class Message(TypedDict):
    """One chat message."""

    role: str
    content: str


class PromptTooLong(BadInput):
    """A server finds a prompt too long for its model; the message is the server's."""


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    """The model wrote its end-of-turn token."""
    LENGTH = "length"
    """`max_new_tokens` was reached first."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. Training draws from the full distribution: no top-k, no top-p."""

    temperature: float = 1.0
    """0 means greedy."""
    max_new_tokens: int = 192
    seed: int = 0
    """The same engine, weights, prompts and seed give the same tokens."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer with the exact tokens that were sampled.

    Over several turns there is one completion still: all that follows the first prompt, turn after turn, with what the
    environment said in between (tool output, the template's own tokens around it). Those tokens are marked in
    `sampled`; the policy is conditioned on them, and they carry no loss, no KL and no entropy. Copy `sampled` into
    `RolloutRow.sampled`; the training batches do the rest.
    """

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """Ends with the end-of-turn token where `finish_reason` is `STOP`."""
    logprobs: tuple[float, ...]
    """Log-probability of each token of `token_ids` under the distribution it was drawn from (after temperature); 0 for
    tokens of the environment."""
    text: str
    """What is graded, decoded without special tokens: the whole answer, or of several turns what counts as answer."""
    finish_reason: FinishReason
    sampled: tuple[bool, ...] = ()
    """For each token of `token_ids` whether the model drew it; False: the environment put it there. Empty: all were
    drawn."""

    def __post_init__(self) -> None:
        """Refuse marks that do not fit the tokens: what would be trained on would not be what was sampled."""
        if len(self.logprobs) != len(self.token_ids):
            raise ValueError(f"{len(self.logprobs)} log-probabilities for {len(self.token_ids)} tokens")
        if self.sampled and len(self.sampled) != len(self.token_ids):
            raise ValueError(f"{len(self.sampled)} marks in `sampled` for {len(self.token_ids)} tokens")


class Engine(Protocol):
    """Anything that samples completions."""

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The token ids of a conversation under the model's chat template, ready for the answer."""
        ...

    def refresh(self) -> None:
        """Take up the policy's current weights; an engine whose weights never change does nothing."""
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], *, completions_per_prompt: int, sampling: Sampling
    ) -> list[list[Completion]]:
        """For each prompt (token ids) that many completions, in the order of the prompts."""
        ...
