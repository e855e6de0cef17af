"""The page is written from what is kept of journeys alone."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from code_repair_rl.evaluation import EvalResult, compare_pooled
from code_repair_rl.pipelines.forgetting import Forgetting, kept_path
from code_repair_rl.pipelines.records import keep, read_records, record
from code_repair_rl.pipelines.results import page, pooled, study_tables
from tests.pipelines.judged import PASSES, journey, result


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
    assert "| warm start alone | 0, 1 | 25.0 % [" in table
    assert "| GRPO of `study-similarity-only` | 1 | 50.0 % [" in table
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
