"""The listeners that a recipe asks for, together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console

from code_repair_rl.errors import BadInput
from code_repair_rl.reporting.live import LiveDisplay
from code_repair_rl.runs import CompositeListener, RunListener


class Tracking(Protocol):
    """What of a recipe says who is told about a run."""

    @property
    def wandb(self) -> str:
        """`off`, `offline` or `online`."""
        ...

    @property
    def trackio(self) -> bool:
        """Whether trackio is told."""
        ...

    @property
    def project(self) -> str:
        """The project's name in both."""
        ...


@contextmanager
def listeners(tracking: Tracking, *, console: Console | None = None, title: str = "training") -> Iterator[RunListener]:
    """The live display, and the trackers that were asked for; closed when the block ends, however it ends.

    Raises:
        BadInput: `tracking.wandb` is none of its values.
    """
    display = LiveDisplay(title, console)
    chosen: list[RunListener] = [display, *trackers(tracking)]
    try:
        yield CompositeListener(*chosen)
    finally:
        display.close()


def trackers(tracking: Tracking) -> list[RunListener]:
    """The trackers that were asked for; none by default.

    Raises:
        BadInput: `tracking.wandb` is none of its values.
    """
    from code_repair_rl.reporting.tracking import TrackioListener, WandbListener

    found: list[RunListener] = []
    if tracking.wandb == "offline" or tracking.wandb == "online":
        found.append(WandbListener(tracking.project, "online" if tracking.wandb == "online" else "offline"))
    elif tracking.wandb != "off":
        raise BadInput(
            f"there is no mode {tracking.wandb!r}", where="tracking.wandb", mend="use off, offline or online"
        )
    if tracking.trackio:
        found.append(TrackioListener(tracking.project))
    return found
