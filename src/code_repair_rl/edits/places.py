"""How much context a range of lines needs until it stands in one place only."""

from __future__ import annotations

from collections.abc import Sequence

_COMPARISONS_PER_LINE = 50
_LEAST_COMPARISONS = 200_000
"""Candidates compared for one file before the search goes over to doubling: only files of endless repetition do."""


class LinePlaces:
    """The lines of one file, indexed by text."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines
        self.where: dict[str, list[int]] = {}
        for number, line in enumerate(lines):
            self.where.setdefault(line, []).append(number)
        self._body: str | None = None
        self._left = _LEAST_COMPARISONS + _COMPARISONS_PER_LINE * len(lines)

    def grow_until_unique(self, begin: int, end: int) -> tuple[int, int]:
        """The range with the lines above and below that it takes for no other place of the file to have the same.

        At least one line; each step takes the side that leaves fewer places, and at a tie the side with less context.
        """
        lines = self.lines
        low, high = begin, end
        if low == high:
            above = len(self.where[lines[low - 1]]) if low > 0 else len(lines) + 1
            below = len(self.where[lines[low]]) if low < len(lines) else len(lines) + 1
            low, high = (low - 1, high) if above <= below else (low, high + 1)
        if self._left < 0:
            return self._double_until_unique(low, high)
        others = self._other_places(low, high)
        while others:
            self._left -= 2 * len(others)
            if self._left < 0:
                return self._double_until_unique(low, high)
            size = high - low
            up = [place for place in others if place > 0 and lines[place - 1] == lines[low - 1]] if low > 0 else others
            down = (
                [place for place in others if place + size < len(lines) and lines[place + size] == lines[high]]
                if high < len(lines)
                else others
            )
            go_up = low > 0 and (
                high == len(lines) or len(up) < len(down) or (len(up) == len(down) and begin - low <= high - end)
            )
            if go_up:
                others = [place - 1 for place in up]
                low -= 1
            else:
                others = down
                high += 1
        return low, high

    def shrink_while_unique(self, begin: int, end: int, low: int, high: int) -> tuple[int, int]:
        """The range from `low` to `high` without context at its ends that the lines from `begin` to `end` can spare."""
        while low < begin and high - low > 1 and self._left >= 0 and not self._other_places(low + 1, high):
            low += 1
        while high > end and high - low > 1 and self._left >= 0 and not self._other_places(low, high - 1):
            high -= 1
        return low, high

    def _other_places(self, low: int, high: int) -> list[int]:
        """Where else the lines from `low` to `high` begin."""
        lines, wanted = self.lines, self.lines[low:high]
        rarest = min(range(low, high), key=lambda number: len(self.where[lines[number]]))
        offset = rarest - low
        self._left -= len(self.where[lines[rarest]])
        return [
            place - offset
            for place in self.where[lines[rarest]]
            if place != rarest
            and place >= offset
            and lines[place - offset] == wanted[0]
            and lines[place - offset : place - offset + len(wanted)] == wanted
        ]

    def _double_until_unique(self, low: int, high: int) -> tuple[int, int]:
        """Not the least context, but found in time that hardly grows with the number of places."""
        if self._body is None:
            self._body = "\n" + "\n".join(self.lines) + "\n"
        step = 1
        while not self._is_unique(self._body, low, high):
            low, high = max(0, low - step), min(len(self.lines), high + step)
            step *= 2
        return low, high

    def _is_unique(self, body: str, low: int, high: int) -> bool:
        needle = "\n" + "\n".join(self.lines[low:high]) + "\n"
        first = body.find(needle)
        return body.find(needle, first + 1) < 0
