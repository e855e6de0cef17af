"""Rejection sampling: interrupted it goes on, and what is kept is worth learning, once, and of the right tasks."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.grading import Grader
from code_repair_rl.rollouts import Completion, Engine, Sampling
from code_repair_rl.rollouts.agent import Agent
from code_repair_rl.rollouts.ask import prompt_text
from code_repair_rl.rollouts.curate import Choice, Selection, Source, curate, is_held_out
from code_repair_rl.rollouts.episode import Ending, Episode
from code_repair_rl.rollouts.rejection import Progress, sample_rollouts
from code_repair_rl.rollouts.repair_loop import RepairLoop
from code_repair_rl.rollouts.scripted import ScriptedEngine
from code_repair_rl.runs import RolloutRow, RunDir, ToolCall, Turn
from code_repair_rl.tasks import Split, Task, messages
from tests.training.conftest import task

TASKS = [task(number) for number in range(1, 6)]
BY_ID = {one.task_id: one for one in TASKS}
SAMPLING = Sampling(max_new_tokens=300)


def edit(prompt: str, operator: str) -> str:
    line = re.search(r"    return x - (\d+)\n", prompt)
    assert line is not None
    return f"<<<<<<< SEARCH\n    return x - {line[1]}\n=======\n    return x {operator} {line[1]}\n>>>>>>> REPLACE"


def half(prompt: str, number: int) -> str:
    """Every other answer repairs the task; after a failure all do."""
    return edit(prompt, "+" if number % 2 or "undone" in prompt else "*")


class Counting(ScriptedEngine):
    def __init__(self) -> None:
        super().__init__(half)
        self.asked = 0

    def generate(
        self, prompts: Sequence[Sequence[int]], *, completions_per_prompt: int, sampling: Sampling
    ) -> list[list[Completion]]:
        self.asked += len(prompts)
        return super().generate(prompts, completions_per_prompt=completions_per_prompt, sampling=sampling)


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1) as grader:
        yield grader


def sampled(run: RunDir, grader: Grader, engine: Engine, agent: Agent | None = None, stop_after: int = 9) -> Progress:
    def stop(progress: Progress) -> None:
        if progress.done >= stop_after:
            raise KeyboardInterrupt

    return sample_rollouts(
        lambda: engine,
        grader,
        TASKS,
        run,
        hint="exact-line",
        samples=4,
        sampling=SAMPLING,
        agent=agent,
        batch_tasks=2,
        on_batch=stop,
    )


@pytest.fixture(scope="module")
def rows(grader: Grader, tmp_path_factory: pytest.TempPathFactory) -> list[RolloutRow]:
    run = RunDir.create(tmp_path_factory.mktemp("single") / "run", {"name": "rollout"}, resume=False)
    found = sampled(run, grader, Counting())
    assert (found.done, found.graded, found.passed, found.solved) == (5, 20, 10, 5)
    return list(run.all_rollouts())


def test_what_was_interrupted_is_gone_on_with_and_nothing_is_sampled_twice(
    rows: list[RolloutRow], grader: Grader, tmp_path: Path
) -> None:
    run = RunDir.create(tmp_path / "run", {"name": "rollout"}, resume=False)
    first, second = Counting(), Counting()
    with pytest.raises(KeyboardInterrupt):
        sampled(run, grader, first, stop_after=2)
    sampled(run, grader, second)
    assert (first.asked, second.asked) == (2, 3)
    assert [(row.key, row.text) for row in run.all_rollouts()] == [(row.key, row.text) for row in rows]


def test_rows_without_a_verdict_are_judged_again_and_not_sampled_again(grader: Grader, tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", {"name": "rollout"}, resume=False)
    sampled(run, grader, Counting())
    whole = run.rollouts(1)
    lost = [dataclasses.replace(row, score=None, passed=False, outcome="no-verdict", tests=()) for row in whole]
    run.write_rollouts(1, lost)

    def none() -> Engine:
        raise AssertionError("nothing is left to sample")

    sample_rollouts(none, grader, TASKS, run, hint="exact-line", samples=4, sampling=SAMPLING, batch_tasks=2)
    assert [(row.passed, row.score, row.outcome) for row in run.rollouts(1)] == [
        (row.passed, row.score, row.outcome) for row in whole
    ]


def test_attempts_that_our_machinery_lost_are_made_again_and_only_those(grader: Grader, tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", {"name": "rollout"}, resume=False)
    sampled(run, grader, Counting())
    whole = run.rollouts(1)
    gone = {"score": None, "passed": False, "outcome": "no-verdict", "text": "", "ending": "infrastructure"}
    lost = [dataclasses.replace(row, **gone) if n in (0, 1, 5) else row for n, row in enumerate(whole)]  # type: ignore[arg-type]
    run.write_rollouts(1, lost)
    engine = Counting()
    sampled(run, grader, engine)
    assert engine.asked == 2  # tasks: two attempts of one, and one of the other
    again = run.rollouts(1)
    assert [row.key for row in again] == [row.key for row in whole]
    assert all(row.score is not None for row in again)
    assert all(again[n] == row for n, row in enumerate(whole) if n not in (0, 1, 5))


def test_a_later_chance_is_not_the_same_as_an_earlier_one(grader: Grader, tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", {"name": "rollout"}, resume=False)
    sampled(run, grader, Counting())
    whole = run.rollouts(1)
    seeds: list[int] = []

    class Noting(Counting):
        def generate(self, prompts: Any, *, completions_per_prompt: int, sampling: Sampling) -> list[list[Completion]]:
            seeds.append(sampling.seed)
            return super().generate(prompts, completions_per_prompt=completions_per_prompt, sampling=sampling)

    gone = {"score": None, "passed": False, "outcome": "no-verdict", "text": "", "ending": "infrastructure"}
    for lost in ((0, 1), (1,)):  # of two, one came right
        rows = [dataclasses.replace(row, **gone) if n in lost else row for n, row in enumerate(whole)]  # type: ignore[arg-type]
        run.write_rollouts(1, rows)
        sampled(run, grader, Noting())
    assert len(set(seeds)) == len(seeds) == 2


class Broken:
    """An agent that never gets going."""

    description, max_turns, words_its_prompt = "broken", 3, True

    def attempt(self, engine: Engine, grader: Grader, tasks: Sequence[Task], **more: Any) -> list[list[Episode]]:
        evidence = "No module named 'litellm'"
        one = Episode(task_id="t", turns=(), ending=Ending.INFRASTRUCTURE, evidence=evidence)
        return [[one] * more["attempts_per_task"] for _ in tasks]


def test_where_nothing_gets_a_verdict_it_stops_and_says_why(grader: Grader, tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", {"name": "rollout"}, resume=False)
    for _ in range(2):  # started again, it tries again
        with pytest.raises(MachineryFailed, match=r"none of 8 attempts got a verdict.*litellm"):
            sampled(run, grader, Counting(), Broken())
    assert sampled(run, grader, Counting()).graded == 20  # and goes on once it is mended


def chosen(rows: Sequence[RolloutRow], choice: Choice = Choice()) -> Selection:
    return curate([Source("run", rows, BY_ID)], choice)[0]


def test_several_runs_are_chosen_from_together(rows: list[RolloutRow]) -> None:
    both = curate([Source("one", rows, BY_ID), Source("two", rows, BY_ID)], Choice(best=4))
    assert [one.task_id for one in both[0].kept] == sorted(BY_ID)
    assert both[1].kept == ()
    shorter = [dataclasses.replace(row, token_ids=row.token_ids[:1], patch=f"{row.patch}\n") for row in rows]
    better = curate([Source("one", rows, BY_ID), Source("two", shorter, BY_ID)], Choice(best=1))
    assert [len(one.kept) for one in better] == [0, len(BY_ID)]


def test_only_passes_are_kept_and_the_same_edit_once(rows: list[RolloutRow]) -> None:
    found = chosen(rows, Choice(best=4))
    assert [one.task_id for one in found.kept] == sorted(BY_ID)
    assert found.left_out == {"did not pass": 10, "the same edit is kept already": 5}
    first = found.kept[0]
    assert [message["role"] for message in first.messages] == ["system", "user", "assistant"]
    assert first.messages[:2] == tuple(messages(BY_ID[first.task_id], "exact-line"))
    assert first.learnt == (True,) * len(first.token_ids)
    assert first.document().endswith(first.messages[2]["content"])


def test_of_several_the_best_come_first(rows: list[RolloutRow]) -> None:
    passing = [row for row in rows if row.passed and row.task_id == "add-1"]
    long = dataclasses.replace(
        passing[0], sample=7, patch="other", files_after={"solution.py": "def add_1(x):\n    y = x\n    return y + 1\n"}
    )
    found = chosen([long, *passing], Choice(best=1))
    assert [one.source for one in found.kept] == [f"run/{passing[0].key}"]
    assert found.left_out == {"the same edit is kept already": 1, "the task has enough": 1}
    assert len(chosen([long, *passing], Choice(best=2)).kept) == 2


@pytest.mark.parametrize(
    ("change", "choice", "reason"),
    [
        ({"split": "test"}, Choice(), "split test"),
        ({"score": None}, Choice(), "no verdict"),
        ({"finish_reason": "length"}, Choice(), "cut off"),
        ({}, Choice(most_tokens=10), "too long"),
        ({"reward": 0.4}, Choice(least_reward=0.5), "reward below the threshold"),
        ({}, Choice(least_reward=0.5), "reward below the threshold"),
    ],
)
def test_what_is_left_out_has_its_reason(
    rows: list[RolloutRow], change: dict[str, object], choice: Choice, reason: str
) -> None:
    row = next(row for row in rows if row.passed)
    found = chosen([dataclasses.replace(row, **change)], choice)  # type: ignore[arg-type]
    assert (found.kept, found.left_out) == ((), {reason: 1})


def test_a_threshold_takes_what_did_not_pass_too(rows: list[RolloutRow]) -> None:
    failing = [dataclasses.replace(row, reward=0.1) for row in rows if not row.passed]
    assert len(chosen(failing, Choice(least_reward=0.1)).kept) == 5


def test_held_out_problems_are_put_aside(rows: list[RolloutRow]) -> None:
    found = chosen(rows, Choice(held_out_share=0.5))
    assert len(found.kept) + len(found.held_out) == 5
    assert {one.problem for one in found.held_out} == {p for p in BY_ID if is_held_out(p, 0.5)}


@settings(max_examples=50)
@given(st.lists(st.text(max_size=8), unique=True, max_size=30), st.floats(0, 1), st.floats(0, 1))
def test_a_smaller_share_holds_out_a_part_of_a_larger_one(problems: list[str], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert {p for p in problems if is_held_out(p, low)} <= {p for p in problems if is_held_out(p, high)}


def test_a_changed_task_is_refused(rows: list[RolloutRow]) -> None:
    other = {**BY_ID, "add-1": BY_ID["add-1"].model_copy(update={"description": "Something else."})}
    with pytest.raises(BadInput, match="no longer what was asked"):
        curate([Source("run", rows, other)], Choice())


def test_of_an_agents_conversation_the_last_answer_is_learnt(grader: Grader, tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", {"name": "rollout"}, resume=False)
    found = sampled(run, grader, ScriptedEngine(lambda p, n: edit(p, "+" if "undone" in p else "*")), RepairLoop())
    assert found.passed == found.graded == 20
    rows = list(run.all_rollouts())
    last, all_of_it = (chosen(rows, Choice(learn=which)).kept[0] for which in ("last", "all"))
    assert [message["role"] for message in last.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert [message.get("learn") for message in last.messages] == [None, None, False, None, True]
    assert [message.get("learn") for message in all_of_it.messages] == [None, None, True, None, True]
    row = rows[0]
    assert row.turns is not None
    drawn = [token for token, mark in zip(last.token_ids, last.learnt, strict=True) if mark]
    assert tuple(drawn) == row.token_ids[row.turns[2].start : row.turns[2].end]
    assert all_of_it.learnt == row.sampled
    assert row.split == Split.TRAIN


def test_an_answer_that_was_cut_off_is_not_learnt_though_a_later_one_passed(grader: Grader, tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", {"name": "rollout"}, resume=False)
    long = "I think. " * 60
    sampled(run, grader, ScriptedEngine(lambda p, n: edit(p, "+") if "cut off" in p else long), RepairLoop())
    kept = chosen(list(run.all_rollouts()), Choice(learn="all")).kept[0]
    row = next(row for row in run.all_rollouts() if row.task_id == kept.task_id)
    assert row.turns is not None
    assert [turn.finish_reason for turn in row.turns] == ["length", "", "stop"]
    assert [message.get("learn") for message in kept.messages] == [None, None, False, None, True]
    assert kept.learnt == row.uncut
    assert sum(kept.learnt) == row.turns[2].end - row.turns[2].start < row.sampled_tokens


def test_tool_calls_go_along(rows: list[RolloutRow]) -> None:
    row = next(row for row in rows if row.passed)
    turns = (
        Turn(
            role="assistant",
            text="",
            start=0,
            end=4,
            tool_calls=(ToolCall(name="bash", arguments='{"command": "ls"}', call_id="c1"),),
        ),
        Turn(role="tool", text="solution.py", start=4, end=6, call_id="c1"),
        Turn(role="assistant", text="done", start=6, end=len(row.token_ids)),
    )
    said = chosen([dataclasses.replace(row, turns=turns)]).kept[0].messages[2:]
    assert said[0]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
    ]
    assert said[1]["tool_call_id"] == "c1"
    assert prompt_text(said)
