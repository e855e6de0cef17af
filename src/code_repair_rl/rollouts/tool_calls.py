"""Tool calls in text: read from answers, and written down for models whose template does not know tools.

Read are Hermes's and Qwen's JSON form and Qwen3-Coder's XML form:

    <tool_call>{"name": "bash", "arguments": {"command": "ls"}}</tool_call>

    <tool_call><function=bash><parameter=command>
    ls
    </parameter></function></tool_call>
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_CALL = re.compile(r"<tool_call>(?P<body>.*?)(?:</tool_call>|\Z)|(?P<bare><function=.*?(?:</function>|\Z))", re.DOTALL)
_FUNCTION = re.compile(r"\s*<function=(?P<name>[^<>\s]+)>(?P<parameters>.*?)</function>\s*", re.DOTALL)
_PARAMETER = re.compile(r"\s*<parameter=(?P<name>[^<>\s]+)>(?P<value>.*?)</parameter>\s*", re.DOTALL)

_INTRODUCTION = """# Tools

You may call tools. Each is described by one JSON object:
<tools>
{tools}
</tools>

To call a tool, write its name and arguments as JSON between <tool_call> and </tool_call>, like this:
<tool_call>
{{"name": "the tool's name", "arguments": {{"the argument's name": "its value"}}}}
</tool_call>
What it returns is given to you between <tool_response> and </tool_response>."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call, as the answer wants it."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """An answer's text and the calls found in it."""

    content: str
    """What is left without the calls; a call that could not be read stays in it."""
    calls: tuple[ToolCall, ...]
    broken: int
    """Calls that could not be read."""


def read_tool_calls(text: str, tools: Sequence[Mapping[str, Any]]) -> ReadAnswer:
    """Find the tool calls in an answer.

    Args:
        text: the answer.
        tools: what was offered, in the OpenAI form; says which XML parameters are not text. None offered: none read.
    """
    if not tools:
        return ReadAnswer(text, (), 0)
    calls: list[ToolCall] = []
    left: list[str] = []
    end = broken = 0
    for match in _CALL.finditer(text):
        call = _read(match["bare"] or match["body"], tools)
        if call is None:
            broken += 1
            continue
        calls.append(call)
        left.append(text[end : match.start()])
        end = match.end()
    left.append(text[end:])
    content = "".join(left)
    return ReadAnswer(content.strip() if calls else content, tuple(calls), broken)


def as_plain_messages(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> list[dict[str, str]]:
    """Messages with nothing but roles and text: tools in the system message, calls and results in tags.

    Results that follow one another become one message of the user.
    """
    plain: list[dict[str, str]] = []
    results: list[str] = []
    for message in messages:
        content = str(message.get("content") or "")
        if message["role"] in ("tool", "function"):
            results.append(f"<tool_response>\n{content}\n</tool_response>")
            continue
        if results:
            plain.append({"role": "user", "content": "\n".join(results)})
            results = []
        calls = [written_call(call) for call in message.get("tool_calls") or ()]
        plain.append({"role": str(message["role"]), "content": "\n".join(part for part in (content, *calls) if part)})
    if results:
        plain.append({"role": "user", "content": "\n".join(results)})
    if tools:
        told = _INTRODUCTION.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
        if plain and plain[0]["role"] == "system":
            plain[0] = {"role": "system", "content": f"{plain[0]['content']}\n\n{told}"}
        else:
            plain.insert(0, {"role": "system", "content": told})
    return plain


def written_call(call: Mapping[str, Any]) -> str:
    """A call of the OpenAI form as a model writes it."""
    function = call["function"]
    arguments = function.get("arguments") or "{}"
    if isinstance(arguments, str):
        with suppress(ValueError):
            arguments = json.loads(arguments)
    body = json.dumps({"name": function["name"], "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def _read(body: str, tools: Sequence[Mapping[str, Any]]) -> ToolCall | None:
    function = _FUNCTION.fullmatch(body)
    return _read_xml(function, tools) if function else _read_json(body)


def _read_json(body: str) -> ToolCall | None:
    try:
        found = json.loads(body, strict=False)  # models leave line breaks in strings as they are
        if not isinstance(found, dict):
            return None
        arguments = found.get("arguments", found.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = json.loads(arguments, strict=False)
    except (ValueError, RecursionError):
        return None
    name = found.get("name")
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return ToolCall(name, arguments)


def _read_xml(function: re.Match[str], tools: Sequence[Mapping[str, Any]]) -> ToolCall | None:
    types = _types(function["name"], tools)
    arguments: dict[str, Any] = {}
    end = 0
    for parameter in _PARAMETER.finditer(function["parameters"]):
        if function["parameters"][end : parameter.start()].strip():
            return None
        end = parameter.end()
        value = parameter["value"].removeprefix("\n").removesuffix("\n")
        arguments[parameter["name"]] = _typed(value, types.get(parameter["name"], "string"))
    if function["parameters"][end:].strip():
        return None
    return ToolCall(function["name"], arguments)


def _types(name: str, tools: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    for tool in tools:
        function = tool.get("function")
        if isinstance(function, Mapping) and function.get("name") == name:
            parameters = function.get("parameters") or {}
            properties = parameters.get("properties") or {}
            return {
                key: str(value.get("type", "string")) for key, value in properties.items() if isinstance(value, dict)
            }
    return {}


def _typed(value: str, kind: str) -> Any:
    if kind == "string":
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
