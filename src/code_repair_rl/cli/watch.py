"""What a person sees of a journey in the terminal."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rich.console import Console

from code_repair_rl.cli.batch_progress import Steps, step_progress
from code_repair_rl.pipelines.journey import Stage, Watcher
from code_repair_rl.reporting import duration, listeners, trackers
from code_repair_rl.runs import CompositeListener, SilentListener

if TYPE_CHECKING:
    from code_repair_rl.evaluation import Progress as EvaluationProgress
    from code_repair_rl.recipes import Recipe
    from code_repair_rl.runs import RunListener


class ConsoleWatcher(Watcher):
    """Shows the stages of a journey in the terminal, one live display after the other."""

    def __init__(self, console: Console, recipe: Recipe) -> None:
        self._console = console
        self._recipe = recipe
        self._began = time.monotonic()
        self._stage = ExitStack()
        self._steps: Steps | None = None

    def __enter__(self) -> ConsoleWatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._stage.close()

    def stage(self, stage: Stage) -> RunListener:
        """Announce the stage and open its display."""
        self._stage.close()
        self._steps = None
        since = duration(time.monotonic() - self._began)
        self._console.print(f"[bold]{stage.title}[/bold] [dim]({since} so far)[/dim]")
        if stage.name.startswith("eval "):
            return CompositeListener(*trackers(self._recipe.tracking))
        if stage.name not in ("sft", "grpo", "control"):
            return SilentListener()
        return self._stage.enter_context(
            listeners(self._recipe.tracking, console=self._console, title=f"{self._recipe.name}: {stage.name}")
        )

    def built(self, step: str, done: int, total: int) -> None:
        """Show how far the step has got."""
        self._show(step, done, total)

    def evaluated(self, progress: EvaluationProgress) -> None:
        """Show how far it has got, with the pass rate so far."""
        rate = 100 * progress.passed / progress.graded if progress.graded else 0.0
        self._show("tasks", progress.done, progress.total, f"{rate:.1f} % pass")

    def _show(self, step: str, done: int, total: int, note: str = "") -> None:
        if self._steps is None:
            self._steps = self._stage.enter_context(step_progress(self._console))
        self._steps(step, done, total, note)
