from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from code_repair_rl.errors import BadInput
from code_repair_rl.reporting import write_report
from code_repair_rl.reporting.curves import mean_interval, reward_against_truth, step_figures
from code_repair_rl.reporting.packing import packed
from code_repair_rl.reporting.rollout_data import line_operations
from code_repair_rl.runs import RunDir, Turn
from tests.reporting.recorded import HOSTILE, evaluation, recorded_run, rollout


def embedded(page: str, name: str) -> Any:
    found = re.search(rf'<script type="text/plain" id="{name}">([^<]*)</script>', page)
    assert found is not None
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def test_the_report_is_one_file_that_names_nothing_outside_itself(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "run")
    path = write_report([run])
    assert path == run.report_path
    page = path.read_text()
    assert "default-src 'none'" in page
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:,)""", page)
    assert "onerror" not in page
    assert HOSTILE[:30] not in page


def test_the_report_holds_every_rollout_and_every_evaluation(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "run")
    page = write_report([run]).read_text()
    index = embedded(page, "index")
    assert index["rollouts"]["count"] == 6 * 4 * 4 + 3 * 3 * 2
    assert [row["name"] for row in index["table"]] == ["base", "sft", "grpo"]
    assert [c["title"] for c in index["comparisons"]] == ["base → sft", "sft → grpo", "base → grpo"]
    rows = embedded(page, "chunk-0")["rows"]
    first = run.rollouts(1)[0]
    assert rows[0]["text"] == first.text
    assert [turn["role"] for turn in rows[0]["turns"]] == ["assistant", "tool", "assistant"]
    assert rows[1]["turns"] is None
    assert rows[1]["logprobs"] == [round(100 * p) for p in run.rollouts(1)[1].logprobs]
    assert rows[0]["tests"][0][3] == HOSTILE


def test_answers_are_counted_of_every_attempt_and_of_nothing_else() -> None:
    single = rollout(np.random.default_rng(0), 1, 0, 1, 1.0, "text")
    assert step_figures(1, [single])["turns"] is None
    roles = ("assistant", "user", "assistant", "user", "assistant")
    turns = tuple(Turn(role=role, text="", start=0, end=0) for role in roles)
    at_once = dataclasses.replace(single, ending="finished")
    in_the_end = dataclasses.replace(single, ending="out-of-turns", turns=turns)
    assert step_figures(1, [single, at_once, in_the_end])["turns"] == 2.0


def test_a_report_names_no_absolute_path_of_the_machine(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "deep" / "run", steps=1, seed=1)
    for name, model in (("own", run.path / "sft" / "model"), ("elsewhere", Path("/home/somebody/secret/models/big"))):
        result = dataclasses.replace(evaluation(name, 0.5, 1), model=str(model), task_set=str(model / "tasks.jsonl"))
        run.write_eval(name, result.to_json())
    recipe = yaml.safe_load(run.recipe_path.read_text()) | {"model": {"name": str(run.path / "sft" / "model")}}
    run.recipe_path.write_text(yaml.safe_dump(recipe))
    index = embedded(write_report([run]).read_text(), "index")
    assert str(tmp_path) not in json.dumps(index)
    assert "somebody" not in json.dumps(index)
    models = {row["name"]: row["model"] for row in index["table"]}
    assert models["own"] == "run/sft/model"
    assert models["elsewhere"] == "…/secret/models/big"
    assert index["runs"][0]["recipe"]["model"]["name"] == "run/sft/model"
    assert "argv" not in index["runs"][0]["environment"]


def test_a_conversation_is_shaded_turn_by_turn(tmp_path: Path) -> None:
    from code_repair_rl.models import load_tokenizer

    folder = tmp_path / "tokenizer"
    tokenizer = load_tokenizer("tiny-random")
    tokenizer.save_pretrained(folder)
    run = recorded_run(tmp_path / "run", steps=1, evaluations=False)
    row = run.rollouts(1)[0]
    said, told, last = (tokenizer.encode(text, add_special_tokens=False) for text in ("Run it.", "1 failed", "x + 1"))
    ids = (*said, *told, *last)
    turns = (
        Turn(role="assistant", text="Run it.", start=0, end=len(said)),
        Turn(role="tool", text="1 failed", start=len(said), end=len(said) + len(told)),
        Turn(role="assistant", text="x + 1", start=len(said) + len(told), end=len(ids)),
    )
    run.write_rollouts(1, [dataclasses.replace(row, token_ids=ids, logprobs=(-0.25,) * len(ids), turns=turns)])
    page = write_report([run], tokenizer=folder / "tokenizer.json").read_text()
    first, second, third = embedded(page, "chunk-0")["rows"][0]["turns"]
    assert sum(first["lengths"]) == len("Run it.")
    assert first["logprobs"] == [-25] * len(said)
    assert "lengths" not in second  # was not sampled
    assert sum(third["lengths"]) == len("x + 1")


def test_reward_is_held_against_the_truth() -> None:
    sound = [(1, 0, 1.0, True), (1, 0, 0.1, False), (1, 1, 0.0, False), (1, 1, 0.1, False)]
    found = reward_against_truth(sound)
    assert found is not None
    assert (found["ordered"], found["highestFailing"], found["lowestPassing"]) == (1.0, 0.1, 1.0)
    assert found["points"] == [[0.05, 0.0, 1], [0.55, 0.5, 1]]
    hacked = [(1, 0, 0.9, False), (1, 0, 0.2, True), (1, 0, 0.2, False)]
    found = reward_against_truth(hacked)
    assert found is not None
    assert found["ordered"] == 0.25  # one pair wrong, one tied
    assert reward_against_truth([(1, 0, 0.9, False)]) is None


def test_curves_have_the_interval_of_a_clustered_mean() -> None:
    values = [0.1, 0.4, 0.2, 0.9, 0.5, 0.3]
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert mean_interval(values, list("abcdef")) == pytest.approx([sum(values) / 6, low, high], abs=1e-5)
    assert mean_interval(values, ["a"] * 6) == [pytest.approx(0.4), None, None]
    assert mean_interval([], []) == [None, None, None]


def test_several_runs_are_pooled_over_their_seeds(tmp_path: Path) -> None:
    runs = [recorded_run(tmp_path / f"seed-{seed}", steps=2, seed=seed) for seed in range(3)]
    index = embedded(write_report(runs, tmp_path / "all.html").read_text(), "index")
    titles = [c["title"] for c in index["comparisons"]]
    assert "3 runs pooled: sft → grpo" in titles
    assert "seed-1: base → sft" in titles
    assert "grpo: seed-0 → seed-2" in titles
    pooled = next(c for c in index["comparisons"] if c["title"] == "3 runs pooled: sft → grpo")
    assert any("By training seed" in sentence for sentence in pooled["sentences"])
    assert all(c["pAdjusted"] >= c["p"] for c in index["comparisons"])


def test_only_runs_that_differ_in_their_seed_are_pooled(tmp_path: Path) -> None:
    runs = [recorded_run(tmp_path / f"run-{seed}", steps=1, seed=seed) for seed in range(4)]
    for run, reward in zip(runs, ("tests", "tests", "similarity", "tests"), strict=True):
        recipe = yaml.safe_load(run.recipe_path.read_text()) | {"reward": reward, "seed": runs.index(run)}
        run.recipe_path.write_text(yaml.safe_dump(recipe))
    shared = runs[0].read_eval("base"), runs[0].read_eval("sft")
    for run in runs[1:]:  # the warm start that all of them took over
        for found in shared:
            run.write_eval(found["name"], found)
    index = embedded(write_report(runs, tmp_path / "all.html").read_text(), "index")
    pooled = [one["title"] for one in index["comparisons"] if "pooled" in one["title"]]
    which = "3 runs pooled (run-0, run-1, run-3)"
    assert pooled == [f"{which}: sft → grpo", f"{which}: base → grpo"]


def test_a_session_that_was_killed_counts_up_to_its_last_report(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", {"name": "run"}, resume=False)
    sessions = [
        {"started_unix_seconds": 1000.0},  # killed twice, the second time before it reported anything
        {"started_unix_seconds": 5000.0},
        {"started_unix_seconds": 6000.0, "ended_unix_seconds": 6500.0, "status": "finished"},
    ]
    (run.path / "environment.json").write_text(json.dumps({"schema_version": 1, "sessions": sessions}))
    reports = [(1, 2000.0), (2, 4000.0), (2, 6200.0), (3, 6400.0)]  # step 2 was done again
    lines = [{"step": s, "phase": "train", "unix_seconds": t, "values": {"train/loss": 1.0}} for s, t in reports]
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    [described] = embedded(write_report([run]).read_text(), "index")["runs"]
    assert described["seconds"] == 3000 + 0 + 500
    assert described["cutOff"] is True


def test_a_run_without_anything_yet_still_has_a_report(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", {"name": "empty"}, resume=False)
    assert embedded(write_report([run]).read_text(), "index")["rollouts"]["count"] == 0


def test_what_was_not_asked_the_same_is_not_compared_and_the_report_says_so(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "run", steps=1)
    other = dataclasses.replace(evaluation("grpo", 0.5, 1), max_new_tokens=200)
    run.write_eval("grpo", other.to_json())
    notes: list[str] = []
    index = embedded(write_report([run], warn=notes.append).read_text(), "index")
    assert [one["title"] for one in index["comparisons"]] == ["base → sft"]
    assert len(notes) == 2
    assert all("is not compared: " in note and "differ in max_new_tokens" in note for note in notes)
    assert index["notCompared"] == notes


def test_what_is_not_an_evaluation_becomes_a_note(tmp_path: Path) -> None:
    run = recorded_run(tmp_path / "run", steps=1)
    run.write_eval("mine", {"accuracy": 1})
    notes: list[str] = []
    write_report([run], warn=notes.append)
    assert len(notes) == 1
    assert "eval/mine.json is not shown" in notes[0]


def test_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no recipe\.yaml"):
        write_report([tmp_path])
    with pytest.raises(BadInput, match="no run to report on"):
        write_report([])


@given(st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=8))
def test_embedded_data_can_hold_no_markup_and_comes_back(data: Any) -> None:
    text = packed({"data": data})
    assert re.fullmatch(r"[A-Za-z0-9+/=]*", text)
    back = json.loads(gzip.decompress(base64.b64decode(text)))
    # Numbers that JSON has no word for become null; lone surrogates become question marks.
    assert isinstance(back, dict)


lines = st.lists(st.sampled_from(["a", "b", "  c", ""]), max_size=8).map("\n".join)


@given(lines, lines)
@settings(max_examples=200)
def test_line_operations_turn_one_text_into_the_other(before: str, after: str) -> None:
    source = before.split("\n")
    built: list[str] = []
    at = 0
    for start, end, replacement in line_operations(before, after):
        built += source[at:start] + replacement
        at = end
    assert "\n".join(built + source[at:]) == after
