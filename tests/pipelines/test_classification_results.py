"""What is kept of an experiment with classifiers, and the tables that are made of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from code_repair_rl.evaluation.classification import classification_path
from code_repair_rl.pipelines.classification_results import keep, record, table
from code_repair_rl.runs import RunDir
from tests.evaluation.test_classification import B, V, classified, result, said
from tests.reporting.recorded import recorded_run

DOCS = Path(__file__).parents[2] / "docs" / "results" / "classification"


def _kept(run: RunDir, name: str, right: bool) -> None:
    tasks = [
        classified(V if n % 2 else B, *[said(V if (n % 2) == right else B, 2, f1=0.5)] * 4, number=n, pair=str(n // 2))
        for n in range(8)
    ]
    found = dataclasses.replace(result(*tasks), name=name, notes=("NOTHING IS CLAIMED here",))
    path = classification_path(run, name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found.to_json()))


def test_a_record_holds_the_figures_and_their_comparison(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "run")
    _kept(run, "sft", right=False)
    _kept(run, "grpo", right=True)
    kept = record("classify-test", [(run, "sft"), (run, "grpo")], {"grpo": run})
    path = keep(tmp_path, kept)
    again = json.loads(path.read_text())
    assert again["models"]["grpo"]["scores"]["one sample"]["balanced_accuracy"][0] == 1.0
    assert again["differences"][0]["one_sample"][0] == 1.0
    assert again["training"]["grpo"]["steps"] > 0
    told = table(again)
    assert "**NOTHING IS CLAIMED here**" in told
    assert "grpo against sft, balanced accuracy: one answer +1.000" in told
    for who in ("random", "majority class", "bag of words", "citing every line", "sft, majority of 4"):
        assert f"| {who} |" in told


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.json")), ids=lambda path: path.stem)
def test_the_records_that_are_kept_can_be_shown(path: Path) -> None:
    assert table(json.loads(path.read_text("utf-8"))).startswith("## `")
