"""`crrl grade`: order kept, resumable, and the exit codes that scripts rely on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from code_repair_rl.cli import app
from code_repair_rl.errors import BadInput
from code_repair_rl.tasks import Example, write_tasks
from tests.grading.sample import BAD, GOOD, answer, function_task


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "cache"))
    write_tasks(tmp_path / "tasks.jsonl", [function_task()])
    texts = [answer(BAD.replace("2", "3")), answer(GOOD), "no edit"]
    lines = [json.dumps({"task_id": "mean", "text": text, "model": "m"}) for text in texts]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def grade(files: Path, *options: str) -> tuple[int, list[str]]:
    arguments = ["grade", "--tasks", str(files / "tasks.jsonl"), "--answers", str(files / "answers.jsonl"), *options]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    return result.exit_code, result.stdout.splitlines()


def test_verdicts_come_in_the_order_of_the_answers(files: Path) -> None:
    code, lines = grade(files, "--json", "--out", str(files / "verdicts.jsonl"))
    rows = [json.loads(line) for line in lines]
    assert code == 0
    assert [row["outcome"] for row in rows] == ["failed", "passed", "edit-rejected"]
    assert [row["score"] for row in rows] == [0.0, 1.0, 0.0]
    assert all(row["task_id"] == "mean" and row["model"] == "m" for row in rows)
    assert rows[1]["tests"][0]["status"] == "passed" and not rows[1]["cached"]
    assert (files / "verdicts.jsonl").read_text().splitlines() == lines


def test_a_second_run_goes_on_where_the_first_one_ended(files: Path) -> None:
    grade(files)
    code, lines = grade(files, "--json")
    assert code == 0 and [json.loads(line)["cached"] for line in lines] == [True, True, False]


def test_without_json_a_summary_is_printed(files: Path) -> None:
    code, lines = grade(files)
    assert code == 0 and lines[-1].split() == ["3", "answers,", "1", "passed"]


def test_an_answer_without_a_verdict_is_an_error_of_the_machinery(files: Path) -> None:
    broken = function_task(hidden=(Example(call="mean([1])", expected="9"),))
    write_tasks(files / "tasks.jsonl", [broken])
    code, lines = grade(files, "--json")
    assert code == 3 and [json.loads(line)["score"] for line in lines] == [None, None, 0.0]


def test_bad_input_is_named(files: Path) -> None:
    (files / "answers.jsonl").write_text('{"task_id": "other", "text": ""}\n')
    with pytest.raises(BadInput, match="other"):
        grade(files)
