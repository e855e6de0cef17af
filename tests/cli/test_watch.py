"""What is told of a journey's stages."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from code_repair_rl.cli.watch import ConsoleWatcher
from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation import Progress
from code_repair_rl.pipelines.journey import Stage
from code_repair_rl.recipes import compose
from code_repair_rl.runs import RunDir


def watcher(*overrides: str) -> ConsoleWatcher:
    return ConsoleWatcher(Console(file=io.StringIO()), compose("smoke", overrides))


def test_trackers_are_told_of_evaluations_where_the_recipe_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "someone/space")  # so that telling it is refused before anything is sent
    run = RunDir.create(tmp_path / "run", {}, resume=False)
    stage = Stage("eval base", "Evaluation: base")
    watcher().stage(stage).on_start(run, 0)
    with pytest.raises(BadInput, match="trackio would send"):
        watcher("tracking.trackio=true").stage(stage).on_start(run, 0)


def test_stages_without_a_run_tell_nobody(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", {}, resume=False)
    watcher("tracking.trackio=true").stage(Stage("report", "Report")).on_start(run, 0)


def test_an_evaluation_tells_a_log_how_far_it_has_got_at_every_tenth() -> None:
    log = io.StringIO()
    with ConsoleWatcher(Console(file=log, width=200), compose("smoke", ())) as shown:
        shown.stage(Stage("eval base", "Evaluation: base"))
        for done in range(1, 41):
            shown.evaluated(Progress(done, 40, done, 2 * done, sampled_tokens=9, wall_seconds=1.0, read_back=False))
    lines = log.getvalue().splitlines()
    assert lines[0].startswith("Evaluation: base")
    assert lines[1:4] == ["tasks: 1 of 40, 50.0 % pass", "tasks: 4 of 40, 50.0 % pass", "tasks: 8 of 40, 50.0 % pass"]
    assert lines[-1] == "tasks: 40 of 40, 50.0 % pass"
    assert len(lines) == 12
