"""What a client may ask of `/v1/chat/completions`, checked; and errors as the OpenAI API words them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from code_repair_rl.rollouts.episode import ChatMessage

MOST_CHOICES = 64
_MOST_STOPS = 16
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


class RequestError(Exception):
    """A request that gets an error for an answer."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that can be answered. Sampling parameters are the recipe's, whatever the client asks."""

    messages: tuple[ChatMessage, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    choices: int = 1
    stops: tuple[str, ...] = ()
    stream: bool = False
    stream_usage: bool = False
    logprobs: bool = False


def read_request(raw: bytes, model: str) -> ChatRequest:
    """Check a request's body.

    Args:
        raw: as it came.
        model: the one name that is served.

    Raises:
        RequestError: it cannot be answered, and why.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"We could not parse the JSON body of your request: {error}") from None
    if not isinstance(body, dict):
        raise RequestError("The body of a request is a JSON object")
    asked = body.get("model")
    if not isinstance(asked, str) or not asked:
        raise RequestError("you must provide a model parameter", param="model")
    if asked != model:
        raise RequestError(
            f"The model `{asked}` does not exist; here is `{model}`",
            status=404, param="model", code="model_not_found",
        )  # fmt: skip
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("'messages' has to be a list with at least one message", param="messages")
    options = body.get("stream_options")
    tools = _tools(body.get("tools")) if body.get("tool_choice") != "none" else ()
    return ChatRequest(
        messages=tuple(_message(message, f"messages[{number}]") for number, message in enumerate(messages)),
        tools=tools,
        choices=_choices(body.get("n")),
        stops=_stops(body.get("stop")),
        stream=_flag(body, "stream"),
        stream_usage=isinstance(options, dict) and options.get("include_usage") is True,
        logprobs=_flag(body, "logprobs"),
    )


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"'{name}' is true or false", param=name)
    return bool(value)


def _choices(value: Any) -> int:
    if value is None:
        return 1
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_CHOICES:
        raise RequestError(f"'n' is a whole number from 1 to {MOST_CHOICES}", param="n")
    return value


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > _MOST_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise RequestError(f"'stop' is a text or a list of at most {_MOST_STOPS} texts, none empty", param="stop")
    return tuple(stops)


def _tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RequestError("'tools' is a list", param="tools")
    for number, tool in enumerate(value):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            raise RequestError("a tool is a function with a name", param=f"tools[{number}]")
        parameters = function.get("parameters")
        if parameters is not None and not isinstance(parameters, dict):
            raise RequestError("'parameters' is a JSON schema", param=f"tools[{number}].function.parameters")
    return tuple(value)


def _message(value: Any, place: str) -> ChatMessage:
    """A message with what counts of it: role, text, tool calls."""
    if not isinstance(value, dict):
        raise RequestError("a message is an object", param=place)
    role = _ROLES.get(str(value.get("role")))
    if role is None:
        raise RequestError(f"'{value.get('role')}' is not one of {', '.join(_ROLES)}", param=f"{place}.role")
    message: dict[str, Any] = {"role": role, "content": _content(value.get("content"), f"{place}.content")}
    if role == "assistant" and value.get("tool_calls"):
        message["tool_calls"] = _calls(value["tool_calls"], f"{place}.tool_calls")
    if role == "tool":
        if not isinstance(value.get("tool_call_id"), str):
            raise RequestError("a tool's message names the call it answers", param=f"{place}.tool_call_id")
        message["tool_call_id"] = value["tool_call_id"]
    if role in ("user", "tool", "system") and message["content"] is None:
        raise RequestError(f"a message of '{role}' has content", param=f"{place}.content")
    return message


def _content(value: Any, place: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return sendable(value)
    if not isinstance(value, list):
        raise RequestError("content is a text or a list of parts", param=place)
    texts = []
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise RequestError("only parts of type 'text' can be read", param=place)
        texts.append(sendable(part["text"]))
    return "".join(texts)


def _calls(value: Any, place: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise RequestError("'tool_calls' is a list", param=place)
    calls = []
    for call in value:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RequestError("a tool call has a function with a name", param=place)
        arguments = function.get("arguments")
        if not isinstance(arguments, (str, dict)):
            raise RequestError("a tool call's arguments are JSON as text", param=place)
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        named = {"name": sendable(function["name"]), "arguments": sendable(text)}
        calls.append({"id": str(call.get("id") or ""), "type": "function", "function": named})
    return calls


def sendable(text: str) -> str:
    """Lone surrogates, which JSON can spell and UTF-8 cannot, as question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
