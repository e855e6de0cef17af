"""What happens beside the steps: telling the run's listener, and stopping when the time is up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback

from code_repair_rl.models import trim_heap
from code_repair_rl.runs import STEP_SECONDS, RunDir, RunListener, training_seconds
from code_repair_rl.training.together import Agree

ROLLOUT_SECONDS = "time/rollout_seconds"
"""What of a step's seconds its rollouts took, sampling and grading."""

VALIDATION = "validation/pass_rate"
"""The metric that chooses the best weights."""

BEST = "validation/best"
"""That of the weights that are kept, reported once they are."""


class StepClock(TrainerCallback):  # type: ignore[misc]
    """How long each optimiser step takes: sampling, grading, training; not validation and checkpoints beside them.

    A step that is done again after a kill counts in full: rollouts that are read back count as long as they took.
    """

    def __init__(self, run: RunDir) -> None:
        self.seconds = 0.0
        """Of the step that ended last."""
        self._begun = time.monotonic()
        self._read_back = 0.0
        metrics = run.metrics()
        self._recorded = {row.step: row.values[ROLLOUT_SECONDS] for row in metrics if ROLLOUT_SECONDS in row.values}

    def rollout_seconds(self, step: int, seconds: float) -> float:
        """What the rollouts of the step at hand took, told what they took now."""
        self._read_back = self._recorded.get(step, 0.0)
        return self._read_back + seconds

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._begun = time.monotonic()
        self._read_back = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop it."""
        self.seconds = self._read_back + time.monotonic() - self._begun


class TellListener(TrainerCallback):  # type: ignore[misc]
    """Passes the trainer's own figures on, under the run's names."""

    def __init__(self, listener: RunListener, renamed: Mapping[str, str], clock: StepClock) -> None:
        self._listener = listener
        self._renamed = renamed
        self._clock = clock

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        """Pass on the figures of one optimiser step, with its duration."""
        if "loss" not in logs:  # the summary at the end
            return
        figures = {
            self._renamed[name]: float(value)
            for name, value in logs.items()
            if name in self._renamed and value is not None and math.isfinite(float(value))
        }
        figures[STEP_SECONDS] = self._clock.seconds
        self._listener.on_phase(state.global_step, "train")  # validation may have come between
        self._listener.on_metrics(state.global_step, figures)


class TrimHeap(TrainerCallback):  # type: ignore[misc]
    """Gives the holes of the heap back after every step, so that memory stays flat over steps of changing lengths."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Trim; the gradients are gone by now."""
        trim_heap()


class TimeBudget(TrainerCallback):  # type: ignore[misc]
    """Ends training after the step in which its minutes are used up; what earlier sessions used counts."""

    def __init__(self, run: RunDir, max_minutes: float | None, clock: StepClock) -> None:
        self._run = run
        self._clock = clock
        self._budget_seconds = math.inf if max_minutes is None else 60 * max_minutes
        self._used_seconds = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add up what the steps before a resume took."""
        self._used_seconds = training_seconds(self._run.metrics(), until_step=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop, with a checkpoint, when the budget is spent."""
        self._used_seconds += self._clock.seconds
        if self._used_seconds >= self._budget_seconds:
            control.should_training_stop = True
            control.should_save = True


class Validate(TrainerCallback):  # type: ignore[misc]
    """Measures the policy on the validation split, and keeps the best weights.

    Args:
        every: steps between measurements; the last step is always measured.
        measure: gives the pass rate now, told the step, and reports it as `VALIDATION`.
        keep: saves the weights as they are now.
        run: whose best weights so far are known from its metrics.
        listener: told of `BEST`.
    """

    def __init__(
        self,
        every: int,
        measure: Callable[[int], float],
        keep: Callable[[], object],
        run: RunDir,
        listener: RunListener,
    ) -> None:
        self._every = every
        self._measure = measure
        self._keep = keep
        self._listener = listener
        self._best = _best_kept(run)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure the model that training starts from."""
        if state.global_step == 0:
            self._now(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure at every `every`-th step and at the last."""
        if state.global_step % self._every == 0 or state.global_step >= state.max_steps or control.should_training_stop:
            self._now(state.global_step)

    def _now(self, step: int) -> None:
        found = self._measure(step)
        if found >= self._best:  # of equals the later one: it has seen more
            self._best = found
            self._keep()
            self._listener.on_metrics(step, {BEST: found})


def of_every_step(
    run: RunDir, listener: RunListener, renamed: Mapping[str, str], max_minutes: float | None, clock: StepClock
) -> list[TrainerCallback]:
    """What fine-tuning and reinforcement do beside each step, in this order: whoever acts on an end of the time comes
    after all processes have agreed on it."""
    return [
        clock, TellListener(listener, renamed, clock), TimeBudget(run, max_minutes, clock), Agree(), TrimHeap(),
    ]  # fmt: skip


def _best_kept(run: RunDir) -> float:
    """The pass rate of the weights that are kept, -1 without any."""
    rows = [row.values for row in run.metrics()]
    # Runs that were begun before it was recorded have the measurements only.
    name = BEST if any(BEST in row for row in rows) or not (run.path / "model").is_dir() else VALIDATION
    return max((row.get(name, -1.0) for row in rows), default=-1.0)
