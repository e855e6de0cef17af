from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_repair_rl.errors import BadInput
from code_repair_rl.runs import (
    CompositeListener,
    RolloutRow,
    RunDir,
    RunListener,
    RunRecorder,
    TestRecord,
    ToolCall,
    Turn,
)

RECIPE = {"seed": 7, "model": {"name": "smollm2", "lora": None}, "steps": 3}


def row(**changes: object) -> RolloutRow:
    values: dict[str, object] = {
        "step": 1,
        "task_id": "t/1",
        "problem": "p1",
        "split": "train",
        "group": 0,
        "sample": 0,
        "hint": "none",
        "prompt": "fix it",
        "prompt_ids": (1, 2),
        "token_ids": (3, 4, 5),
        "logprobs": (-0.5, -1.0, 0.0),
        "text": "answer",
        "finish_reason": "stop",
        "outcome": "passed",
        "passed": True,
        "score": 1.0,
    }
    return RolloutRow(**(values | changes))  # type: ignore[arg-type]


def test_a_run_keeps_its_recipe_and_environment(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", RECIPE, resume=False)
    assert RunDir.open(tmp_path / "run").recipe() == RECIPE
    (session,) = run.environment()
    assert session["seed"] == 7
    assert session["python"] == ".".join(map(str, sys.version_info[:3]))
    assert session["libraries"]["torch"]


def test_describing_the_environment_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from code_repair_rl.runs import RunDir; "
        f"RunDir.create({str(tmp_path / 'r')!r}, {{}}, resume=False); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_is_not_overwritten_but_resumed_on_request(tmp_path: Path) -> None:
    RunDir.create(tmp_path / "run", RECIPE, resume=False)
    with pytest.raises(BadInput, match="a run is there already"):
        RunDir.create(tmp_path / "run", RECIPE, resume=False)
    elsewhere = {"launch": {"vllm": "http://other:8000"}, "sandbox": {"workers": 9}, "tracking": {"wandb": "online"}}
    resumed = RunDir.create(tmp_path / "run", RECIPE | {"resume": True} | elsewhere, resume=True)
    assert len(resumed.environment()) == 2
    resumed.record_end("finished")
    again = RunDir.create(tmp_path / "run", RECIPE, resume=True)
    again.record_end("interrupted")  # by somebody who found nothing to do
    assert again.environment() == resumed.environment()
    assert [session.get("status") for session in again.environment()] == [None, "finished"]


def test_resuming_with_another_recipe_names_the_changed_keys(tmp_path: Path) -> None:
    RunDir.create(tmp_path / "run", RECIPE, resume=False)
    with pytest.raises(BadInput, match=r"model\.lora, steps"):
        RunDir.create(tmp_path / "run", RECIPE | {"model": {"name": "smollm2", "lora": 8}, "steps": 4}, resume=True)


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(BadInput, match="not a run directory"):
        RunDir.create(tmp_path, RECIPE, resume=True)
    with pytest.raises(BadInput, match=r"no recipe\.yaml"):
        RunDir.open(tmp_path)


def test_metrics_of_one_step_merge_and_a_resumed_run_has_the_last_word(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", RECIPE, resume=False)
    run.append_metrics(1, {"loss": 2.0, "kl": float("nan")})
    run.append_metrics(1, {"reward": 0.5})
    run.append_metrics(2, {"loss": 1.0})
    run.append_metrics(1, {"loss": 1.5})
    first, second = run.metrics()
    assert first.values["loss"] == 1.5
    assert first.values["reward"] == 0.5
    assert first.values["kl"] != first.values["kl"]
    assert second.step == 2


@given(cut=st.integers(min_value=1, max_value=60))
@settings(max_examples=25)
def test_a_torn_last_line_is_passed_over_and_then_cut_off(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = RunDir.create(tmp_path_factory.mktemp("torn") / "run", RECIPE, resume=False)
    run.append_metrics(1, {"loss": 1.0})
    run.append_metrics(2, {"loss": 2.0, "padding" * 700: 1.0})
    whole = run.metrics_path.read_bytes()
    run.metrics_path.write_bytes(whole[:-cut])
    assert [m.step for m in run.metrics()] == [1]
    run.append_metrics(3, {"loss": 3.0})
    assert [m.step for m in run.metrics()] == [1, 3]


def test_a_damaged_metrics_line_is_named(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", RECIPE, resume=False)
    run.append_metrics(1, {"loss": 1.0})
    with run.metrics_path.open("a") as file:
        file.write("nonsense\n")
    with pytest.raises(BadInput, match=r"metrics\.jsonl:2"):
        run.metrics()


def test_a_kill_at_any_moment_leaves_readable_metrics(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", RECIPE, resume=False)
    code = (
        "from code_repair_rl.runs import RunDir\n"
        f"run = RunDir.open({str(run.path)!r})\n"
        "for step in range(10**6): run.append_metrics(step, {'loss': step})\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while (not run.metrics_path.exists() or run.metrics_path.stat().st_size < 2000) and time.monotonic() < deadline:
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    steps = [m.step for m in run.metrics()]
    assert len(steps) > 10
    assert steps == list(range(len(steps)))


text = st.text(max_size=20)
turns = st.builds(
    Turn,
    role=st.sampled_from(["assistant", "tool", "user"]),
    text=text,
    start=st.integers(0, 100),
    end=st.integers(0, 100),
    tool_calls=st.lists(st.builds(ToolCall, name=text, arguments=text, call_id=text), max_size=2).map(tuple),
    call_id=text,
)
rows = st.builds(
    row,
    task_id=text,
    text=text,
    prompt=text,
    step=st.integers(0, 10**6),
    token_ids=st.lists(st.integers(0, 2**31 - 1), max_size=4).map(tuple),
    logprobs=st.lists(st.floats(-50, 0, width=32), max_size=4).map(tuple),
    score=st.none() | st.floats(0, 1),
    reward=st.none() | st.floats(-5, 5),
    reward_terms=st.dictionaries(text, st.floats(-5, 5), max_size=3),
    tests=st.lists(st.builds(TestRecord, name=text, status=text, visible=st.booleans(), detail=text), max_size=2).map(
        tuple
    ),
    evidence=st.lists(text, max_size=2).map(tuple),
    patch=st.none() | text,
    edit_error=st.none() | text,
    files_before=st.dictionaries(text, text, max_size=2),
    files_after=st.dictionaries(text, text, max_size=2),
    turns=st.none() | st.lists(turns, max_size=3).map(tuple),
)


@given(st.lists(rows, max_size=4))
@settings(max_examples=50)
def test_rollouts_come_back_as_they_were_written(written: list[RolloutRow]) -> None:
    import tempfile

    from code_repair_rl.runs import read_rows, write_rows

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        write_rows(path, written)
        assert read_rows(path) == written


def test_rollouts_of_the_first_schema_are_still_read_and_unknown_ones_refused(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    run = RunDir.create(tmp_path / "run", RECIPE, resume=False)
    run.write_rollouts(1, [row()])
    path = run.rollout_path(1)
    table = pq.read_table(path, partitioning=None)
    first = table.drop_columns(["turns"]).replace_schema_metadata({"crrl_schema_version": "1"})
    pq.write_table(first, path)
    assert run.rollouts(1) == [row()]
    pq.write_table(table.replace_schema_metadata({"crrl_schema_version": "99"}), path)
    with pytest.raises(BadInput, match="schema version 99"):
        run.rollouts(1)


def test_a_lone_surrogate_does_not_stop_recording(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", RECIPE, resume=False)
    run.write_rollouts(1, [row(text="a\udc80b", files_before={"x.py": "\ud800"})])
    assert run.rollouts(1)[0].text == "a?b"


def test_rollouts_are_listed_by_step_and_damage_is_named(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", RECIPE, resume=False)
    run.write_rollouts(12, [row(step=12)])
    run.write_rollouts(3, [row(step=3), row(step=3, sample=1)])
    assert run.rollout_steps() == [3, 12]
    assert [r.key for r in run.all_rollouts()] == ["3/0/0", "3/0/1", "12/0/0"]
    path = run.rollout_path(12)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadInput, match=r"damaged rollout file"):
        run.rollouts(12)


def test_pandas_reads_rollouts_and_metrics_in_one_line_each(tmp_path: Path) -> None:
    import pandas as pd

    run = RunDir.create(tmp_path / "run", RECIPE, resume=False)
    run.write_rollouts(1, [row(), row(sample=1, passed=False, score=None)])
    run.append_metrics(1, {"loss": 1.0})
    frame = pd.read_parquet(run.path / "rollouts")
    assert list(frame["passed"]) == [True, False]
    metrics = pd.json_normalize(pd.read_json(run.metrics_path, lines=True).to_dict("records"))
    assert list(metrics["values.loss"]) == [1.0]


def test_duckdb_reads_rollouts_and_metrics_as_documented(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    run = RunDir.create(tmp_path / "run", RECIPE, resume=False)
    run.write_rollouts(1, [row(), row(sample=1, passed=False, score=0.0), row(sample=2, passed=False, score=None)])
    run.append_metrics(1, {"loss": 1.0})
    page = (Path(__file__).parents[2] / "docs" / "runs.md").read_text()
    first, second = (line for line in page.splitlines() if line.startswith("SELECT"))
    here = str(run.path)
    assert duckdb.sql(first.replace("runs/demo/grpo", here)).fetchall() == [(1, 0.5)]
    assert duckdb.sql(second.replace("runs/demo/grpo", here)).fetchall()[0][0] == 1


def test_the_newest_good_checkpoint_is_found_and_damaged_ones_are_named(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", RECIPE, resume=False)
    for step in (1, 2, 3, 4):
        with run.checkpoint(step) as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / "weights.bin").write_bytes(os.urandom(1000))
    (run.checkpoints_path / "step-000004" / "crrl-manifest.json").unlink()
    weights = run.checkpoints_path / "step-000003" / "sub" / "weights.bin"
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    (run.checkpoints_path / "step-000002" / "sub" / "weights.bin").write_bytes(b"short")
    warnings: list[str] = []
    good = run.latest_good_checkpoint(warnings.append)
    assert good is not None
    assert good.step == 1
    assert [("no manifest" in w, "SHA-256" in w, "5 bytes" in w) for w in warnings] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


def test_a_checkpoint_that_fails_half_way_is_not_there(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", RECIPE, resume=False)
    with pytest.raises(RuntimeError), run.checkpoint(1) as folder:
        (folder / "weights.bin").write_bytes(b"half")
        raise RuntimeError("killed")
    assert run.checkpoints() == []
    assert run.latest_good_checkpoint() is None


def test_a_trainers_folder_is_adopted_and_old_checkpoints_go_but_never_the_best(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", RECIPE, resume=False)
    for step in (1, 2, 3, 4):
        folder = run.path / "trainer" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "weights.bin").write_bytes(b"w")
        assert run.adopt_checkpoint(step, folder).damage() is None
        assert not folder.exists()
    run.mark_best(2, {"pass@1": 0.5})
    assert run.prune_checkpoints(keep=1) == [1, 3]
    best = run.best_checkpoint()
    assert best is not None
    assert best.step == 2
    (best.path / "weights.bin").unlink()
    with pytest.raises(BadInput, match="is missing"):
        run.best_checkpoint()


def test_evaluations_are_kept_by_name(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", RECIPE, resume=False)
    run.write_eval("base", {"pass": 1})
    assert run.read_eval("base") == {"pass": 1}
    with pytest.raises(BadInput, match="there are: base"):
        run.read_eval("grpo")
    with pytest.raises(BadInput, match="made of letters"):
        run.write_eval("../evil", {})
    run.eval_path("base").write_text("{")
    with pytest.raises(BadInput, match="not JSON"):
        run.read_eval("base")


def test_two_writers_are_kept_apart(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", RECIPE, resume=False)
    code = (
        f"import sys; from code_repair_rl.runs import RunDir\nwith RunDir.open({str(run.path)!r}).exclusively(): pass\n"
    )
    with run.exclusively():
        other = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "another process is working on this run" in other.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Breaks(RunListener):
    def on_metrics(self, step: int, metrics: object) -> None:
        raise ValueError("the tracker is down")


def test_a_recorder_records_and_a_broken_listener_is_dropped_with_one_warning(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", RECIPE, resume=False)
    warnings: list[str] = []
    listener = CompositeListener(RunRecorder(), Breaks(), warn=warnings.append)
    listener.on_start(run, 2)
    for step in (1, 2):
        listener.on_phase(step, "train")
        listener.on_metrics(step, {"loss": 1.0 / step})
        listener.on_rollouts(step, [row(step=step)])
    listener.on_eval("base", {"pass": 1})
    listener.on_end("finished")
    assert len(warnings) == 1
    assert "the tracker is down" in warnings[0]
    assert [m.values["loss"] for m in run.metrics()] == [1.0, 0.5]
    assert run.rollout_steps() == [1, 2]
    assert run.eval_names() == ["base"]
    assert json.loads((run.path / "environment.json").read_text())["sessions"][-1]["status"] == "finished"


def test_a_recorder_that_cannot_record_stops_the_run(tmp_path: Path) -> None:
    from code_repair_rl.errors import MachineryFailed

    run = RunDir.create(tmp_path / "run", RECIPE, resume=False)
    run.metrics_path.mkdir()
    listener = CompositeListener(RunRecorder())
    listener.on_start(run, 1)
    with pytest.raises(MachineryFailed, match="cannot be recorded"):
        listener.on_metrics(1, {"loss": 1.0})


def test_a_new_writer_clears_what_a_killed_one_left_and_loses_no_model(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", {"name": "r"}, resume=False)
    for name in (
        ".checkpoint.ab12cd34/checkpoint-4",
        ".model.zz11yy22",
        ".model.old.qq33ww44/was",
        "checkpoints/.step-000020.ab12cd34",
        "checkpoints/.step-000010.old.qq33ww44/was",
    ):
        (run.path / name).mkdir(parents=True)
        (run.path / name / "weights").write_text(name)
    with run.exclusively():
        assert sorted(path.name for path in run.path.iterdir() if path.is_dir() and path.name.startswith(".")) == []
        assert (run.path / "model" / "weights").read_text() == ".model.old.qq33ww44/was"
        assert [path.name for path in run.checkpoints_path.iterdir()] == ["step-000010"]


def test_a_stage_is_taken_over_with_all_that_was_found_about_its_model(tmp_path: Path) -> None:
    first, second = (RunDir.create(tmp_path / name, RECIPE, resume=False) for name in ("first", "second"))
    for path in (
        "sft/model/weights",
        "sft/checkpoints/step-000001/weights",
        "eval/sft.samples/a",
        "classification/sft.json",
    ):
        (first.path / path).parent.mkdir(parents=True, exist_ok=True)
        (first.path / path).write_text(path)
    first.write_eval("sft", {"passed": 1})
    second.adopt_stage("sft", first)
    assert second.read_eval("sft") == {"passed": 1} and second.adopted("sft") == str(first.path)
    for path in ("sft/model/weights", "eval/sft.samples/a", "classification/sft.json"):
        assert (second.path / path).read_text() == path
    assert not (second.path / "sft" / "checkpoints").exists()
