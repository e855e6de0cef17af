"""Where the fault probably is: spectrum-based fault localisation.

Ochiai's coefficient ranks a line by how well "this test executes it" goes with "this test fails". Source: Abreu,
Zoeteweij and van Gemund, "On the Accuracy of Spectrum-based Fault Localization", 2007.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def ochiai(failing_with: int, passing_with: int, failing: int) -> float:
    """Suspiciousness of a line, between 0 and 1.

    Args:
        failing_with: failing tests that execute the line.
        passing_with: passing tests that execute it.
        failing: all failing tests.
    """
    if not failing_with:
        return 0.0
    return failing_with / math.sqrt(failing * (failing_with + passing_with))


def ranked_lines(spectrum: Iterable[tuple[int, int, int]], failing: int) -> list[int]:
    """Line numbers, most suspicious first; lines that no failing test executes are left out.

    Lines of equal rank stand in the order of the text: there is nothing else to tell them apart by.

    Args:
        spectrum: for each executed line its number, failing tests that execute it, passing tests that do.
        failing: all failing tests.
    """
    scores = {line: ochiai(failed, passed, failing) for line, failed, passed in spectrum if failed}
    return sorted(scores, key=lambda line: (-scores[line], line))


def rank_of(lines: Sequence[int], wanted: Iterable[int]) -> int | None:
    """The 1-based rank of the best placed of `wanted`; None where none is ranked."""
    ranks = [lines.index(line) + 1 for line in wanted if line in lines]
    return min(ranks, default=None)
