"""`ScriptedEngine`: replays answers that were written beforehand. Needs no model and no torch.

For tests and dry runs of everything around a model: the oracle's answers must score 1, an empty answer 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from code_repair_rl.rollouts.completion import Completion, FinishReason, Message, Sampling

STOP_ID = 256
"""The end-of-turn token; the others are the bytes of the UTF-8 text."""


class ScriptedEngine:
    """An `Engine` whose answers come from a script; a token is a byte, and every token was certain (logprob 0)."""

    def __init__(self, script: Sequence[str] | Callable[[str, int], str]) -> None:
        """Set the script.

        Args:
            script: the answers to all prompts, given in turn and from the start again when they are used up; or a
                function from the prompt's text (see `encode`) and the completion's number within its group.
        """
        if not callable(script) and not script:
            raise ValueError("a script needs at least one answer")
        self._script = script
        self._given = 0

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The bytes of `role: content` paragraphs."""
        return tuple("\n\n".join(f"{message['role']}: {message['content']}" for message in messages).encode())

    def refresh(self) -> None:
        """A script does not change."""

    def generate(
        self, prompts: Sequence[Sequence[int]], *, completions_per_prompt: int, sampling: Sampling
    ) -> list[list[Completion]]:
        """The script's next answers, cut at `sampling.max_new_tokens` bytes."""
        return [
            [self._completion(tuple(prompt), number, sampling) for number in range(completions_per_prompt)]
            for prompt in prompts
        ]

    def generate_each(
        self,
        prompts: Sequence[Sequence[int]],
        counts: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """As `generate`, with a number of completions for each prompt; a script needs no seeds."""
        return [
            [self._completion(tuple(prompt), number, sampling) for number in range(count)]
            for prompt, count in zip(prompts, counts, strict=True)
        ]

    def _completion(self, prompt: tuple[int, ...], number: int, sampling: Sampling) -> Completion:
        if callable(self._script):
            text = self._script(bytes(token for token in prompt if token != STOP_ID).decode(), number)
        else:
            text = self._script[self._given % len(self._script)]
        self._given += 1
        tokens = (*text.encode(), STOP_ID)
        kept = tokens[: sampling.max_new_tokens]
        return Completion(
            prompt_ids=prompt,
            token_ids=kept,
            logprobs=(0.0,) * len(kept),
            text=bytes(token for token in kept if token != STOP_ID).decode(errors="replace"),
            finish_reason=FinishReason.STOP if kept == tokens else FinishReason.LENGTH,
        )
