"""A conversation as its tokens: what an agent sends as messages is joined to the tokens that were really sampled.

An agent sends the whole history with every request. Each answer given is a node of a tree; a request whose messages
extend the conversation up to a node goes on from that node's tokens, and only what is new is tokenised. What does not
fit is counted: a fork goes on from where the conversation had been continued already, a rewrite holds an answer that
was never given.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from code_repair_rl.rollouts.ask import derived_seed
from code_repair_rl.rollouts.chat_format import ChatFormat
from code_repair_rl.rollouts.chat_request import sendable
from code_repair_rl.rollouts.completion import Completion, FinishReason, Sampling
from code_repair_rl.rollouts.episode import ChatMessage, Ending, Turn
from code_repair_rl.rollouts.tool_calls import read_tool_calls

Tool = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """When an episode has had enough."""

    max_turns: int = 30
    """Requests answered; those with several choices count once."""
    context_tokens: int | None = None
    """Shorter than the model's own context, for example what the trainer can take."""


class SessionEnded(Exception):  # noqa: N818 - a state, told to whoever asks again
    """The session gives no more answers."""

    def __init__(self, ending: Ending, what: str) -> None:
        super().__init__(what)
        self.ending = ending


@dataclass(eq=False, slots=True)
class _Node:
    """One answer, and how it came about."""

    parent: _Node | None
    new_messages: tuple[ChatMessage, ...]
    """Of the request, those after the parent's answer."""
    tools: tuple[Tool, ...]
    answer: ChatMessage
    turn: Turn
    stopped: bool
    """Whether its tokens end with the end-of-turn token."""
    children: int = 0
    """Requests that went on from here."""

    def line(self) -> list[_Node]:
        """From the first answer to this one."""
        found: list[_Node] = []
        node: _Node | None = self
        while node is not None:
            found.append(node)
            node = node.parent
        return found[::-1]

    def token_ids(self) -> tuple[int, ...]:
        """All tokens up to and including this answer."""
        ids: list[int] = []
        for node in self.line():
            ids += node.turn.new_ids
            ids += node.turn.token_ids
        return tuple(ids)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that an answer may be sampled for."""

    prompt_ids: tuple[int, ...]
    seed: int
    messages: tuple[ChatMessage, ...]
    tools: tuple[Tool, ...]
    parent: _Node | None
    new_ids: tuple[int, ...]
    known: int
    """How many of `messages` the parent's line covers."""
    max_new_tokens: int
    """What the answer may have: the recipe's length, or the room that is left in the context."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer as it goes back to the agent."""

    message: ChatMessage
    finish_reason: str
    """`stop`, `length` or `tool_calls`."""
    turn: Turn


class Chain(NamedTuple):
    """A conversation from its first request to its last answer."""

    turns: tuple[Turn, ...]
    messages: tuple[ChatMessage, ...]
    tools: tuple[Tool, ...]
    """Those that were offered first."""
    answers: tuple[int, ...]
    """Places of the sampled answers in `messages`: an agent may put answers there that were never given."""


class Session:
    """One episode's conversations. Safe to use from several threads."""

    def __init__(
        self, session_id: str, chat: ChatFormat, sampling: Sampling, limits: SessionLimits | None = None
    ) -> None:
        """Begin a session.

        Args:
            session_id: names it in the base URL.
            chat: how the model writes conversations.
            sampling: of every answer; its seed and the number of the request give the request's.
            limits: when it ends.
        """
        self.id = session_id
        self.sampling = sampling
        self.limits = limits or SessionLimits()
        own = self.limits.context_tokens if chat.splices else None  # what tells no tokens cannot be counted
        self.context_tokens = min(chat.context_tokens, own or chat.context_tokens)
        self.forks = self.rewrites = self.broken_tool_calls = self.requests = 0
        self.failure = ""
        """What of ours failed while answering; the episode then says nothing about the policy."""
        self.delayed = False
        """Whether the model's server was away for a while: the agent may have run out of time for that."""
        self.ended: SessionEnded | None = None
        """Why no more answers are given; None while they are."""
        self._chat = chat
        self._nodes: list[_Node] = []
        self._by_path: dict[str, _Node] = {}
        self._roots = self._calls = self._answered = 0
        self._closed = False
        self._lock = threading.Lock()

    def prepare(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> Prepared:
        """Join a request to what was recorded.

        Raises:
            SessionEnded: the turns or the context are used up, or the session was closed.
            BadInput: the model's template refuses the messages.
        """
        with self._lock:
            if self.ended is not None:
                raise self.ended
            if self._answered >= self.limits.max_turns:
                raise self._end(Ending.OUT_OF_TURNS, f"the session's {self.limits.max_turns} turns are used up")
            messages, tools = tuple(messages), tuple(tools)
            parent, known = self._recorded(_paths(tools, messages))
            new: tuple[int, ...] = ()
            if not self._chat.splices:
                prompt = self._chat.encode(messages, tools)
            elif parent is None:
                prompt = new = self._chat.encode(messages, tools)
            else:
                new = self._chat.encode_tail(messages, known - 1, stopped=parent.stopped, tools=tools)
                prompt = parent.token_ids() + new
            if len(prompt) >= self.context_tokens:
                raise self._end(
                    Ending.CONTEXT_FULL,
                    f"This model's maximum context length is {self.context_tokens} tokens. However, your messages "
                    f"resulted in {len(prompt)} tokens.",
                )
            self._count(messages, parent, known)
            self.requests += 1
            seed = derived_seed(self.sampling.seed, self.requests)
            room = min(self.sampling.max_new_tokens, self.context_tokens - len(prompt))
            return Prepared(prompt, seed, messages, tools, parent, new, known, room)

    def record(
        self,
        prepared: Prepared,
        completions: Sequence[Completion],
        *,
        stops: Sequence[str] = (),
        weights_version: int = 0,
    ) -> list[Choice]:
        """Keep what was sampled for a request, and say what the agent is told.

        Args:
            prepared: the request.
            completions: one for each choice.
            stops: texts at which answers end; what was sampled beyond is not kept.
            weights_version: of the policy.

        Raises:
            SessionEnded: it was closed in the meantime; nothing is kept.
        """
        choices: list[Choice] = []
        with self._lock:
            if self._closed and self.ended is not None:
                raise self.ended  # whoever asked is gone, and never saw this answer
            self._answered += 1
            for completion in completions:
                turn = _until_stop(completion, prepared.new_ids, stops, self._chat, weights_version)
                message = self._message(turn.text, prepared.tools)
                whole = len(turn.token_ids) == len(completion.token_ids)
                self._keep(prepared, turn, message, whole and completion.finish_reason is FinishReason.STOP)
                reason = "tool_calls" if message.get("tool_calls") else "stop"
                choices.append(Choice(message, reason if turn.finish_reason is FinishReason.STOP else "length", turn))
        return choices

    def close(self, ending: Ending, what: str) -> None:
        """Give no more answers; the first reason counts."""
        with self._lock:
            self._closed = True
            if self.ended is None:
                self._end(ending, what)

    def fill(self, what: str) -> SessionEnded:
        """End where the engine finds the conversation too long for it."""
        with self._lock:
            return self.ended or self._end(Ending.CONTEXT_FULL, what)

    def fail(self, what: str) -> None:
        """Note a failure of ours."""
        with self._lock:
            self.failure = self.failure or what

    def longest(self) -> Chain:
        """The chain with most answers (then most tokens, then the latest)."""
        with self._lock:
            if not self._nodes:
                return Chain((), (), (), ())
            lines = [node.line() for node in self._nodes]
        line = max(enumerate(lines), key=lambda one: (len(one[1]), _sampled(one[1]), one[0]))[1]
        messages: list[ChatMessage] = []
        answers: list[int] = []
        for node in line:
            messages += node.new_messages
            answers.append(len(messages))
            messages.append(node.answer)
        return Chain(tuple(node.turn for node in line), tuple(messages), line[0].tools, tuple(answers))

    def _end(self, ending: Ending, what: str) -> SessionEnded:
        self.ended = SessionEnded(ending, what)
        return self.ended

    def _recorded(self, paths: Sequence[str]) -> tuple[_Node | None, int]:
        """The deepest answer whose conversation these messages extend, and how many of them it covers."""
        for covered in range(len(paths) - 2, 0, -1):
            node = self._by_path.get(paths[covered])
            if node is not None:
                return node, covered
        return None, 0

    def _keep(self, prepared: Prepared, turn: Turn, answer: ChatMessage, stopped: bool) -> None:
        node = _Node(
            parent=prepared.parent,
            new_messages=prepared.messages[prepared.known :],
            tools=prepared.tools,
            answer=answer,
            turn=turn,
            stopped=stopped,
        )
        self._nodes.append(node)
        self._by_path[_paths(prepared.tools, (*prepared.messages, answer))[-1]] = node

    def _count(self, messages: tuple[ChatMessage, ...], parent: _Node | None, known: int) -> None:
        """Count a fork or a rewrite, and that the parent was gone on from."""
        if any(message["role"] == "assistant" for message in messages[known:]) and self._nodes:
            self.rewrites += 1
        elif (parent.children if parent is not None else self._roots) > 0:
            self.forks += 1
        if parent is not None:
            parent.children += 1
        else:
            self._roots += 1

    def _message(self, text: str, tools: tuple[Tool, ...]) -> dict[str, Any]:
        read = read_tool_calls(text, tools)
        self.broken_tool_calls += bool(read.broken)
        content = sendable(read.content)
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if read.calls:
            message["content"] = content or None
            message["tool_calls"] = []
            for call in read.calls:
                self._calls += 1
                arguments = json.dumps(call.arguments, ensure_ascii=False)
                function = {"name": sendable(call.name), "arguments": sendable(arguments)}
                message["tool_calls"].append({"id": f"call_{self._calls}", "type": "function", "function": function})
        return message


def _until_stop(
    completion: Completion,
    new_ids: tuple[int, ...],
    stops: Sequence[str],
    chat: ChatFormat,
    weights_version: int,
) -> Turn:
    """The answer up to its first stop text: tokens including the one that completed it, text without it."""
    text, reason = completion.text, completion.finish_reason
    count = len(completion.token_ids)
    if (first := _first_of(stops, text)) is not None:
        text, reason = text[:first], FinishReason.STOP
        for length in range(1, count):
            so_far = chat.decode(completion.token_ids[:length])
            if (first := _first_of(stops, so_far)) is not None:
                text, count = so_far[:first], length
                break
    return Turn(new_ids, completion.token_ids[:count], completion.logprobs[:count], text, reason, weights_version)


def _first_of(stops: Sequence[str], text: str) -> int | None:
    """Where the first stop text begins."""
    return min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)


def _paths(tools: Sequence[Tool], messages: Sequence[ChatMessage]) -> list[str]:
    """For every beginning of a conversation, the empty one first, a digest that stands for it."""
    digest = hashlib.sha256(_plain(list(tools)).encode("utf-8", "surrogatepass"))
    found = [digest.hexdigest()]
    for message in messages:
        digest.update(_key(message).encode("utf-8", "surrogatepass"))
        found.append(digest.hexdigest())
    return found


def _key(message: ChatMessage) -> str:
    """What makes two messages the same: agents drop or add fields, and strip their copy of an answer."""
    content = str(message.get("content") or "")
    if message["role"] == "assistant":
        content = content.strip()
    calls = [_call_key(call) for call in message.get("tool_calls") or ()]
    return _plain([message["role"], content, calls, message.get("tool_call_id") or ""])


def _call_key(call: Mapping[str, Any]) -> list[Any]:
    function = call["function"]
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        with suppress(ValueError):
            arguments = json.loads(arguments)
    return [call.get("id") or "", function.get("name"), arguments]


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _sampled(line: Sequence[_Node]) -> int:
    return sum(len(node.turn.token_ids) for node in line)
