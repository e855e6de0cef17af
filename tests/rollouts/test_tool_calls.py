"""Tool calls as models write them: what is read, what is left as text, what is written for models without tools."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.rollouts.tool_calls import ToolCall, as_plain_messages, read_tool_calls, written_call

TOOL = {
    "type": "function",
    "function": {
        "name": "bash",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string"}, "seconds": {"type": "integer"}},
        },
    },
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(st.text(min_size=1), st.dictionaries(TEXT, VALUES, max_size=4))
def test_what_is_written_is_read_back(name: str, arguments: dict[str, Any]) -> None:
    if "</tool_call>" in json.dumps([name, arguments], ensure_ascii=False):
        return
    call = {"function": {"name": name, "arguments": json.dumps(arguments)}}
    read = read_tool_calls(f"I look.\n{written_call(call)}", [TOOL])
    assert read.calls == (ToolCall(name, arguments),)
    assert (read.content, read.broken) == ("I look.", 0)


@given(TEXT)
def test_any_text_is_read_without_an_error(text: str) -> None:
    for prefix in ("", "<tool_call>", "<tool_call><function=bash>", "<tool_call>{"):
        read = read_tool_calls(prefix + text, [TOOL])
        assert read.broken >= 0


def test_the_xml_form_types_its_parameters_by_the_tool() -> None:
    text = (
        "<tool_call>\n<function=bash>\n<parameter=command>\necho 1\n\necho 2\n</parameter>\n"
        "<parameter=seconds>\n5\n</parameter>\n</function>\n</tool_call>"
    )
    assert read_tool_calls(text, [TOOL]).calls == (ToolCall("bash", {"command": "echo 1\n\necho 2", "seconds": 5}),)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "bash", "arguments": {"command": "ls"}',
        '<tool_call>{"name": "bash" "arguments": {}}</tool_call>',
        '<tool_call>{"name": "bash", "arguments": [1]}</tool_call>',
        '<tool_call>["bash"]</tool_call>',
        "<tool_call>ls</tool_call>",
        "<tool_call><function=bash><parameter=command>ls</function></tool_call>",
        '<tool_call>{"arguments": {}}</tool_call>',
        "<tool_call>" + "[" * 50_000,
    ],
)
def test_a_broken_call_is_counted_and_stays_text(text: str) -> None:
    read = read_tool_calls(text, [TOOL])
    assert (read.calls, read.broken, read.content) == ((), 1, text)


def test_a_call_without_its_closing_tag_counts_where_its_json_is_whole() -> None:
    read = read_tool_calls('<tool_call>{"name": "bash", "arguments": "{\\"command\\": \\"ls\\"}"}', [TOOL])
    assert read.calls == (ToolCall("bash", {"command": "ls"}),)


def test_several_calls_and_a_broken_one() -> None:
    good = '<tool_call>{"name": "bash", "arguments": {}}</tool_call>'
    read = read_tool_calls(f"a {good} b <tool_call>?</tool_call> {good}", [TOOL])
    assert len(read.calls) == 2 and read.broken == 1 and "<tool_call>?</tool_call>" in read.content


def test_without_tools_nothing_is_read() -> None:
    text = '<tool_call>{"name": "bash", "arguments": {}}</tool_call> '
    assert read_tool_calls(text, []).content == text


def test_a_template_without_tools_gets_them_as_text() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
    plain = as_plain_messages(
        [
            {"role": "system", "content": "Be good."},
            {"role": "user", "content": "Go."},
            {"role": "assistant", "content": None, "tool_calls": [call, call]},
            {"role": "tool", "tool_call_id": "1", "content": "a"},
            {"role": "tool", "tool_call_id": "2", "content": "b"},
        ],
        [TOOL],
    )
    assert [message["role"] for message in plain] == ["system", "user", "assistant", "user"]
    assert plain[0]["content"].startswith("Be good.") and json.dumps(TOOL) in plain[0]["content"]
    assert len(read_tool_calls(plain[2]["content"], [TOOL]).calls) == 2
    assert plain[3]["content"].count("<tool_response>") == 2
