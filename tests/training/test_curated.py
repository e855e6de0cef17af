"""Curated conversations as examples: the model's own tokens exactly, other models' words by its template."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from code_repair_rl.edits import diff
from code_repair_rl.errors import BadInput
from code_repair_rl.grading import Outcome, Verdict
from code_repair_rl.models import TINY_MODEL, load_model, load_tokenizer
from code_repair_rl.recipes import ModelSection, SftSection
from code_repair_rl.rollouts import Completion, FinishReason, Sampling
from code_repair_rl.rollouts.ask import Answer, row_of
from code_repair_rl.rollouts.chat_format import TemplateFormat
from code_repair_rl.rollouts.curate import Choice, Source, as_plain, curate
from code_repair_rl.rollouts.episode import ChatMessage, Ending, Episode
from code_repair_rl.rollouts.sessions import Session
from code_repair_rl.runs import CompositeListener, RunDir, RunRecorder, read_rows, write_rows
from code_repair_rl.tasks import Kind, Origin, Split, Task
from code_repair_rl.training.curated import curated_examples
from code_repair_rl.training.sft import Example, train_sft
from code_repair_rl.training.shared_prefix import plain_logprobs
from tests.rollouts.test_sessions import QWEN_LIKE, TOOLS

TOKENIZER = load_tokenizer(TINY_MODEL)
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Fix."},
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": "first ☃", "learn": False},
    {"role": "user", "content": "it fails"},
    {"role": "assistant", "content": "second"},
]


def written(path: Path, *lines: Mapping[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def text(ids: Sequence[int]) -> str:
    return str(TOKENIZER.decode(list(ids)))


def whole(messages: list[dict[str, Any]]) -> str:
    plain = [{"role": one["role"], "content": one["content"]} for one in messages]
    return str(TOKENIZER.apply_chat_template(plain, tokenize=False)).rstrip("\n")


def test_messages_are_written_as_the_template_writes_them(tmp_path: Path) -> None:
    example = curated_examples(written(tmp_path / "a.jsonl", {"messages": CONVERSATION}), TOKENIZER)[0]
    assert text([*example.prompt_ids, *example.answer_ids]) == whole(CONVERSATION)
    assert text(example.answer_ids) == "second<|im_end|>"
    assert all(example.learnt)


def test_where_all_answers_are_learnt_what_stands_between_them_is_not(tmp_path: Path) -> None:
    messages = [{**one, "learn": True} if one["role"] == "assistant" else one for one in CONVERSATION]
    example = curated_examples(written(tmp_path / "a.jsonl", {"messages": messages}), TOKENIZER)[0]
    learnt = [token for token, mark in zip(example.answer_ids, example.learnt, strict=True) if mark]
    assert text(learnt) == "first ☃<|im_end|>second<|im_end|>"
    assert text([*example.prompt_ids, *example.answer_ids]) == whole(messages)
    assert len(example.labels) == len(example.prompt_ids) + len(example.answer_ids)


def test_the_models_own_tokens_are_taken_as_they_are(tmp_path: Path) -> None:
    prompt = TemplateFormat(TOKENIZER, 0).encode(CONVERSATION[:2])
    sampled = (7, 8, 9, 10, 11)
    line = {
        "messages": CONVERSATION[:3],
        "prompt_ids": prompt,
        "token_ids": sampled,
        "learnt": [False, True, False, True, False],
    }
    line["messages"] = [*CONVERSATION[:2], {"role": "assistant", "content": "other words"}]
    example = curated_examples(written(tmp_path / "a.jsonl", line), TOKENIZER)[0]
    assert example == Example((*prompt, 7), (8, 9, 10), (True, False, True))
    line["prompt_ids"] = (*prompt, 5)  # another model's tokens: its words are taken
    example = curated_examples(written(tmp_path / "b.jsonl", line), TOKENIZER)[0]
    assert text(example.answer_ids) == "other words<|im_end|>"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({}, "messages"),
        ({"messages": CONVERSATION, "more": 1}, "more"),
        ({"messages": CONVERSATION[:2]}, "no answer to learn"),
        ({"messages": CONVERSATION[:3]}, "no answer to learn"),
        ({"messages": [{"role": "user"}, {"content": "x"}]}, "a role and a content"),
        ({"messages": CONVERSATION, "token_ids": [1, 2]}, "as many marks"),
        ({"messages": [*CONVERSATION[:2], {"role": "assistant"}]}, "a content, or tool calls"),
        ({"messages": [*CONVERSATION[:2], {"role": "assistant", "content": None}]}, "a content, or tool calls"),
        ({"messages": CONVERSATION, "asked": 99}, "5 messages, not 99"),
        ({"messages": CONVERSATION, "asked": 5}, "no answer to learn"),
        ({"messages": [*CONVERSATION[:2], {"role": "assistant", "content": "", "tool_calls": [{}]}]}, "exact tokens"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    path = written(tmp_path / "bad.jsonl", {"messages": CONVERSATION}, line)
    with pytest.raises(BadInput, match=message) as error:
        curated_examples(path, TOKENIZER)
    assert "bad.jsonl:2" in str(error.value)


def test_an_empty_or_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no example"):
        curated_examples(written(tmp_path / "empty.jsonl"), TOKENIZER)
    with pytest.raises(BadInput, match="cannot be read"):
        curated_examples(tmp_path / "absent.jsonl", TOKENIZER)


def test_the_loss_is_that_of_the_learnt_tokens_alone(tmp_path: Path) -> None:
    """The trainer's own first loss on two examples, held against a plain forward of each."""
    found = curated_examples(
        written(
            tmp_path / "a.jsonl",
            {"messages": [{**one, "learn": True} if one["role"] == "assistant" else one for one in CONVERSATION]},
            {"messages": CONVERSATION},
        ),
        TOKENIZER,
    )
    model = load_model(TINY_MODEL)
    expected, count = 0.0, 0
    for one in found:
        logprobs = plain_logprobs(model, [list(one.prompt_ids)], [[list(one.answer_ids)]]).logprobs[0]
        marks = torch.tensor(one.learnt)
        expected -= float(logprobs[marks].sum().detach())
        count += int(marks.sum())
    run = RunDir.create(tmp_path / "run", {"name": "test"}, resume=False)
    listener = CompositeListener(RunRecorder())
    listener.on_start(run, 1)
    train_sft(
        model,
        TOKENIZER,
        found,
        settings=SftSection(steps=1, batch_size=2, warmup_steps=0),
        model_settings=ModelSection(name=TINY_MODEL, autocast="none"),
        seed=0,
        run=run,
        listener=listener,
    )
    assert run.metrics()[0].values["train/loss"] == pytest.approx(expected / count, rel=1e-3)


@pytest.mark.parametrize("knows_tools", [True, False])
def test_what_an_agents_program_asked_and_was_answered_is_learnt_as_it_was_sampled(
    tmp_path: Path, knows_tools: bool
) -> None:
    tokenizer = load_tokenizer(TINY_MODEL)
    if knows_tools:
        tokenizer.chat_template = QWEN_LIKE
    chat = TemplateFormat(tokenizer, 8192)
    session = Session("s", chat, Sampling())
    opening: list[ChatMessage] = [
        {"role": "system", "content": "You have a shell."},
        {"role": "user", "content": "For example"},
        {"role": "assistant", "content": "An example that nobody sampled"},
        {"role": "user", "content": "Fix"},
    ]
    asked = list(opening)
    for text_of in ('<tool_call>{"name": "bash", "arguments": {"command": "ls"}}</tool_call>', "Done."):
        prepared = session.prepare(asked, TOOLS)
        ids = (*chat._ids(text_of), tokenizer.eos_token_id)
        sampled = Completion(prepared.prompt_ids, ids, (-0.5,) * len(ids), chat.decode(ids), FinishReason.STOP)
        (choice,) = session.record(prepared, [sampled])
        asked.append(choice.message)
        for call in choice.message.get("tool_calls") or ():
            asked.append({"role": "tool", "tool_call_id": call["id"], "content": "cart.py"})
    chain = session.longest()
    task = Task(
        task_id="t", kind=Kind.REPAIR, files={"a.py": "x = 1\n"}, description="d", oracle={"a.py": "x = 2\n"},
        tests=None, split=Split.TRAIN, problem="p", origin=Origin(source="tests"), licence="MIT",
    )  # fmt: skip
    episode = Episode(
        task_id="t", turns=chain.turns, ending=Ending.FINISHED, messages=chain.messages, answers=chain.answers,
        tools=chain.tools,
        patch=str(diff(task.files, {"a.py": "x = 2\n"})), forks=1,
    )  # fmt: skip
    answer = Answer(task, episode.completion(), Verdict(Outcome.PASSED), episode)
    write_rows(tmp_path / "rows.parquet", [row_of(answer, step=1, group=0, sample=0, hint="none", prompt="the task's")])
    (row,) = read_rows(tmp_path / "rows.parquet")
    assert "You have a shell." in row.prompt
    assert (row.agent_counts, row.ending) == ({"forks": 1}, "finished")
    ((kept,),) = [one.kept for one in curate([Source("run", [row], {"t": task})], Choice())]
    (example,) = curated_examples(written(tmp_path / "a.jsonl", as_plain(kept)), tokenizer)
    assert (*example.prompt_ids, *example.answer_ids) == (*row.prompt_ids, *row.token_ids)
    assert example.learnt == row.sampled
    anew = dataclasses.replace(kept, prompt_ids=(), token_ids=(), learnt=())  # as another model has to write it
    (other,) = curated_examples(written(tmp_path / "b.jsonl", as_plain(anew)), tokenizer)
    assert "nobody sampled" in text(other.prompt_ids)
    assert "Done." in text(other.answer_ids)
    with pytest.raises(BadInput, match="no longer what was asked"):
        curate([Source("run", [row], {"t": task.model_copy(update={"files": {"a.py": "y\n"}})})], Choice())
