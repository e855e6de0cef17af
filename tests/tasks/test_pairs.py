"""Users' before/after pairs become repair tasks, and a bad line is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from code_repair_rl.edits import parse
from code_repair_rl.errors import BadInput
from code_repair_rl.tasks import Split, oracle_answer, read_pairs, split_of, write_tasks


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_smallest_pair_is_enough(tmp_path: Path) -> None:
    (task,) = read_pairs(written(tmp_path, {"before": "x = 1\ny = 2\n", "after": "x = 1\ny = 3\n"}))
    assert task.task_id == "pairs/1"
    assert task.files == {"solution.py": "x = 1\ny = 2\n"}
    assert task.files_after_oracle() == {"solution.py": "x = 1\ny = 3\n"}
    assert [line.number for line in task.hints.exact_lines] == [2]
    assert task.split is split_of("pairs/1")
    assert parse(oracle_answer(task)).apply(task.files) == task.files_after_oracle()


def test_a_pair_of_trees_keeps_only_what_changes_in_the_oracle(tmp_path: Path) -> None:
    row = {
        "id": "mine/7",
        "problem": "mine",
        "split": "test",
        "licence": "MIT",
        "description": "Totals are off.",
        "before": {"a.py": "a = 1\n", "b.py": "b = 1\n", "old.py": "o\n"},
        "after": {"a.py": "a = 2\n", "b.py": "b = 1\n", "old.py": None, "new.py": "n\n"},
    }
    path = written(tmp_path, row)
    (task,) = read_pairs(path)
    assert task.oracle == {"a.py": "a = 2\n", "old.py": None, "new.py": "n\n"}
    assert (task.task_id, task.problem, task.split, task.licence) == ("mine/7", "mine", Split.TEST, "MIT")
    write_tasks(tmp_path / "tasks.jsonl", [task])
    assert (tmp_path / "tasks.jsonl").read_text().count("\n") == 1


def test_lines_with_the_same_code_before_are_one_problem(tmp_path: Path) -> None:
    row = {"before": "x = 1\n", "after": "x = 2\n"}
    named = {"before": {"a.py": "x = 1\n"}, "after": {"a.py": "x = 3\n"}}
    tasks = read_pairs(written(tmp_path, row, row, named, {**row, "problem": "mine"}, {**row, "before": "x = 3\n"}))
    assert [task.problem for task in tasks] == ["pairs/1", "pairs/1", "pairs/1", "mine", "pairs/5"]
    assert len({task.split for task in tasks[:3]}) == 1


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"before": "x"}, r"pairs\.jsonl:2: after: Field required"),
        ({"before": "x", "after": "y", "aftr": "z"}, r"pairs\.jsonl:2: aftr: Extra inputs"),
        ({"before": "x", "after": "x"}, r"pairs\.jsonl:2: after: nothing differs"),
        ({"before": {"a.py": 3}, "after": "x"}, r"pairs\.jsonl:2: before"),
        ({"before": "x", "after": "y", "split": "dev"}, r"pairs\.jsonl:2: split"),
        ({"before": "x", "after": "y", "id": "first"}, r"pairs\.jsonl:2: id: 'first' is on line 1 already"),
        ({"before": {"../x.py": "x"}, "after": {"../x.py": "y"}}, r"pairs\.jsonl:2: files: '\.\./x\.py' does not name"),
        ({"before": "x", "after": {"/y.py": "y"}}, r"pairs\.jsonl:2: oracle: '/y\.py' does not name a file"),
        ({"before": "a", "after": "b", "path": ""}, r"pairs\.jsonl:2: files: '' does not name a file"),
        (
            {"before": "a", "after": "b", "problem": "one", "split": "test"},
            r":2: split: problem 'one' is in split train",
        ),
        ([1], r"pairs\.jsonl:2: "),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: Any, complaint: str) -> None:
    first = {"before": "x", "after": "y", "id": "first", "problem": "one", "split": "train"}
    path = written(tmp_path, first, row)
    with pytest.raises(BadInput, match=complaint):
        read_pairs(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent\.jsonl: cannot be read"):
        read_pairs(tmp_path / "absent.jsonl")
