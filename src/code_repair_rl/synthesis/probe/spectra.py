"""Run one piece of code under a count of executed lines: which lines, how many, and a stop where it runs away.

Counting executed lines instead of seconds makes the limit, and with it the set of kept mutants, the same on a busy
machine and an idle one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

SOLUTION = "<solution>"
"""The file name under which the observed code is compiled."""

RAN_AWAY = 77
"""Exit status of a process that used up its lines."""


class LineCounter:
    """Counts the lines that code compiled as `SOLUTION` executes, and remembers which.

    Watching makes code some ten times slower; without it nothing is counted and nothing stopped.
    """

    def __init__(self, most: int, on_excess: Callable[[], None], *, watching: bool = True) -> None:
        self._watching = watching
        self.executed = 0
        self.lines: set[int] = set()
        self._most = most
        self._on_excess = on_excess

    def call(self, function: Callable[[], Any]) -> Any:
        """Run `function` and count; what it returns or raises comes through."""
        if not self._watching:
            return function()
        sys.settrace(self._enter)
        try:
            return function()
        finally:
            sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        return self._line if frame.f_code.co_filename == SOLUTION else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        if event == "line":
            self.lines.add(frame.f_lineno)
            self.executed += 1
            if self.executed > self._most:
                # Not an exception: the code under observation may well have a bare `except`.
                self._on_excess()
                os._exit(RAN_AWAY)
        return self._line
