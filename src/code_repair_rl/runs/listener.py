"""How a run tells the world what it is doing: `RunListener` and two ways to combine and record."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from code_repair_rl.errors import CrrlError, MachineryFailed
from code_repair_rl.runs.rows import RolloutRow

if TYPE_CHECKING:
    from code_repair_rl.runs.directory import RunDir


class RunListener(Protocol):
    """Told of everything a run does, in order. Subclass `SilentListener` and override what you care about."""

    def on_start(self, run_dir: RunDir, total_steps: int) -> None:
        """The run begins, or goes on, in `run_dir`; it will end after step `total_steps`."""

    def on_phase(self, step: int, phase: str) -> None:
        """Step `step` enters a phase (`sample`, `grade`, `train`, `validate`, `checkpoint` …)."""

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Figures of one step, names in groups by slash (`reward/total`). May come several times for one step."""

    def on_rollouts(self, step: int, rows: Sequence[RolloutRow]) -> None:
        """The finished rollouts of one step, with verdicts, rewards and advantages."""

    def on_eval(self, name: str, result: Mapping[str, Any]) -> None:
        """An evaluation ended; `result` is what `eval/NAME.json` holds."""

    def on_end(self, status: str) -> None:
        """The run ended: `finished`, `interrupted` or `failed`."""


class SilentListener(RunListener):
    """Does nothing: for callers that want to tell nobody, and as the base of listeners that care about some calls."""

    def on_start(self, run_dir: RunDir, total_steps: int) -> None:
        """Nothing."""

    def on_phase(self, step: int, phase: str) -> None:
        """Nothing."""

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def on_rollouts(self, step: int, rows: Sequence[RolloutRow]) -> None:
        """Nothing."""

    def on_eval(self, name: str, result: Mapping[str, Any]) -> None:
        """Nothing."""

    def on_end(self, status: str) -> None:
        """Nothing."""


class CompositeListener(RunListener):
    """Tells several listeners, in order.

    Watching must never stop a run: a listener that raises is dropped with one warning. Errors of the `CrrlError` family
    pass (a recorder that cannot record must stop the run), and so does an interrupt.

    Args:
        listeners: told in this order.
        warn: gets the one line about a dropped listener; standard error by default.
    """

    def __init__(self, *listeners: RunListener, warn: Callable[[str], None] | None = None) -> None:
        self._listeners = list(listeners)
        self._warn = warn or _to_standard_error

    def on_start(self, run_dir: RunDir, total_steps: int) -> None:
        """Tell all."""
        self._tell(lambda listener: listener.on_start(run_dir, total_steps))

    def on_phase(self, step: int, phase: str) -> None:
        """Tell all."""
        self._tell(lambda listener: listener.on_phase(step, phase))

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tell all."""
        self._tell(lambda listener: listener.on_metrics(step, metrics))

    def on_rollouts(self, step: int, rows: Sequence[RolloutRow]) -> None:
        """Tell all."""
        self._tell(lambda listener: listener.on_rollouts(step, rows))

    def on_eval(self, name: str, result: Mapping[str, Any]) -> None:
        """Tell all."""
        self._tell(lambda listener: listener.on_eval(name, result))

    def on_end(self, status: str) -> None:
        """Tell all."""
        self._tell(lambda listener: listener.on_end(status))

    def _tell(self, call: Callable[[RunListener], None]) -> None:
        for listener in tuple(self._listeners):
            try:
                call(listener)
            except CrrlError:
                raise
            except Exception as error:
                self._listeners.remove(listener)
                self._warn(
                    f"{type(listener).__name__} failed and is told nothing more: {type(error).__name__}: {error}"
                )


class RunRecorder(RunListener):
    """Writes what it is told into the run directory; put it first, so that what others show is already durable."""

    def __init__(self) -> None:
        self._run_dir: RunDir | None = None
        self._phase = ""

    def on_start(self, run_dir: RunDir, total_steps: int) -> None:
        """Remember where to write."""
        self._run_dir = run_dir

    def on_phase(self, step: int, phase: str) -> None:
        """Remember the phase for the next metrics."""
        self._phase = phase

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append to `metrics.jsonl`."""
        self._record(lambda run: run.append_metrics(step, metrics, phase=self._phase))

    def on_rollouts(self, step: int, rows: Sequence[RolloutRow]) -> None:
        """Write `rollouts/step-NNNNNN.parquet`."""
        self._record(lambda run: run.write_rollouts(step, rows))

    def on_eval(self, name: str, result: Mapping[str, Any]) -> None:
        """Write `eval/NAME.json`."""
        self._record(lambda run: run.write_eval(name, result))

    def on_end(self, status: str) -> None:
        """Write the end into `environment.json`."""
        self._record(lambda run: run.record_end(status))

    def _record(self, write: Callable[[RunDir], None]) -> None:
        if self._run_dir is None:
            raise MachineryFailed("a run told of its work before it began", where="RunRecorder")
        try:
            write(self._run_dir)
        except OSError as error:
            raise MachineryFailed(
                f"the run cannot be recorded ({error.strerror or error})", where=str(self._run_dir.path)
            ) from error


def _to_standard_error(line: str) -> None:
    sys.stderr.write(f"warning: {line}\n")
