from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from code_repair_rl.reporting import LiveDisplay, duration, sparkline
from code_repair_rl.reporting import live as live_module
from code_repair_rl.runs import RunDir
from tests.reporting.recorded import evaluation, recorded_run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves."""
    now = [0.0]
    monkeypatch.setattr(live_module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return recorded_run(tmp_path_factory.mktemp("live") / "run", steps=4, evaluations=False)


def shown(
    run: RunDir, clock: list[float], *, terminal: bool, steps: int = 4, first: int = 1
) -> tuple[LiveDisplay, str]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, color_system=None)
    display = LiveDisplay("demo: grpo", console)
    display.on_start(run, 10)
    for step in range(first, first + steps):
        display.on_phase(step, "sample")
        clock[0] += 20
        display.on_rollouts(step, run.rollouts(step - first + 1))
        display.on_phase(step, "train")
        display.on_metrics(step, {"train/loss": 0.5})
        clock[0] += 10
    display.on_eval("validation", evaluation("validation", 0.4, 1).to_json())
    return display, (display.close() if terminal else None) or out.getvalue()


def test_plain_lines_where_there_is_no_terminal(run: RunDir, clock: list[float]) -> None:
    display, _ = shown(run, clock, terminal=False)
    display.on_end("finished")
    lines = display._console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "\x1b" not in "".join(lines)
    steps = [line for line in lines if line.startswith("step ")]
    assert len(steps) == 4
    assert "loss 0.5" in steps[0]
    assert "tokens/s" in steps[0]
    assert "about 3 min 00 s left" in steps[3]  # six steps of 30 s
    assert any(line.startswith("evaluated validation: pass@1") for line in lines)
    assert lines[-1] == "demo: grpo: finished after 4 of 10 steps"


def test_one_block_in_a_terminal(run: RunDir, clock: list[float]) -> None:
    display, text = shown(run, clock, terminal=True)
    for part in ("demo: grpo", "pass rate", "reward", "verdicts", "passed", "tokens/s", "left"):
        assert part in text
    assert display._live is None


def test_time_left_is_that_of_the_last_steps_less_what_was_done_of_this_one(run: RunDir, clock: list[float]) -> None:
    display, _ = shown(run, clock, terminal=False, steps=3)
    display.on_phase(4, "sample")
    assert display.seconds_left() == pytest.approx(7 * 30)
    clock[0] += 12
    assert display.seconds_left() == pytest.approx(7 * 30 - 12)
    clock[0] += 1000
    assert display.seconds_left() == pytest.approx(6 * 30)


def test_a_resumed_run_counts_the_steps_that_lie_behind(run: RunDir, clock: list[float]) -> None:
    display, _ = shown(run, clock, terminal=False, steps=1, first=8)
    display.on_phase(9, "sample")
    assert display.seconds_left() == pytest.approx(2 * 30)


def test_a_step_is_done_when_its_duration_is_told_and_the_recipes_minutes_bound_the_rest(
    tmp_path: Path, clock: list[float]
) -> None:
    run = RunDir.create(tmp_path / "run", {"sft": {"max_minutes": 2}, "grpo": {"max_minutes": None}}, resume=False)
    run.append_metrics(1, {"time/step_seconds": 10.0})  # by an earlier session
    display = LiveDisplay("x", Console(file=io.StringIO(), width=120))
    display.on_start(run, 100)
    clock[0] += 500  # loading
    display.on_phase(1, "train")
    display.on_metrics(2, {"time/step_seconds": 10.0, "train/loss": 1.0})
    assert display.seconds_left() == pytest.approx(120 - 20)
    clock[0] += 14  # validation included
    display.on_metrics(3, {"time/step_seconds": 10.0})
    assert display.seconds_left() == pytest.approx(120 - 30)
    for step in range(4, 99):
        clock[0] += 1
        display.on_metrics(step, {"time/step_seconds": 0.5})
    assert display.seconds_left() == pytest.approx(2 * 1.0)
    display.on_end("finished")
    text = display._console.file.getvalue()  # type: ignore[attr-defined]
    assert "step 2/100, loss 1, about 1 min 40 s left" in text
    assert "finished after 98 of 100 steps" in text


def test_time_left_is_unknown_before_the_first_step_ends(tmp_path: Path) -> None:
    display = LiveDisplay("x", Console(file=io.StringIO()))
    display.on_start(RunDir.create(tmp_path / "run", {}, resume=False), 3)
    display.on_phase(1, "sample")
    assert display.seconds_left() is None


def test_sparklines_and_durations() -> None:
    assert sparkline([0, 0.5, 1], 0, 1) == "▁▅█"
    assert sparkline([]) == ""
    assert len(sparkline([2.0, 2.0])) == 2
    assert [duration(s) for s in (4.4, 200, 7500)] == ["4 s", "3 min 20 s", "2 h 05 min"]
