"""What is kept of a journey says what its evaluations said."""

import json
from pathlib import Path
from typing import Any

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation import EvalResult, compare
from code_repair_rl.pipelines.records import keep, read_records, record
from tests.pipelines.judged import PASSES, journey, result


def test_a_record_says_what_the_evaluations_said(tmp_path: Path, results: dict[str, EvalResult]) -> None:
    kept = record(journey(tmp_path / "run", 3, results))
    assert {name: model["passed"] for name, model in kept["models"].items()} == PASSES
    assert kept["models"]["grpo"]["pass_at"]["1"][0] == pytest.approx(7 / 16, abs=1e-4)
    assert kept["training"]["grpo"]["minutes"] == 1.0
    assert kept["training"]["grpo"]["curve"][2] == {"pass_rate": 0.2}
    direct = compare(results["control"], results["grpo"]).pass_at[1].estimate
    said = next(one for one in kept["differences"] if one["before"] == "control")["pass_at"]["1"]["estimate"]
    assert said == pytest.approx([direct.value, direct.low, direct.high], abs=1e-4)


def test_a_journey_without_its_result_is_refused(tmp_path: Path, results: dict[str, EvalResult]) -> None:
    del results["grpo"]
    with pytest.raises(BadInput, match="not finished"):
        record(journey(tmp_path / "run", 0, results))


@pytest.mark.parametrize("content", ["not json", "{}", '{"schema_version": 99}', "[]"])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(BadInput, match=r"x\.json"):
        read_records(tmp_path)


def test_records_are_small(tmp_path: Path) -> None:
    many: dict[str, Any] = {name: result(name, [1, 2, 0, 4] * 50) for name in PASSES}
    path = keep(journey(tmp_path / "run", 0, many), tmp_path / "kept")
    assert path.stat().st_size < 20_000
    assert json.loads(path.read_text())["asked"]["samples"] == 4
