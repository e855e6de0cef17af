"""Who works on tasks over several answers, as a contract; and an episode as the row's turns record it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from code_repair_rl.rollouts.completion import Engine, Sampling
from code_repair_rl.rollouts.episode import ChatMessage, Episode
from code_repair_rl.runs import ToolCall
from code_repair_rl.runs import Turn as RecordedTurn
from code_repair_rl.tasks import HintLevel, Task

if TYPE_CHECKING:
    from code_repair_rl.grading import Grader


class Agent(Protocol):
    """Works on a task answer by answer; each attempt leaves an episode."""

    @property
    def description(self) -> str:
        """Its name and settings in one line: two agents with the same are compared as one."""
        ...

    @property
    def max_turns(self) -> int:
        """Answers per attempt at most."""
        ...

    @property
    def words_its_prompt(self) -> bool:
        """Whether what the model is asked first is the agent's own, and not the task's prompt with its files: then the
        length of the task's prompt says nothing."""
        ...

    def attempt(
        self,
        engine: Engine,
        grader: Grader,
        tasks: Sequence[Task],
        *,
        hint: HintLevel | str,
        attempts_per_task: int,
        sampling: Sampling,
        on_phase: Callable[[str], None],
    ) -> list[list[Episode]]:
        """Work on every task so many times.

        Args:
            engine: samples the answers; `sampling.max_new_tokens` bounds each of them.
            grader: runs visible tests; the hidden ones are the caller's.
            tasks: in this order; with `sampling.seed` it decides what is sampled.
            hint: how much of the fault's place the first prompt gives away.
            attempts_per_task: independent attempts.
            sampling: of every answer.
            on_phase: told `sample` and `grade` as they begin.

        Returns:
            Per task, in the order given, its episodes. A failure of ours is an episode that says so, not an exception.
        """
        ...


def recorded_turns(episode: Episode) -> tuple[RecordedTurn, ...] | None:
    """The conversation after the first prompt as a row keeps it; None for a single answer that is itself the edit.

    Where the environment said several things between two answers, the first is given all their tokens.
    """
    if not episode.turns or (len(episode.turns) == 1 and not episode.opening):
        return None
    found: list[RecordedTurn] = []
    place = 0
    answers = episode.answers or tuple(
        n for n, message in enumerate(episode.messages) if message["role"] == "assistant"
    )
    for number, turn in enumerate(episode.turns):
        if number:
            said = episode.messages[answers[number - 1] + 1 : answers[number]]
            for message in said or ({"role": "user", "content": ""},):
                stop = place + (len(turn.new_ids) if message is (said or (message,))[0] else 0)
                found.append(
                    RecordedTurn(
                        role="tool" if message["role"] == "tool" else "user",
                        text=str(message.get("content") or ""),
                        start=place,
                        end=stop,
                        call_id=str(message.get("tool_call_id") or ""),
                    )
                )
                place = stop
        stop = place + len(turn.token_ids)
        calls = _calls(episode.messages[answers[number]]) if number < len(answers) else ()
        found.append(
            RecordedTurn(
                role="assistant",
                text=turn.text,
                start=place,
                end=stop,
                tool_calls=calls,
                finish_reason=turn.finish_reason.value,
                weights_version=turn.weights_version,
            )
        )
        place = stop
    return tuple(found)


def _calls(answer: ChatMessage) -> tuple[ToolCall, ...]:
    calls: Any = answer.get("tool_calls") or ()
    return tuple(
        ToolCall(
            name=str(call["function"]["name"]),
            arguments=str(call["function"]["arguments"]),
            call_id=str(call.get("id") or ""),
        )
        for call in calls
    )
