"""What is kept of a journey says what its evaluations said, and the page is written from that alone."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation import EvalResult, SampleResult, TaskResult, compare, compare_pooled
from code_repair_rl.pipelines.forgetting import Forgetting, kept_path
from code_repair_rl.pipelines.results import keep, page, pooled, read_records, record, study_tables
from code_repair_rl.recipes import compose
from code_repair_rl.runs import RunDir

PASSES = {"base": [0, 0, 0, 0], "sft": [1, 0, 2, 1], "control": [1, 1, 2, 1], "grpo": [2, 1, 3, 1]}


def result(name: str, passes: list[int], samples: int = 4) -> EvalResult:
    def sample(passed: bool) -> SampleResult:
        outcome = "passed" if passed else "failed"
        return SampleResult(outcome, passed, True, True, True, False, 20, True)

    tasks = tuple(
        TaskResult(f"t{n}", f"p{n % 3}", "comparison", 5, tuple(sample(i < passed) for i in range(samples)))
        for n, passed in enumerate(passes)
    )
    return EvalResult(
        name, "a-model", "set", "test", "digest", "exact-line", samples, 0.8, 96, 0, "bubblewrap", "1", 1.0, tasks
    )


def journey(folder: Path, seed: int, results: dict[str, EvalResult], recipe: str = "cpu-hour") -> RunDir:
    settings = compose(recipe, [f"seed={seed}"]).model_dump(mode="json")
    run = RunDir.create(folder, settings, resume=False)
    for name, found in results.items():
        run.write_eval(name, found.to_json())
    for stage in ("sft", "grpo", "control"):
        inner = RunDir.create(folder / stage, settings, resume=False)
        for step in (1, 2):
            inner.append_metrics(step, {"time/step_seconds": 30.0, "pass_rate": 0.1 * step, "noise": 1.0})
    return run


@pytest.fixture
def results() -> dict[str, EvalResult]:
    return {name: result(name, passes) for name, passes in PASSES.items()}


def test_a_record_says_what_the_evaluations_said(tmp_path: Path, results: dict[str, EvalResult]) -> None:
    kept = record(journey(tmp_path / "run", 3, results))
    assert {name: model["passed"] for name, model in kept["models"].items()} == PASSES
    assert kept["models"]["grpo"]["pass_at"]["1"][0] == pytest.approx(7 / 16, abs=1e-4)
    assert kept["training"]["grpo"]["minutes"] == 1.0
    assert kept["training"]["grpo"]["curve"][2] == {"pass_rate": 0.2}
    direct = compare(results["control"], results["grpo"]).pass_at[1].estimate
    said = next(one for one in kept["differences"] if one["before"] == "control")["pass_at"]["1"]["estimate"]
    assert said == pytest.approx([direct.value, direct.low, direct.high], abs=1e-4)


def test_seeds_are_pooled_as_the_comparison_pools_them(tmp_path: Path, results: dict[str, EvalResult]) -> None:
    other = {name: result(name, passes[::-1]) for name, passes in PASSES.items()}
    pairs = [(results["sft"], results["grpo"]), (other["sft"], other["grpo"])]
    records = [record(journey(tmp_path / str(n), n, found)) for n, found in enumerate((results, other))]
    expected = compare_pooled(pairs).pass_at[1].estimate
    found = pooled([((kept, "sft"), (kept, "grpo")) for kept in records])
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_seeds_that_were_asked_other_tasks_are_not_pooled(tmp_path: Path, results: dict[str, EvalResult]) -> None:
    other = {name: replace(found, tasks_sha256="other") for name, found in results.items()}
    records = [record(journey(tmp_path / str(n), n, found)) for n, found in enumerate((results, other))]
    assert pooled([((kept, "sft"), (kept, "grpo")) for kept in records]) is None


def test_the_page_has_a_row_for_every_model_and_seed(tmp_path: Path, results: dict[str, EvalResult]) -> None:
    for seed in (0, 1):
        keep(journey(tmp_path / f"run{seed}", seed, results), tmp_path / "kept")
    text = page(read_records(tmp_path / "kept"))
    assert text.count("| 0 | ") == 4 + 2
    assert "| 1 | grpo | 1.0 | 100.0 %" in text
    assert "| all 2 | grpo against control |" in text
    assert not math.isnan(float(text.split("grpo against sft | ")[1].split(" ")[0]))


def test_seeds_with_other_settings_stand_apart_and_say_what_differs(
    tmp_path: Path, results: dict[str, EvalResult]
) -> None:
    records = [record(journey(tmp_path / str(n), n, results)) for n in range(3)]
    records[2]["recipe"]["sft"]["steps"] = 7
    text = page(records)
    assert f"## `cpu-hour`, `sft.steps={records[0]['recipe']['sft']['steps']}`\n" in text
    assert "## `cpu-hour`, `sft.steps=7`\n" in text
    assert "| all 2 |" in text and "| all 3 |" not in text
    assert "sft.steps" not in page(records[:2])


def test_recipes_that_differ_in_their_reward_alone_are_held_against_each_other(
    tmp_path: Path, results: dict[str, EvalResult]
) -> None:
    claims = [record(journey(tmp_path / f"claim{seed}", seed, results)) for seed in (0, 1)]
    assert study_tables(claims) == ""
    other = {"sft": results["sft"], "grpo": result("grpo", [4, 0, 2, 2])}
    unit = record(journey(tmp_path / "unit", 1, other, recipe="study/similarity-only"))
    table = study_tables([*claims, unit])
    assert "| warm start alone | 0, 1 | 25.0 % | " in table
    assert "| GRPO of `study-similarity-only` | 1 | 50.0 % | " in table
    assert "| GRPO of `study-similarity-only` against GRPO of `cpu-hour` | 1 | +6.2 [" in table
    assert "| GRPO of `cpu-hour` against more SFT | 0, 1 | +12.5 [" in table
    unit["recipe"]["sft"]["steps"] = 7
    assert study_tables([*claims, unit]) == "", "the warm start differs, too"


def test_what_was_forgotten_is_kept_and_told(tmp_path: Path, results: dict[str, EvalResult]) -> None:
    run = journey(tmp_path / "run", 3, results)
    assert "broken" not in page([record(run)]) and record(run)["forgetting"] == {}
    path = kept_path(run, "grpo")
    path.parent.mkdir()
    path.write_text(json.dumps(asdict(Forgetting(160, 0.75, 0.125, 35, 0.5))))
    assert "| 3 | grpo | 12.5 % | 75.0 % | 0.500 |" in page([record(run)])


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
