"""An engine that answers by a rule, so that a search can be followed: prompt text in, that many answers out."""

from collections.abc import Callable, Sequence

from code_repair_rl.rollouts import Completion, FinishReason, Message, Sampling


class RecitingEngine:
    """Token ids are bytes. Remembers the prompts that it was asked, and how many answers for each."""

    def __init__(self, answers: Callable[[str, int], list[str]]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, int]] = []
        self.seeds: list[int] = []

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return tuple(messages[-1]["content"].encode())

    def refresh(self) -> None:
        """The rule never changes."""

    def generate(
        self, prompts: Sequence[Sequence[int]], *, completions_per_prompt: int, sampling: Sampling
    ) -> list[list[Completion]]:
        self.seeds.append(sampling.seed)
        groups = []
        for prompt in prompts:
            text = bytes(prompt).decode()
            self.asked.append((text, completions_per_prompt))
            answers = self.answers(text, completions_per_prompt)
            assert len(answers) == completions_per_prompt
            groups.append([_completion(tuple(prompt), answer) for answer in answers])
        return groups


def _completion(prompt: tuple[int, ...], answer: str) -> Completion:
    ids = tuple(answer.encode())
    return Completion(prompt, ids, (-1.0,) * len(ids), answer, FinishReason.STOP)


def block(search: str, replacement: str) -> str:
    """An edit block as a model writes it."""
    return f"<<<<<<< SEARCH\n{search}\n=======\n{replacement}\n>>>>>>> REPLACE\n"


def suspicious(prompt: str) -> str:
    """The line that a prompt points at."""
    return prompt.partition("Suspicious:\n")[2].partition("\n")[0]
