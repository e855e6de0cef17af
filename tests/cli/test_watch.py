"""What is told of a journey's stages."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from code_repair_rl.cli.watch import ConsoleWatcher
from code_repair_rl.errors import BadInput
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
