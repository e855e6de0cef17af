"""A small set of tasks with all three splits, and what four models made of it."""

from pathlib import Path

import pytest

from code_repair_rl.evaluation import EvalResult
from code_repair_rl.tasks import Split, write_tasks
from tests.pipelines.judged import PASSES, result
from tests.training.conftest import task


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.jsonl"
    splits = [Split.TRAIN] * 4 + [Split.VALIDATION] * 2 + [Split.TEST] * 3
    write_tasks(path, [task(number, split) for number, split in enumerate(splits, start=1)])
    return path


@pytest.fixture
def results() -> dict[str, EvalResult]:
    """What each model of a journey answered."""
    return {name: result(name, passes) for name, passes in PASSES.items()}
