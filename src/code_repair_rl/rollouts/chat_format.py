"""Between messages and tokens: whole conversations, and only the new end of one whose beginning is known as tokens.

    format = chat_format(engine)
    prompt = format.encode(messages)
    answer = ...                                          # sampled: its tokens are kept as they are
    prompt += answer.token_ids + format.encode_tail([*messages, answered, reply], len(messages), stopped=True)

Imports no torch and no transformers; a tokenizer is whatever has `apply_chat_template`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.rollouts.completion import Engine
from code_repair_rl.rollouts.episode import ChatMessage
from code_repair_rl.rollouts.remote import RemoteEngine
from code_repair_rl.rollouts.scripted import STOP_ID, ScriptedEngine
from code_repair_rl.rollouts.tool_calls import as_plain_messages

Tool = Mapping[str, Any]


class ChatFormat(Protocol):
    """How one model writes conversations."""

    context_tokens: int
    """Most tokens of a conversation with its answers."""
    splices: bool
    """Whether answers are tokens that can be gone on from; else each request is the whole conversation anew."""

    def encode(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """The tokens of a conversation, ready for the next answer.

        Raises:
            BadInput: the model's template refuses these messages.
        """
        ...

    def encode_tail(
        self, messages: Sequence[ChatMessage], answer: int, *, stopped: bool, tools: Sequence[Tool] = ()
    ) -> tuple[int, ...]:
        """The tokens that follow the answer `messages[answer]`, whose own tokens are known, ready for the next answer.

        Args:
            messages: the whole conversation.
            answer: which message of it is the last whose tokens are known.
            stopped: whether these end with the end-of-turn token; else the tail begins with it.
            tools: as for `encode`.

        Raises:
            BadInput: the model's template refuses these messages.
        """
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text without special tokens."""
        ...


def prompt_ids(tokenizer: Any, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
    """The token ids of a conversation under a tokenizer's chat template, ready for the answer."""
    ids = tokenizer.apply_chat_template(
        [dict(message) for message in messages], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return tuple(int(token) for token in ids)


def chat_format(engine: Engine) -> ChatFormat:
    """The format of an engine's model.

    Raises:
        MachineryFailed: the engine neither is scripted nor has a tokenizer.
    """
    if isinstance(engine, ScriptedEngine):
        return PlainFormat()
    if isinstance(engine, RemoteEngine):
        return SpokenFormat(engine)
    tokenizer, context = getattr(engine, "tokenizer", None), getattr(engine, "context_tokens", None)
    if tokenizer is None or not isinstance(context, int):
        raise MachineryFailed(f"{type(engine).__name__} has no tokenizer and context to write conversations with")
    stops = [str(tokenizer.decode([stop])) for stop in getattr(engine, "stop_ids", ())]
    return TemplateFormat(tokenizer, context, ends=stops)


class TemplateFormat:
    """A tokenizer's chat template. Where it does not know tools, they are written as text (see `as_plain_messages`)."""

    splices = True

    def __init__(self, tokenizer: Any, context_tokens: int, *, ends: Sequence[str] = ()) -> None:
        """A tokenizer's template.

        Args:
            tokenizer: has `apply_chat_template`.
            context_tokens: most tokens of a conversation with its answers.
            ends: what answers may end with, as text; the tokenizer's end-of-sequence token always may.
        """
        self._tokenizer = tokenizer
        self._ends = tuple(end for end in (str(tokenizer.eos_token or ""), *ends) if end)
        self.context_tokens = context_tokens
        self.knows_tools = _knows_tools(tokenizer)
        """Whether the template itself writes tools down."""

    def encode(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """See `ChatFormat.encode`."""
        return self._ids(self._render(messages, tools))

    def encode_tail(
        self, messages: Sequence[ChatMessage], answer: int, *, stopped: bool, tools: Sequence[Tool] = ()
    ) -> tuple[int, ...]:
        """See `ChatFormat.encode_tail`.

        The conversation is rendered with a mark in the answer's place; what comes after the mark is the tail.
        """
        mark = _unused(messages)
        marked = [*messages[:answer], {"role": "assistant", "content": mark}, *messages[answer + 1 :]]
        rendered = self._render(marked, tools)
        if rendered.count(mark) != 1:
            raise MachineryFailed("the model's chat template does not write answers down as they are")
        tail = rendered.partition(mark)[2]
        end = max((end for end in self._ends if stopped and tail.startswith(end)), key=len, default="")
        return self._ids(tail[len(end) :])

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `ChatFormat.decode`."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def _render(self, messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> str:
        import jinja2

        plain: list[dict[str, Any]]
        if self.knows_tools:
            plain, offered = [_for_template(message) for message in messages], [dict(tool) for tool in tools] or None
        else:
            plain, offered = as_plain_messages(messages, tools), None
        try:
            return str(
                self._tokenizer.apply_chat_template(plain, tools=offered, add_generation_prompt=True, tokenize=False)
            )
        except (jinja2.TemplateError, TypeError, KeyError) as error:
            raise BadInput(f"the model's chat template refuses these messages: {error}", where="messages") from error

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(int(token) for token in self._tokenizer(text, add_special_tokens=False)["input_ids"])


class PlainFormat:
    """What `ScriptedEngine` reads: `role: content` paragraphs, a token a byte, tools as text."""

    context_tokens = 1 << 30
    splices = True

    def encode(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """See `ChatFormat.encode`."""
        return tuple(_paragraphs(as_plain_messages(messages, tools)).encode())

    def encode_tail(
        self, messages: Sequence[ChatMessage], answer: int, *, stopped: bool, tools: Sequence[Tool] = ()
    ) -> tuple[int, ...]:
        """See `ChatFormat.encode_tail`."""
        tail = "\n\n" + _paragraphs(as_plain_messages(messages[answer + 1 :], ()))
        return (*(() if stopped else (STOP_ID,)), *tail.encode())

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `ChatFormat.decode`."""
        return bytes(token for token in token_ids if token < STOP_ID).decode(errors="replace")


class SpokenFormat:
    """What `RemoteEngine` reads: the conversation itself; the tokens are the server's affair."""

    context_tokens = 1 << 30
    splices = False

    def __init__(self, engine: RemoteEngine) -> None:
        self._engine = engine

    def encode(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """See `ChatFormat.encode`."""
        return self._engine.conversation(messages, tools)

    def encode_tail(
        self, messages: Sequence[ChatMessage], answer: int, *, stopped: bool, tools: Sequence[Tool] = ()
    ) -> tuple[int, ...]:
        """Nothing: see `splices`."""
        return ()

    def decode(self, token_ids: Sequence[int]) -> str:
        """Nothing: the server tells no tokens."""
        return ""


def _paragraphs(messages: Sequence[ChatMessage]) -> str:
    return "".join(f"{message['role']}: {message['content']}\n\n" for message in messages) + "assistant: "


def _unused(messages: Sequence[ChatMessage]) -> str:
    """A word that occurs in no message."""
    everything = json.dumps([dict(message) for message in messages], ensure_ascii=False)
    number = 0
    while f"answer-{number}-goes-here" in everything:
        number += 1
    return f"answer-{number}-goes-here"


def _knows_tools(tokenizer: Any) -> bool:
    name = "a_tool_to_ask_for"
    tool = {"type": "function", "function": {"name": name, "description": "", "parameters": {"type": "object"}}}
    try:
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": "x"}], tools=[tool], add_generation_prompt=True, tokenize=False
        )
    except Exception:  # a template may fail in any way on what it does not know
        return False
    return name in str(rendered)


def _for_template(message: ChatMessage) -> dict[str, Any]:
    """As templates want it: text content, and tool arguments as objects."""
    plain = dict(message)
    plain["content"] = plain.get("content") or ""
    if plain.get("tool_calls"):
        plain["tool_calls"] = [_with_parsed_arguments(call) for call in plain["tool_calls"]]
    else:
        plain.pop("tool_calls", None)
    return plain


def _with_parsed_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    if isinstance(function.get("arguments"), str):
        with suppress(ValueError):
            function["arguments"] = json.loads(function["arguments"])
    return {**call, "function": function}
