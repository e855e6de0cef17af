"""What a person sees of a journey in the terminal."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

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
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> ConsoleWatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._stage.close()

    def stage(self, stage: Stage) -> RunListener:
        """Announce the stage and open its display."""
        self._stage.close()
        self._bar, self._tasks = None, {}
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
        """Show a bar for the step."""
        self._show(step, done, total)

    def evaluated(self, progress: EvaluationProgress) -> None:
        """Show a bar with the pass rate so far."""
        rate = 100 * progress.passed / progress.graded if progress.graded else 0.0
        self._show("tasks", progress.done, progress.total, f"{rate:.1f} % pass")

    def _show(self, step: str, done: int, total: int, note: str = "") -> None:
        if self._bar is None:
            columns = (
                TextColumn("  {task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self._bar = self._stage.enter_context(Progress(*columns, console=self._console))
        if step not in self._tasks:
            self._tasks[step] = self._bar.add_task(step, total=total, note=note)
        self._bar.update(self._tasks[step], completed=done, total=total, note=note)
