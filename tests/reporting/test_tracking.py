"""What the trackers were told, read back by their own libraries."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.reporting import trackers
from code_repair_rl.reporting.tracking import (
    TABLE_COLUMNS,
    coloured_diff,
    eval_figures,
    group_of,
    grouped,
    rollout_figures,
    shown_name,
    tool_figures,
    tracking_id,
)
from code_repair_rl.runs import CompositeListener, RunDir, RunListener, ToolCall, Turn
from tests.reporting.recorded import HOSTILE, evaluation, recorded_run


@dataclass(frozen=True)
class Tracking:
    wandb: str = "off"
    trackio: bool = False
    project: str = "crrl-tests"


def told(listener: RunListener, run: RunDir, status: str = "finished") -> None:
    """Tell a listener of a whole recorded run."""
    listener.on_start(run, 2)
    for step in (1, 2):
        listener.on_phase(step, "train")
        listener.on_rollouts(step, run.rollouts(step))
        listener.on_metrics(step, {"train/loss": 1.0 / step, "pass_rate": 0.5})
    listener.on_eval("grpo", run.read_eval("grpo"))
    listener.on_end(status)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    found = recorded_run(tmp_path / "run", steps=2)
    (found.path / "model").mkdir()
    (found.path / "model" / "config.json").write_text("{}")
    return found


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run's file: LevelDB's log format behind a seven-byte header."""
    from wandb.proto import wandb_internal_pb2

    data, at, held = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        held += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(held)
            held = b""
            yield record


def test_nothing_is_told_to_anybody_unless_asked() -> None:
    assert trackers(Tracking()) == []
    with pytest.raises(BadInput, match=r"tracking\.wandb"):
        trackers(Tracking(wandb="yes"))


def test_an_offline_wandb_run_holds_metrics_tables_and_artifacts(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    warnings: list[str] = []
    told(CompositeListener(*trackers(Tracking(wandb="offline")), warn=warnings.append), run)
    assert warnings == []
    wandb.teardown()  # what happens when a process ends: its service writes what it still holds
    (file,) = (run.path / "wandb").glob("offline-run-*/run-*.wandb")
    records = list(wandb_records(file))
    ids = {r.run.run_id for r in records if r.HasField("run")}
    assert ids == {tracking_id(run, "wandb")}
    history = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in r.history.item}
        for r in records
        if r.HasField("history")
    ]
    losses = {row["step"]: row["train/loss"] for row in history if "train/loss" in row}
    assert losses == {1: 1.0, 2: 0.5}
    counts = next(row for row in history if row.get("step") == 1 and "rates/no_verdict" in row)
    rows = run.rollouts(1)
    assert counts["rates/no_verdict"] == sum(r.score is None for r in rows) / len(rows)
    assert counts["outcomes/passed"] == sum(r.passed for r in rows)
    assert any("eval/grpo/pass@1" in row for row in history)
    tables = sorted((file.parent / "files" / "media" / "table").glob("completions_*.table.json"))
    assert len(tables) == 2
    table = json.loads(tables[0].read_text())
    assert table["columns"] == [*TABLE_COLUMNS, "reward/applied", "reward/tests"]
    assert len(table["data"]) == len(rows)
    first = dict(zip(table["columns"], table["data"][0], strict=True))
    assert (first["task"], first["outcome"], first["reward"]) == (rows[0].task_id, rows[0].outcome, rows[0].reward)
    assert first["reward/tests"] == rows[0].reward_terms.get("tests")
    assert (first["turns"], first["tool_calls"]) == (2, "run_tests")
    assert sum("/" not in name for row in history for name in row if name[0] != "_") == sum(
        name in ("step", "completions") for row in history for name in row
    )  # everything else is in a group
    artifacts = {(r.artifact.type, r.artifact.name) for r in records if r.HasField("artifact")}
    assert artifacts >= {
        ("evaluation", f"{tracking_id(run, 'wandb')}-eval-grpo"),
        ("model", f"{tracking_id(run, 'wandb')}-model"),
    }
    model = next(r.artifact for r in records if r.HasField("artifact") and r.artifact.type == "model")
    assert [entry.ref for entry in model.manifest.contents] == [(run.path / "model" / "config.json").as_uri()]


def test_a_resumed_wandb_run_goes_on_under_its_id(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for status in ("interrupted", "finished"):
        (listener,) = trackers(Tracking(wandb="offline"))
        listener.on_start(run, 2)
        listener.on_metrics(1, {"train/loss": 1.0})
        listener.on_end(status)
    files = list((run.path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert {file.stem for file in files} == {f"run-{tracking_id(run, 'wandb')}"}


def test_a_trackio_run_is_read_back_by_trackio(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trackio")
    import subprocess
    import sys

    # Its folder is read from the environment when it is first imported, so that needs a fresh process.
    script = (
        "import sys, json\n"
        "from code_repair_rl.runs import RunDir\n"
        "from tests.reporting.test_tracking import Tracking, told, trackers\n"
        "run = RunDir.open(sys.argv[1])\n"
        "told(trackers(Tracking(trackio=True))[0], run)\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        "(name,) = SQLiteStorage.get_runs('crrl-tests')\n"
        "print('LOGS', json.dumps([name, SQLiteStorage.get_logs('crrl-tests', name)], default=str))\n"
    )
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    done = subprocess.run(
        [sys.executable, "-c", script, str(run.path)], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("LOGS ")]
    name, logs = json.loads(line.removeprefix("LOGS "))
    assert name == f"run-{tracking_id(run, 'trackio')}"
    assert {row["step"]: row["train/loss"] for row in logs if "train/loss" in row} == {1: 1.0, 2: 0.5}
    assert any("eval/grpo/pass@1" in row for row in logs)
    tables = [row["completions"] for row in logs if "completions" in row]
    assert len(tables) == 2
    table = tables[0]["_value"]
    assert [row["task"] for row in table] == [r.task_id for r in run.rollouts(1)]
    assert [row["reward/tests"] for row in table] == [r.reward_terms.get("tests") for r in run.rollouts(1)]
    assert {row["rollouts/pass_rate"] for row in logs if "rollouts/pass_rate" in row} == {0.5}
    counts = next(row for row in logs if "rates/no_verdict" in row)
    assert counts["outcomes/passed"] == sum(r.passed for r in run.rollouts(1))
    assert counts["tools/calls"] > 0


def test_trackio_is_refused_where_it_would_send_the_run_away(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "someone/space")
    (listener,) = trackers(Tracking(trackio=True))
    with pytest.raises(BadInput, match="TRACKIO_SPACE_ID"):
        listener.on_start(run, 1)


def test_rates_leave_out_what_has_no_verdict(run: RunDir) -> None:
    rows = [r for r in run.rollouts(1) if r.score is None]
    assert rows
    assert rollout_figures(rows)["rates/no_verdict"] == 1.0
    assert not any(name.startswith("sandbox/") for name in rollout_figures(rows))
    assert rollout_figures([]) == {}


def test_tool_use_is_counted_over_conversations(run: RunDir) -> None:
    import dataclasses

    plain = next(r for r in run.rollouts(1) if r.turns is None)
    assert tool_figures([plain]) == {}
    call = ToolCall(name="bash", arguments='{"command": "ls"}')
    bad = ToolCall(name="edit", arguments="{oops")
    told = Turn(role="tool", text="a.py", start=2, end=4)
    busy = (Turn(role="assistant", text="look", start=0, end=2, tool_calls=(call, bad)), told)
    rows = [
        dataclasses.replace(plain, turns=(*busy, Turn(role="assistant", text="done", start=4, end=5))),
        dataclasses.replace(plain, turns=(Turn(role="assistant", text="done", start=0, end=5),)),
        plain,
    ]
    assert tool_figures(rows) == {
        "tools/turns": 1.5,
        "tools/turns_max": 2.0,
        "tools/calls": 1.0,
        "tools/rollouts_with_calls": 0.5,
        "tools/unreadable_arguments": 0.5,
        "tools/calls_of/bash": 0.5,
        "tools/calls_of/edit": 0.5,
    }


def test_stages_and_sweeps_are_grouped(tmp_path: Path) -> None:
    runs = [RunDir.create(tmp_path / name, {}, resume=False) for name in ("demo", "demo/grpo", "sweep/0", "plain")]
    assert [(group_of(run), shown_name(run)) for run in runs] == [
        (None, "demo"),
        ("demo", "demo-grpo"),
        ("sweep", "sweep-0"),
        (None, "plain"),
    ]


def test_metrics_without_a_group_get_one() -> None:
    assert grouped({"pass_rate": 1.0, "train/kl": 2.0}) == {"rollouts/pass_rate": 1.0, "train/kl": 2.0}


def test_what_an_evaluation_did_not_observe_is_not_told() -> None:
    result = evaluation("x", 0.0, 1).to_json()  # nothing passes, so nothing is known of passing edits
    figures = eval_figures("x", result)
    assert "eval/x/edit_precision" not in figures
    assert figures["eval/x/outcomes/failed"] > 0


def test_a_diff_for_a_tracker_is_escaped(run: RunDir) -> None:
    import dataclasses

    row = next(r for r in run.rollouts(1) if r.files_after)
    hostile = dataclasses.replace(row, files_after={"solution.py": row.files_before["solution.py"] + HOSTILE})
    text = coloured_diff(hostile)
    assert "<script" not in text
    assert "&lt;script" in text
    assert "color:#17753a" in text


def test_what_has_no_summary_has_no_figures() -> None:
    assert eval_figures("x", {"anything": 1}) == {}
