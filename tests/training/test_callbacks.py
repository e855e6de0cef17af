"""A run's training time counts every step once and in full, over kills and resumes."""

from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState

from code_repair_rl.runs import STEP_SECONDS, RunDir, SilentListener, training_seconds
from code_repair_rl.training.callbacks import (
    ROLLOUT_SECONDS,
    VALIDATION,
    StepClock,
    TellListener,
    TimeBudget,
    Validate,
)


class Recorder(SilentListener):
    def __init__(self, run: RunDir) -> None:
        self.run = run

    def on_metrics(self, step: int, metrics: dict[str, float]) -> None:  # type: ignore[override]
        self.run.append_metrics(step, metrics)


def test_rollouts_that_are_read_back_count_as_long_as_they_took(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", {"name": "test"}, resume=False)
    for step in (1, 2):
        run.append_metrics(step, {ROLLOUT_SECONDS: 50.0, STEP_SECONDS: 70.0})
    run.append_metrics(3, {ROLLOUT_SECONDS: 40.0})  # killed while it trained on what it had sampled
    # The checkpoint is that of step 1: step 2 and 3 are trained again, and step 4 is sampled.
    clock = StepClock(run)
    tell, budget = TellListener(Recorder(run), {}, clock), TimeBudget(run, 2.5, clock)
    state, control = TrainerState(global_step=1), TrainerControl()
    budget.on_train_begin(None, state, control)
    stopped = {}
    for step in (2, 3, 4):
        clock.on_step_begin(None, state, control)
        assert clock.rollout_seconds(step, 0.0) == {2: 50.0, 3: 40.0, 4: 0.0}[step]
        state.global_step = step
        clock.on_step_end(None, state, control)
        budget.on_step_end(None, state, control)
        tell.on_log(None, state, control, {"loss": 0.0})
        stopped[step] = control.should_training_stop
    assert 160.0 <= training_seconds(run.metrics()) < 170.0
    assert stopped == {2: False, 3: True, 4: True}
    assert budget._used_seconds == training_seconds(run.metrics())


def test_the_best_weights_are_those_that_are_on_disk(tmp_path: Path) -> None:
    """Killed while they were being kept, a run has measured them and has not got them."""
    run = RunDir.create(tmp_path / "run", {"name": "test"}, resume=False)
    recorder, kept = Recorder(run), []

    def measured(step: int) -> float:
        found = {1: 0.4, 2: 0.5}[step]
        run.append_metrics(step, {VALIDATION: found})
        return found

    def killed() -> None:
        raise KeyboardInterrupt

    Validate(1, measured, lambda: kept.append(1), run, recorder)._now(1)
    with pytest.raises(KeyboardInterrupt):
        Validate(1, measured, killed, run, recorder)._now(2)
    Validate(1, lambda step: 0.45, lambda: kept.append(2), run, recorder)._now(2)
    assert kept == [1, 2]


def test_a_run_from_before_that_was_recorded_keeps_its_best_weights(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", {"name": "test"}, resume=False)
    run.append_metrics(1, {VALIDATION: 0.6})
    (run.path / "model").mkdir()
    kept: list[int] = []
    Validate(1, lambda step: 0.5, lambda: kept.append(2), run, Recorder(run))._now(2)
    assert kept == []
