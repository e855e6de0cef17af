from __future__ import annotations

import json
from pathlib import Path

import pytest

from code_repair_rl.edits import diff
from code_repair_rl.errors import BadInput
from code_repair_rl.grading.answers import Answer, read_answers, with_tasks, write_predictions
from tests.grading.sample import BAD, GOOD, function_task


def test_answers_are_read_in_order(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"task_id": "a", "text": "x\u2028y"}\n\n{"task_id": "b", "text": "", "model": "m"}\n')
    assert read_answers(file) == [Answer("a", "x\u2028y"), Answer("b", "", "m")]


def test_swe_bench_predictions_go_out_and_come_in(tmp_path: Path) -> None:
    file = tmp_path / "predictions.jsonl"
    write_predictions(file, [Answer("a", "ignored", "m"), Answer("b", "", "m")], {0: "--- a/x\n"})
    assert json.loads(file.read_text().splitlines()[1]) == {
        "instance_id": "b", "model_name_or_path": "m", "model_patch": "",
    }  # fmt: skip
    assert read_answers(file) == [Answer("a", "--- a/x\n", "m"), Answer("b", "", "m")]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ('{"task_id": "a"}', "text is missing"),
        ('{"task_id": 3, "text": ""}', "task_id is missing or not a string"),
        ('{"task_id": "a", "text": "", "txt": ""}', "unknown key 'txt'"),
        ('{"instance_id": "a", "model_patch": "", "text": ""}', "unknown key 'text'"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"task_id": "a", "text": ""}\n' + line + "\n")
    with pytest.raises(BadInput, match=complaint) as caught:
        read_answers(file)
    assert str(caught.value).startswith(f"{file}:2")


def test_an_absent_file_and_an_unknown_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        read_answers(tmp_path / "none.jsonl")
    with pytest.raises(BadInput, match="'other'"):
        with_tasks([Answer("other", "")], [function_task()], "answers.jsonl")
    assert diff({"mean.py": BAD}, {"mean.py": GOOD})
