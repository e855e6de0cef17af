"""Sessions: recorded tokens are used again, only what is new is tokenised, forks and rewrites are counted."""

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_repair_rl.models import TINY_MODEL, load_tokenizer
from code_repair_rl.rollouts import Completion, FinishReason, Sampling
from code_repair_rl.rollouts.agent import recorded_turns
from code_repair_rl.rollouts.chat_format import ChatFormat, PlainFormat, TemplateFormat
from code_repair_rl.rollouts.episode import ChatMessage, Ending, Episode, spliced
from code_repair_rl.rollouts.sessions import Choice, Session, SessionEnded, SessionLimits

QWEN_LIKE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n"
    "</tool_response><|im_end|>\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS = ({"type": "function", "function": {"name": "bash", "parameters": {"type": "object", "properties": {}}}},)
USER: ChatMessage = {"role": "user", "content": "hello"}


def template(chat_template: str | None = None) -> TemplateFormat:
    tokenizer = load_tokenizer(TINY_MODEL)
    if chat_template:
        tokenizer.chat_template = chat_template
    return TemplateFormat(tokenizer, 8192)


@pytest.fixture(params=["plain", "template without tools", "template with tools"])
def chat(request: pytest.FixtureRequest) -> ChatFormat:
    if request.param == "plain":
        return PlainFormat()
    return template(QWEN_LIKE if "with tools" in request.param else None)


def answer(
    session: Session,
    chat: ChatFormat,
    messages: Sequence[ChatMessage],
    token_ids: Sequence[int],
    *,
    finish: FinishReason = FinishReason.STOP,
    choices: int = 1,
    stops: Sequence[str] = (),
    tools: Sequence[dict[str, object]] = (),
) -> list[Choice]:
    prepared = session.prepare(messages, tools)
    logprobs = tuple(-0.5 for _ in token_ids)
    one = Completion(prepared.prompt_ids, tuple(token_ids), logprobs, chat.decode(token_ids), finish)
    return session.record(prepared, [one] * choices, stops=stops)


def ids_of(chat: ChatFormat, text: str) -> tuple[int, ...]:
    """A text's tokens, with the end of turn."""
    if isinstance(chat, PlainFormat):
        return (*text.encode(), 256)
    assert isinstance(chat, TemplateFormat)
    return (*chat._ids(text), *chat._ids("<|im_end|>"))


def test_a_conversation_that_goes_on_is_tokenised_as_a_whole_one_would_be(chat: ChatFormat) -> None:
    session = Session("s", chat, Sampling())
    messages: list[ChatMessage] = [{"role": "system", "content": "Be good."}, USER]
    for turn in range(4):
        choice = answer(session, chat, messages, ids_of(chat, f"answer {turn}"))[0]
        messages += [choice.message, {"role": "user", "content": f"and {turn}? äöü \U0001f600"}]
    whole = session.prepare(messages)
    expected = chat.encode(messages)
    # A byte for the end of turn is the one token that the scripted engine's plain format does not write.
    assert tuple(token for token in whole.prompt_ids if token != 256) == tuple(t for t in expected if t != 256)
    assert (session.forks, session.rewrites) == (0, 0)


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(3, 258), min_size=1, max_size=12), min_size=2, max_size=5), st.randoms())
def test_the_tokens_are_those_that_were_sampled_whatever_they_spell(
    sampled: list[list[int]], chance: random.Random
) -> None:
    """Any bytes, also such as are no UTF-8, truncated or not, at every turn."""
    chat = TEMPLATE
    session = Session("s", chat, Sampling())
    messages: list[ChatMessage] = [USER]
    for tokens in sampled:
        stop = chance.random() < 0.5
        finish = FinishReason.STOP if stop else FinishReason.LENGTH
        choice = answer(session, chat, messages, [*tokens, *([2] if stop else [])], finish=finish)[0]
        messages += [choice.message, {"role": "user", "content": chance.choice(["", " \n", "ok", "﷽ é<|im_end|>"])}]
    turns, kept, *_ = session.longest()
    assert [list(turn.token_ids)[: len(tokens)] for turn, tokens in zip(turns, sampled, strict=True)] == sampled
    completion = spliced(turns, text="")
    drawn = [token for token, own in zip(completion.token_ids, completion.sampled, strict=True) if own]
    assert drawn == [token for turn in turns for token in turn.token_ids]
    assert all(logprob == 0.0 for logprob, own in zip(completion.logprobs, completion.sampled, strict=True) if not own)
    assert (session.forks, session.rewrites, len(kept)) == (0, 0, 2 * len(sampled))
    # What came between is the same whether an answer was cut or not, except for the end of the turn.
    for before, turn in pairwise(turns):
        between = chat._tokenizer.decode(turn.new_ids)
        assert between.startswith("\n" if before.finish_reason is FinishReason.STOP else "<|im_end|>\n")


TEMPLATE = template()


def test_a_tool_call_comes_back_as_one_and_its_result_is_new(chat: ChatFormat) -> None:
    session = Session("s", chat, Sampling())
    text = 'I look. <tool_call>\n{"name":  "bash", "arguments": {"command": "ls é"}}</tool_call>'
    choice = answer(session, chat, [USER], ids_of(chat, text), tools=TOOLS)[0]
    assert choice.finish_reason == "tool_calls" and choice.message["content"] == "I look."
    call = choice.message["tool_calls"][0]
    # As agents send it back: other fields, the arguments written anew.
    echoed = {
        "role": "assistant",
        "content": "I look.\n",
        "function_call": None,
        "tool_calls": [
            {**call, "function": {"name": "bash", "arguments": '{ "command" : "ls \\u00e9" }'}, "index": 0},
        ],
    }
    prepared = session.prepare([USER, echoed, {"role": "tool", "tool_call_id": call["id"], "content": "x"}], TOOLS)
    assert prepared.known == 2 and (session.forks, session.rewrites) == (0, 0)
    assert prepared.prompt_ids[: -len(prepared.new_ids)][-len(ids_of(chat, text)) :] == ids_of(chat, text)


def test_forks_and_rewrites_are_told_apart_and_the_longest_chain_is_kept(chat: ChatFormat) -> None:
    session = Session("s", chat, Sampling())
    first = answer(session, chat, [USER], ids_of(chat, "one"))[0].message
    more: ChatMessage = {"role": "user", "content": "more"}
    second = answer(session, chat, [USER, first, more], ids_of(chat, "two"))[0].message
    assert (session.forks, session.rewrites) == (0, 0)
    answer(session, chat, [USER, first, {"role": "user", "content": "other"}], ids_of(chat, "two b"))
    assert (session.forks, session.rewrites) == (1, 0)
    answer(session, chat, [USER], ids_of(chat, "again"))
    assert (session.forks, session.rewrites) == (2, 0)
    answer(session, chat, [USER, {"role": "assistant", "content": "never said"}, more], ids_of(chat, "?"))
    assert (session.forks, session.rewrites) == (2, 1)
    answer(session, chat, [USER, first, more, second, more], ids_of(chat, "three"))
    turns, messages, *_ = session.longest()
    assert [turn.text for turn in turns] == ["one", "two", "three"]
    assert [message["content"] for message in messages] == ["hello", "one", "more", "two", "more", "three"]


def test_answers_that_the_agent_put_there_itself_are_told_from_sampled_ones(chat: ChatFormat) -> None:
    session = Session("s", chat, Sampling())
    example: ChatMessage = {"role": "assistant", "content": "an example"}
    asked: list[ChatMessage] = [USER, example, USER]
    first = answer(session, chat, asked, ids_of(chat, "one"))[0].message
    asked += [first, USER, {"role": "assistant", "content": "never sampled"}, USER]
    answer(session, chat, asked, ids_of(chat, "two"))
    chain = session.longest()
    assert [chain.messages[place]["content"] for place in chain.answers] == ["one", "two"]
    episode = Episode("t", chain.turns, Ending.FINISHED, messages=chain.messages, answers=chain.answers)
    assert list(episode.opening) == asked[:3]
    turns = recorded_turns(episode)
    assert turns is not None
    assert [(turn.role, turn.text) for turn in turns if turn.role == "assistant"] == [
        ("assistant", "one"),
        ("assistant", "two"),
    ]
    assert [turn.text for turn in turns] == ["one", "hello", "never sampled", "hello", "two"]


def test_an_answer_without_tokens_may_hold_a_stop_text(chat: ChatFormat) -> None:
    session = Session("s", chat, Sampling())
    prepared = session.prepare([USER])
    untold = Completion((), (), (), "keep STOP not", FinishReason.STOP)
    (choice,) = session.record(prepared, [untold], stops=["STOP"])
    assert choice.message["content"] == "keep "


def test_several_choices_are_siblings_and_no_forks(chat: ChatFormat) -> None:
    session = Session("s", chat, Sampling())
    choices = answer(session, chat, [USER], ids_of(chat, "one"), choices=3)
    answer(session, chat, [USER, choices[1].message, USER], ids_of(chat, "two"))
    assert (session.forks, session.rewrites) == (0, 0)
    assert len(session.longest().turns) == 2


def test_a_stop_text_ends_text_and_tokens(chat: ChatFormat) -> None:
    session = Session("s", chat, Sampling())
    choice = answer(session, chat, [USER], ids_of(chat, "keep this STOP not this"), stops=["STOP", "not"])[0]
    assert (choice.message["content"], choice.finish_reason) == ("keep this ", "stop")
    assert chat.decode(choice.turn.token_ids) == "keep this STOP"
    assert len(choice.turn.logprobs) == len(choice.turn.token_ids)
    prepared = session.prepare([USER, choice.message, USER])
    assert prepared.known == 2 and prepared.new_ids[0] in (256, 2), "the end of the turn is put in"


def test_of_overlapping_stop_texts_the_one_that_is_complete_first_ends_the_answer(chat: ChatFormat) -> None:
    session = Session("s", chat, Sampling())
    choice = answer(session, chat, [USER], ids_of(chat, "aXYbcd"), stops=["XYbcd", "Y"])[0]
    assert (choice.message["content"], chat.decode(choice.turn.token_ids)) == ("aX", "aXY")


def test_turns_and_context_end_a_session_and_say_so(chat: ChatFormat) -> None:
    session = Session("s", chat, Sampling(), SessionLimits(max_turns=1))
    answer(session, chat, [USER], ids_of(chat, "one"))
    with pytest.raises(SessionEnded) as turns:
        session.prepare([USER])
    assert turns.value.ending is Ending.OUT_OF_TURNS
    short = Session("s", chat, Sampling(), SessionLimits(context_tokens=100))
    with pytest.raises(SessionEnded, match="maximum context length is 100 tokens") as full:
        short.prepare([{"role": "user", "content": "x " * 200}])
    assert full.value.ending is Ending.CONTEXT_FULL and short.ended is full.value
    with pytest.raises(SessionEnded):
        short.prepare([USER])


def test_an_answer_has_the_room_that_is_left() -> None:
    session = Session("s", PlainFormat(), Sampling(max_new_tokens=50), SessionLimits(context_tokens=100))
    prompt = len(PlainFormat().encode([USER]))
    assert session.prepare([USER]).max_new_tokens == 50
    longer: ChatMessage = {"role": "user", "content": "x" * (100 - prompt - 7 + len("hello"))}
    assert session.prepare([longer]).max_new_tokens == 7


def test_a_cut_off_answer_whose_last_token_completes_a_stop_text_did_not_end_its_turn(chat: ChatFormat) -> None:
    session = Session("s", chat, Sampling())
    cut = ids_of(chat, "abc STOP")[:-1]
    choice = answer(session, chat, [USER], cut, stops=["STOP"], finish=FinishReason.LENGTH)[0]
    assert (choice.finish_reason, choice.turn.token_ids) == ("stop", cut)
    prepared = session.prepare([USER, choice.message, USER])
    assert prepared.new_ids[0] in (256, 2), "the end of the turn is put in"


def test_the_end_of_turn_is_not_doubled_where_the_model_ends_turns_otherwise_than_texts() -> None:
    tokenizer = load_tokenizer(TINY_MODEL)
    tokenizer.chat_template = QWEN_LIKE
    end = tokenizer.encode("<|im_end|>", add_special_tokens=False)
    tokenizer.eos_token = "<|endoftext|>"
    chat = TemplateFormat(tokenizer, 8192, ends=["<|im_end|>"])
    messages: list[ChatMessage] = [USER, {"role": "assistant", "content": "A"}, USER]
    tails = [chat.encode_tail(messages, 1, stopped=stopped) for stopped in (True, False)]
    assert tails[1] == (*end, *tails[0])


def test_tool_calls_that_cannot_be_sent_are_mended(chat: ChatFormat) -> None:
    session = Session("s", chat, Sampling())
    text = '<tool_call>{"name":"bash","arguments":{"command":"echo \\ud83d"}}</tool_call>'
    choice = answer(session, chat, [USER], ids_of(chat, text), tools=TOOLS)[0]
    arguments = choice.message["tool_calls"][0]["function"]["arguments"]
    assert arguments.encode() == b'{"command": "echo ?"}'
    result: ChatMessage = {"role": "tool", "tool_call_id": choice.message["tool_calls"][0]["id"], "content": "?"}
    assert session.prepare([USER, choice.message, result], TOOLS).known == 2
    assert session.rewrites == 0


def test_each_request_has_a_seed_of_its_own_that_the_session_decides() -> None:
    seeds = []
    for seed in (1, 1, 2):
        session = Session("s", PlainFormat(), Sampling(seed=seed))
        seeds.append([session.prepare([USER]).seed for _ in range(3)])
    assert seeds[0] == seeds[1] != seeds[2] and len(set(seeds[0])) == 3


def test_an_answer_that_comes_after_the_end_is_not_kept() -> None:
    session = Session("s", PlainFormat(), Sampling())
    prepared = session.prepare([USER])
    late = Completion(prepared.prompt_ids, (65, 256), (0.0, 0.0), "A", FinishReason.STOP)
    session.close(Ending.FINISHED, "the agent has ended")
    with pytest.raises(SessionEnded):
        session.record(prepared, [late])
    assert session.longest() == ((), (), (), ())
