from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation import EvalResult, Progress, by_difficulty, difficulties, evaluate, summary
from code_repair_rl.evaluation.loop import changed_lines, sample_result
from code_repair_rl.grading import Grader, Outcome, Verdict
from code_repair_rl.rollouts import Completion, Sampling
from code_repair_rl.rollouts.repair_loop import RepairLoop
from code_repair_rl.rollouts.scripted import ScriptedEngine
from code_repair_rl.runs import RolloutRow, TestRecord, read_rows
from code_repair_rl.tasks import Kind, Origin, RepositoryTests, Split, Task
from tests.evaluation.tasks_for_tests import oracle_answer, task, wrong_answer

TASKS = [task(number, problem=f"p{number // 2}") for number in range(6)]
SAMPLING = Sampling(temperature=0.8, max_new_tokens=2000, seed=3)


def by_task(answers: dict[int, list[str]]) -> ScriptedEngine:
    """Tasks not named are answered rightly."""

    def answer(prompt: str, number: int) -> str:
        found = next(t for t in TASKS if t.description in prompt)
        scripted = answers.get(int(found.task_id.split("/")[1]))
        return scripted[number] if scripted else oracle_answer(found)

    return ScriptedEngine(answer)


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1) as found:
        yield found


def run(engine: ScriptedEngine, grader: Grader, samples_path: Path | None = None, **changes: object) -> EvalResult:
    arguments: dict[str, object] = {
        "name": "toy",
        "model": "scripted",
        "task_set": "toy",
        "hint": "exact-line",
        "samples": 2,
        "sampling": SAMPLING,
        "samples_path": samples_path,
        "batch_tasks": 2,
    }
    return evaluate(engine, TASKS, grader, **(arguments | changes))  # type: ignore[arg-type]


def test_every_kind_of_answer_is_counted_where_it_belongs(grader: Grader) -> None:
    script = {
        0: [wrong_answer(TASKS[0]), oracle_answer(TASKS[0])],
        1: ["I cannot.", ""],
        2: ["<<<<<<< SEARCH\nx = 1\n"] * 2,
    }
    result = run(by_task(script), grader)
    found = summary(result)
    assert [t.passed for t in result.tasks] == [1, 0, 0, 2, 2, 2]
    assert found.pass_at[1].value == pytest.approx((0.5 + 0 + 0 + 1 + 1 + 1) / 6)
    assert found.pass_at[2].value == pytest.approx(4 / 6)
    assert found.format_rate.value == pytest.approx(4 / 6)
    assert found.apply_rate.value == pytest.approx(4 / 6)
    assert found.right_place_rate.value == pytest.approx((0.5 + 1 + 1 + 1) / 4)
    assert found.outcomes == {"passed": 7, "edit-rejected": 4, "failed": 1}
    assert found.edit_precision.value == 1.0  # the oracle's own edits
    assert (found.tasks, found.problems, found.no_verdict) == (6, 3, 0)


def test_an_edit_that_changes_more_than_is_needed_is_less_precise(grader: Grader) -> None:
    wordy = "<<<<<<< SEARCH\n    return y - 1\n=======\n    z = y\n    return z + 1\n>>>>>>> REPLACE"
    wrong = wrong_answer(TASKS[1])
    result = run(by_task({0: [wordy, oracle_answer(TASKS[0])], 1: [wrong, "nothing"]}), grader)
    first, second = result.tasks[0].samples, result.tasks[1].samples
    # 2 tokens change in the oracle (`-` to `+`); here `- ` and `y` go, and `z = y \n`, `z`, `+` come.
    assert first[0].passed
    assert 0 < (first[0].edit_precision or 0) < 0.5
    assert first[1].edit_precision == 1.0
    assert second[0].edit_precision == 1.0  # 0 to 7 is as small as the oracle's, and wrong
    assert second[1].edit_precision is None
    precise = summary(result).edit_precision
    assert precise.tasks == 5  # of answers that pass only
    assert precise.value == pytest.approx(((first[0].edit_precision or 0) / 2 + 0.5 + 4) / 5)


def test_difficulty_is_told_by_other_answers_than_those_that_are_measured() -> None:
    from tests.evaluation.test_comparison import result

    base = result("base", [[True, True, False, False], [False, False, True, True], [True, False, True, False]])
    told = difficulties(base)
    assert told == {"t0": "always passed", "t1": "never passed", "t2": "passed at times"}
    own = by_difficulty(base, told, is_reference=True)
    assert [own[name].value for name in ("never passed", "passed at times", "always passed")] == [1.0, 0.5, 0.0]
    other = by_difficulty(result("b", [[True] * 4] * 3), told, is_reference=False)
    assert all(found.value == 1.0 for found in other.values())
    assert by_difficulty(result("c", [[True]]), difficulties(result("c", [[True]])), is_reference=True) == {}


def test_a_result_comes_back_from_its_file(grader: Grader, tmp_path: Path) -> None:
    result = run(by_task({}), grader)
    result.write(tmp_path / "eval.json")
    assert EvalResult.read(tmp_path / "eval.json") == result
    plain = json.loads((tmp_path / "eval.json").read_text())
    assert plain["summary"]["pass_at"]["1"]["value"] == 1.0
    for sample in (sample for one in plain["tasks"] for sample in one["samples"]):
        del sample["edit_precision"]  # as files were written before it was measured
    assert EvalResult.from_json(plain, where="older").tasks[0].samples[0].edit_precision is None


def test_a_damaged_result_is_refused_by_key(grader: Grader, tmp_path: Path) -> None:
    plain = run(by_task({}), grader).to_json()
    path = tmp_path / "eval.json"
    path.write_text(json.dumps(plain | {"samples": "many"}))
    with pytest.raises(BadInput, match=r"eval\.json.*samples"):
        EvalResult.read(path)
    path.write_text(json.dumps(plain | {"colour": "red"}))
    with pytest.raises(BadInput, match="colour"):
        EvalResult.read(path)
    path.write_text("[]")
    with pytest.raises(BadInput, match="not an evaluation"):
        EvalResult.read(path)


class Interrupted(ScriptedEngine):
    """Stops the run after some batches, and counts what was asked of it."""

    def __init__(self, batches: int) -> None:
        super().__init__(lambda prompt, number: "" if number else "no edit")
        self.left = batches
        self.seeds: list[int] = []

    def generate(
        self, prompts: Sequence[Sequence[int]], *, completions_per_prompt: int, sampling: Sampling
    ) -> list[list[Completion]]:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.seeds.append(sampling.seed)
        return super().generate(prompts, completions_per_prompt=completions_per_prompt, sampling=sampling)


def test_an_interrupted_evaluation_goes_on_without_sampling_again(grader: Grader, tmp_path: Path) -> None:
    first, second, whole = Interrupted(2), Interrupted(9), Interrupted(9)
    with pytest.raises(KeyboardInterrupt):
        run(first, grader, tmp_path / "samples")
    told: list[Progress] = []
    result = run(second, grader, tmp_path / "samples", on_batch=told.append)
    assert [p.read_back for p in told] == [True, True, False]
    assert (told[-1].done, told[-1].total) == (6, 6)
    expected = run(whole, grader)
    assert first.seeds + second.seeds == whole.seeds
    assert len(set(whole.seeds)) == 3
    assert dataclasses.replace(result, wall_seconds=0) == dataclasses.replace(expected, wall_seconds=0)
    rows = [row for path in sorted((tmp_path / "samples").glob("*.parquet")) for row in read_rows(path)]
    assert len(rows) == 12


def test_another_evaluation_in_the_same_place_is_refused(grader: Grader, tmp_path: Path) -> None:
    run(by_task({}), grader, tmp_path / "samples")
    with pytest.raises(BadInput, match="differ in model, samples"):
        run(by_task({}), grader, tmp_path / "samples", model="other", samples=1)


class Unsteady(Grader):
    """A grader whose machinery fails at first."""

    failing = True

    def grade(self, task: Task, completion_text: str) -> Verdict:
        if self.failing:
            return Verdict(Outcome.NO_VERDICT, evidence=("no worker",))
        return super().grade(task, completion_text)


def test_answers_without_a_verdict_leave_the_figures_and_are_graded_when_run_again(tmp_path: Path) -> None:
    with Unsteady(workers=1) as grader:
        found = summary(run(by_task({}), grader, tmp_path / "samples"))
        assert (found.samples, found.no_verdict) == (0, 12)
        assert found.pass_at[1].method == "none"
        grader.failing = False
        engine = Interrupted(0)  # would stop if it were asked for anything
        assert summary(run(engine, grader, tmp_path / "samples")).pass_at[1].value == 1.0


def test_tasks_with_long_prompts_are_left_out_and_counted(grader: Grader) -> None:
    engine = by_task({})
    with pytest.raises(BadInput, match="no tasks to evaluate on"):
        run(engine, grader, max_prompt_tokens=10)
    assert run(engine, grader, max_prompt_tokens=100_000).left_out == 0


@pytest.mark.parametrize(
    ("before", "after", "touched"),
    [
        ("a\nb\nc\n", "a\nX\nc\n", {2}),
        ("a\nb\nc\n", "a\nc\n", {2}),
        ("a\nb\nc\n", "a\nb\nX\nc\n", {2, 3}),
        ("a\n", "a\n", set()),
        ("", "a\n", {0, 1}),
    ],
)
def test_the_lines_that_an_edit_touches(before: str, after: str, touched: set[int]) -> None:
    assert changed_lines(before, after) == touched


def test_an_agents_attempts_are_counted_by_their_turns(grader: Grader, tmp_path: Path) -> None:
    """Tasks are repaired at the second answer, but for the first task, which never is."""

    def answer(prompt: str, number: int) -> str:
        found = next(t for t in TASKS if t.description in prompt)
        first = "Your edit" not in prompt
        return wrong_answer(found) if first or found is TASKS[0] else oracle_answer(found)

    result = run(ScriptedEngine(answer), grader, tmp_path / "samples", agent=RepairLoop(max_turns=3))
    found = summary(result)
    assert {k: one.value for k, one in found.pass_within.items()} == pytest.approx({1: 0, 2: 5 / 6, 3: 5 / 6})
    assert found.mean_turns == pytest.approx((5 * 2 + 3) / 6)
    assert found.mean_tokens == pytest.approx(
        sum(row.sampled_tokens for path in (tmp_path / "samples").glob("*.parquet") for row in read_rows(path)) / 12
    )
    assert EvalResult.from_json(result.to_json(), where="") == result
    with pytest.raises(BadInput, match="agent"):
        run(ScriptedEngine(answer), grader, tmp_path / "samples", agent=RepairLoop(max_turns=2))


def _repository_row(outcome: str, statuses: dict[str, str]) -> RolloutRow:
    return RolloutRow(
        step=0, task_id="t", problem="p", split="test", group=0, sample=0, hint="none", prompt="", prompt_ids=(),
        token_ids=(1,), logprobs=(-1.0,), text="", finish_reason="stop", outcome=outcome, passed=outcome == "passed",
        score=0.0, tests=tuple(TestRecord(name=name, status=status) for name, status in statuses.items()),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "statuses", "held"),
    [
        ("passed", {"t.py::named": "passed", "t.py::hidden": "passed", "t.py::old": "passed"}, True),
        ("failed", {"t.py::named": "passed", "t.py::hidden": "failed", "t.py::old": "passed"}, True),
        ("failed", {"t.py::named": "failed", "t.py::hidden": "failed", "t.py::old": "passed"}, False),
        ("failed", {"t.py::named": "passed", "t.py::hidden": "passed", "t.py::old": "failed"}, False),
        ("crashed", {}, False),
        ("syntax-error", {}, False),
        ("edit-rejected", {}, False),
    ],
)
def test_an_answer_to_a_repository_task_holds_up_by_the_tests_that_an_agent_sees(
    outcome: str, statuses: dict[str, str], held: bool
) -> None:
    tests = RepositoryTests(fail_to_pass=("t.py::named", "t.py::hidden"), pass_to_pass=("t.py::old",))
    task = Task(
        task_id="t", kind=Kind.REPAIR, files={"a.py": "x = 1\n"}, description="t.py::named fails", tests=tests,
        oracle={"a.py": "x = 2\n"}, split=Split.TEST, problem="p", origin=Origin(source="tests"), licence="MIT",
    )  # fmt: skip
    assert sample_result(task, _repository_row(outcome, statuses)).holds_up is held
    blind = task.model_copy(update={"description": "it fails"})  # nothing tells whether a repair worked
    assert sample_result(blind, _repository_row("failed", statuses)).holds_up is True
