"""How likely a model finds given answers, teacher-forced."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from code_repair_rl.models.packed import portions
from code_repair_rl.training.shared_prefix import completion_logprobs

_FORWARD_TOKENS = 2048
"""Tokens of one forward pass: bounds the memory."""


@torch.no_grad()
def nats_per_token(model: PreTrainedModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> float:
    """The mean negative log-likelihood of the answers' tokens, in nats; of all answers together.

    Args:
        model: left in evaluation mode.
        prompts: token ids.
        answers: token ids, one answer for each prompt; at least one token over all.
    """
    model.eval()
    total, count = 0.0, 0
    lengths = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    for start, stop in portions(lengths, _FORWARD_TOKENS):
        found = completion_logprobs(model, prompts[start:stop], [[answer] for answer in answers[start:stop]])
        total -= float(found.logprobs.sum())
        count += int(found.mask.sum())
    return total / count
