"""The changes between two versions of a file, grouped by the function they lie in, each to be taken back alone."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from code_repair_rl.edits.lines import whole_lines
from code_repair_rl.synthesis.outer_functions import first_line_of, outer_functions


@dataclass(frozen=True, slots=True)
class Hunk:
    """One stretch of lines that differs."""

    unit: str
    """Qualified name of the function around it in the newer text; of the place, where it lies in none."""
    old: tuple[int, int]
    """First line and the one after the last in the older text, from 0."""
    new: tuple[int, int]
    """The same in the newer text."""


def hunks(old: str, new: str) -> list[Hunk]:
    """What changed from `old` to `new`, in the order of the text.

    Raises:
        SyntaxError: `new` is not Python.
    """
    before, after = whole_lines(old), whole_lines(new)
    units = _units(new)
    matcher = difflib.SequenceMatcher(a=before, b=after, autojunk=False)
    return [
        Hunk(_unit_at(units, start, max(end, start + 1)), (first, last), (start, end))
        for tag, first, last, start, end in matcher.get_opcodes()
        if tag != "equal"
    ]


def reverted(old: str, new: str, taken_back: Collection[Hunk]) -> str:
    """`new` with some of `hunks(old, new)` as they were in `old`; with all of them it is `old`."""
    before, after = whole_lines(old), whole_lines(new)
    for hunk in sorted(taken_back, key=lambda one: one.new, reverse=True):
        after[hunk.new[0] : hunk.new[1]] = before[hunk.old[0] : hunk.old[1]]
    return "".join(after)


def _units(text: str) -> list[tuple[int, int, str]]:
    """First line, the one after the last, from 0, and name of functions and methods (not what is nested in them)."""
    found = outer_functions(ast.parse(text))
    return [(first_line_of(one) - 1, one.end_lineno or one.lineno, name) for name, one in found]


def _unit_at(units: Sequence[tuple[int, int, str]], start: int, end: int) -> str:
    for first, last, name in units:
        if first < end and start < last:
            return name
    return f"line {start + 1}"
