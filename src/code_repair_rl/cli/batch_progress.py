"""How far long work has got: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)


class Batches(Protocol):
    """What is told after every batch."""

    @property
    def done(self) -> int:
        """Tasks so far."""
        ...

    @property
    def total(self) -> int:
        """Tasks of all."""
        ...

    @property
    def passed(self) -> int:
        """Answers that passed so far."""
        ...

    @property
    def graded(self) -> int:
        """Answers with a verdict so far."""
        ...


_Told = TypeVar("_Told", bound=Batches)


@contextmanager
def batch_progress(verb: str, total: int, more: Callable[[_Told], str]) -> Iterator[Callable[[_Told], None]]:
    """Batches as a progress bar in a terminal, as plain lines elsewhere.

    Args:
        verb: what is being done.
        total: tasks.
        more: what to say of a batch after its pass rate.
    """
    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn(verb),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tasks, {task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)

        def tell(told: _Told) -> None:
            rate = f"{100 * told.passed / told.graded:.0f} % pass" if told.graded else "no verdict yet"
            words = f"{rate}, {more(told)}"
            bar.update(task, completed=told.done, total=told.total, description=words)
            if not console.is_terminal:
                console.print(f"{told.done} of {told.total} tasks, {words}", markup=False)

        yield tell


class Steps(Protocol):
    """Is told how far a named step has got."""

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total`, and what else there is to say."""
        ...


@contextmanager
def step_progress(console: Console | None = None) -> Iterator[Steps]:
    """Named steps, each with how much of it is done and how much there is: a bar each, or a line at every tenth.

    Args:
        console: where to show them; without one, standard error.
    """
    console = console or Console(stderr=True, highlight=False)
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        begun: dict[str, TaskID] = {}
        said: dict[str, int] = {}

        def report(step: str, done: int, total: int, note: str = "") -> None:
            if step not in begun:
                begun[step] = bars.add_task(step, total=total, note=note)
            bars.update(begun[step], completed=done, total=total, note=note)
            tenths = 10 * done // max(1, total)
            if not console.is_terminal and tenths != said.get(step):
                said[step] = tenths
                console.print(f"{step}: {done} of {total}{note and f', {note}'}", markup=False)

        yield report
