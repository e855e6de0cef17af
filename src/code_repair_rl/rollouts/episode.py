"""An episode: several answers of a policy in one conversation with an environment, with the exact tokens of all.

    prompt | answer | environment | answer | environment | answer
    \\____ turn 1 __/ \\______ turn 2 ______/ \\______ turn 3 ____/

A turn is what the environment put (the first time the whole prompt), then what the policy sampled upon it. Put end to
end they are exactly the tokens that the policy was conditioned on; nothing is ever tokenised again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from code_repair_rl.rollouts.completion import Completion, FinishReason

ChatMessage = Mapping[str, Any]
"""A message as the OpenAI chat API has it: `role`, `content`, and where they apply `tool_calls`, `tool_call_id`."""


class Ending(StrEnum):
    """How an episode ended. What the work copy holds at its end is graded, except after `INFRASTRUCTURE`."""

    FINISHED = "finished"
    """The agent ended by itself and had changed something."""
    NO_DIFF = "no-diff"
    """The agent ended by itself, and the work copy is as it was given."""
    OUT_OF_TURNS = "out-of-turns"
    """The agent wanted more answers than it may have."""
    CONTEXT_FULL = "context-full"
    """The conversation no longer fits into the model's context (or the recipe's shorter one)."""
    OUT_OF_TIME = "out-of-time"
    """The deadline of the whole episode passed: a hang, or a refusal to stop."""
    OVER_LIMITS = "over-limits"
    """The jail ended the agent: memory, processor time or output."""
    AGENT_CRASHED = "agent-crashed"
    """The agent ended with an error after it had been given answers, for example because it could not read one."""
    INFRASTRUCTURE = "infrastructure"
    """Our own machinery failed (jail, gateway, engine), or the agent never got an answer: says nothing about the
    policy, has no verdict and no reward."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What the environment put, and what the policy sampled upon it."""

    new_ids: tuple[int, ...]
    """Tokens since the turn before: the first time the whole prompt, later tool output with the template around it."""
    token_ids: tuple[int, ...]
    """Sampled; at least one."""
    logprobs: tuple[float, ...]
    """Of each of `token_ids`, under the distribution it was drawn from (after temperature)."""
    text: str
    """Decoded without special tokens, and without the stop string that ended it."""
    finish_reason: FinishReason
    weights_version: int = 0
    """The policy's update count when the answer was sampled."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One attempt at a task over several turns."""

    task_id: str
    turns: tuple[Turn, ...]
    """The longest chain of answers; empty where none was given."""
    ending: Ending
    files_after: Mapping[str, str] = field(default_factory=dict)
    """The text files of the work copy at the end; empty after `INFRASTRUCTURE`."""
    patch: str = ""
    """What was changed, new files included, in canonical edit text."""
    messages: tuple[ChatMessage, ...] = ()
    """The conversation of `turns` as messages, answers included."""
    answers: tuple[int, ...] = ()
    """Places of the sampled answers in `messages`, where an agent's program words its prompt itself and may put answers
    of its own there; empty where the prompt is the task's, and every answer in `messages` was sampled."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """What the policy was offered, in the OpenAI form."""
    forks: int = 0
    """Requests that went on from where the conversation had already been continued."""
    rewrites: int = 0
    """Requests whose history holds answers that the policy never gave."""
    broken_tool_calls: int = 0
    """Answers with something like a tool call that could not be read."""
    wall_seconds: float = 0.0
    evidence: str = ""
    """What led to the ending, for people: the agent's last output, the error."""

    @property
    def opening(self) -> tuple[ChatMessage, ...]:
        """What an agent's program asked before the first answer; empty where the prompt is the task's."""
        return self.messages[: self.answers[0]] if self.answers else ()

    @property
    def sampled_tokens(self) -> int:
        """How many tokens the policy drew."""
        return sum(len(turn.token_ids) for turn in self.turns)

    def completion(self) -> Completion:
        """The whole episode as one completion, its environment tokens marked; `text` is the patch.

        Raises:
            ValueError: the episode has no turn.
        """
        return spliced(self.turns, text=self.patch)


def spliced(turns: Sequence[Turn], *, text: str) -> Completion:
    """Turns end to end as one completion.

    Args:
        turns: at least one.
        text: what is graded.

    Raises:
        ValueError: there is no turn.
    """
    if not turns:
        raise ValueError("an episode without a turn has no tokens")
    token_ids: list[int] = []
    logprobs: list[float] = []
    sampled: list[bool] = []
    for number, turn in enumerate(turns):
        if number:
            token_ids += turn.new_ids
            logprobs += [0.0] * len(turn.new_ids)
            sampled += [False] * len(turn.new_ids)
        token_ids += turn.token_ids
        logprobs += turn.logprobs
        sampled += [True] * len(turn.token_ids)
    return Completion(
        prompt_ids=turns[0].new_ids,
        token_ids=tuple(token_ids),
        logprobs=tuple(logprobs),
        text=text,
        finish_reason=turns[-1].finish_reason,
        sampled=tuple(sampled) if len(turns) > 1 else (),
    )
