"""An engine that gives scripted answers with the log-probabilities that a real model gives them."""

import re
from collections.abc import Callable, Sequence

import torch

from code_repair_rl.models import TINY_MODEL, load_tokenizer
from code_repair_rl.rollouts import Completion, FinishReason, Message, Sampling
from code_repair_rl.training.shared_prefix import plain_logprobs


class ScoredScript:
    """Answers `script(prompt text, number)`, scored by `model` as it is now."""

    context_tokens = 8192

    def __init__(self, model: torch.nn.Module, script: Callable[[str, int], str]) -> None:
        self.model = model
        self.script = script
        self.tokenizer = load_tokenizer(TINY_MODEL)
        self.asked = 0

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return tuple(
            self.tokenizer.apply_chat_template(
                [dict(message) for message in messages], add_generation_prompt=True, tokenize=True, return_dict=False
            )
        )

    def refresh(self) -> None:
        """The model is always current."""

    def generate(
        self, prompts: Sequence[Sequence[int]], *, completions_per_prompt: int, sampling: Sampling
    ) -> list[list[Completion]]:
        self.asked += len(prompts)
        return [[self._answer(prompt, number) for number in range(completions_per_prompt)] for prompt in prompts]

    def _answer(self, prompt: Sequence[int], number: int) -> Completion:
        text = self.script(self.tokenizer.decode(prompt), number)
        ids = (*self.tokenizer.encode(text, add_special_tokens=False), self.tokenizer.eos_token_id)
        with torch.no_grad():
            found = plain_logprobs(self.model, [list(prompt)], [[list(ids)]])
        return Completion(tuple(prompt), ids, tuple(found.logprobs[0].tolist()), text, FinishReason.STOP)


def answer(prompt: str, number: int) -> str:
    """Every other answer repairs the sign; the others make it worse."""
    line = re.search(r"    return x - (\d+)\n", prompt)
    assert line is not None
    operator = "+" if number % 2 == 0 else "*"
    return f"<<<<<<< SEARCH\n    return x - {line[1]}\n=======\n    return x {operator} {line[1]}\n>>>>>>> REPLACE"


def answer_when_told(prompt: str, number: int) -> str:
    """Of first answers every other breaks the code and is repaired when told so; the others never are an edit."""
    line = re.search(r"    return x - (\d+)\n", prompt)
    assert line is not None
    if "not applied" in prompt or (number % 2 and "undone" not in prompt):
        return "I cannot."
    operator = "+" if "Test fails" in prompt else "*"
    return f"<<<<<<< SEARCH\n    return x - {line[1]}\n=======\n    return x {operator} {line[1]}\n>>>>>>> REPLACE"
