"""Curated conversations (`crrl curate`) as training examples: exact tokens where they are this model's own, else the
conversation under its chat template. Only an assistant's words are learnt, and of those what the file says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from code_repair_rl.errors import BadInput, first_complaint
from code_repair_rl.rollouts.chat_format import TemplateFormat
from code_repair_rl.rollouts.tool_calls import read_tool_calls
from code_repair_rl.training.sft import Example


class _Row(BaseModel):
    """One line; see `rollouts.curate.Curated`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_id: str = ""
    problem: str = ""
    source: str = ""
    messages: list[dict[str, Any]]
    asked: int | None = None
    tools: list[dict[str, Any]] = []
    prompt_ids: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    learnt: tuple[bool, ...] = ()
    schema_version: int = 1


def curated_examples(path: Path, tokenizer: Any) -> list[Example]:
    """The examples of a file.

    A line needs `messages` only, each with `role` and `content`; `learn: false` in an assistant's message makes it
    context. Where a line has `prompt_ids` and they are what this tokenizer makes of the first messages, its `token_ids`
    are taken as they are.

    Raises:
        BadInput: the file cannot be read, a line is no such example, or there is nothing in it to learn; the error
            names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: U+2028 may stand within a string
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot be read ({error})", where=str(path), mend="make it with crrl curate") from error
    written = TemplateFormat(tokenizer, context_tokens=0)
    found = [
        _example(_read(line, f"{path}:{number}"), written, tokenizer, f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not found:
        raise BadInput("holds no example", where=str(path), mend="sample more attempts, or keep more of them")
    return found


def _read(line: str, where: str) -> _Row:
    try:
        row = _Row.model_validate_json(line)
    except ValidationError as error:
        raise BadInput(first_complaint(error), where=where) from error
    for number, message in enumerate(row.messages):
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str | None):
            raise BadInput(f"messages.{number}: a message has a role and a content", where=where)
        if message["role"] == "assistant" and message.get("content") is None and not message.get("tool_calls"):
            raise BadInput(f"messages.{number}: an answer has a content, or tool calls", where=where)
    asked = row.asked or 0
    if not 0 <= asked <= len(row.messages):
        raise BadInput(f"asked: there are {len(row.messages)} messages, not {asked}", where=where)
    if not any(_is_learnt(message) for message in row.messages[asked:]) or row.messages[0]["role"] == "assistant":
        raise BadInput("messages: there is no answer to learn, or none but answers", where=where)
    if len(row.learnt) != len(row.token_ids):
        raise BadInput("learnt: not as many marks as token_ids", where=where)
    return row


def _example(row: _Row, written: TemplateFormat, tokenizer: Any, where: str) -> Example:
    answers = (number for number, message in enumerate(row.messages) if message["role"] == "assistant")
    first = row.asked or next(answers)
    prompt = written.encode(row.messages[:first], row.tools)
    if row.prompt_ids == prompt and any(row.learnt):
        return _cut(row.prompt_ids, row.token_ids, row.learnt)
    for message in row.messages:
        called = len(message.get("tool_calls") or ())
        if called and called != len(read_tool_calls(str(message.get("content") or ""), row.tools).calls):
            raise BadInput(
                "tool calls that are not written in the answer's content need the exact tokens of this model",
                where=where,
                mend="sample with the model that is to be trained",
            )
    ids: list[int] = []
    learnt: list[bool] = []
    for number in range(first, len(row.messages)):
        if row.messages[number]["role"] != "assistant":
            continue
        answer = [*tokenizer.encode(row.messages[number]["content"], add_special_tokens=False), tokenizer.eos_token_id]
        ids += answer
        learnt += [_is_learnt(row.messages[number])] * len(answer)
        if number < len(row.messages) - 1:
            tail = written.encode_tail(_until_next_answer(row.messages, number), number, stopped=True, tools=row.tools)
            ids += tail
            learnt += [False] * len(tail)
    return _cut(prompt, ids, learnt)


def _cut(prompt: Sequence[int], ids: Sequence[int], learnt: Sequence[bool]) -> Example:
    """What comes before the first learnt token is prompt; what comes after the last is not needed."""
    begin, end = learnt.index(True), len(learnt) - list(reversed(learnt)).index(True)
    return Example((*prompt, *ids[:begin]), tuple(ids[begin:end]), tuple(learnt[begin:end]))


def _until_next_answer(messages: Sequence[Mapping[str, Any]], answer: int) -> list[Mapping[str, Any]]:
    stop = answer + 1
    while stop < len(messages) and messages[stop]["role"] != "assistant":
        stop += 1
    return list(messages[:stop])


def _is_learnt(message: Mapping[str, Any]) -> bool:
    return message["role"] == "assistant" and message.get("learn", True) is True
