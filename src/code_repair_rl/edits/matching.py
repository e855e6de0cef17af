"""Which lines differ between two texts: a longest common subsequence, in bounded memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

_MOST_CELLS = 4 * 10**8
"""Largest product of two lengths that is compared exactly: rapidfuzz keeps one bit for each cell, so 50 MB."""


@dataclass(frozen=True, slots=True)
class Change:
    """Items `begin` to `end` become items `new_begin` to `new_end` (0-based, ends excluded)."""

    begin: int
    end: int
    new_begin: int
    new_end: int


def line_changes(before: Sequence[str], after: Sequence[str]) -> list[Change]:
    """What differs, from the top: as few items as can be, unless the texts are too long to compare exactly."""
    head = 0
    most = min(len(before), len(after))
    while head < most and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < most - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    end, new_end = len(before) - tail, len(after) - tail
    if head == end and head == new_end:
        return []
    if head in (end, new_end):
        return [Change(head, end, head, new_end)]
    # rapidfuzz compares hashes; small integers are their own, so that no two lines are ever taken for each other.
    numbers: dict[str, int] = {}
    old = [numbers.setdefault(line, len(numbers)) for line in before[head:end]]
    new = [numbers.setdefault(line, len(numbers)) for line in after[head:new_end]]
    return [
        Change(one.begin + head, one.end + head, one.new_begin + head, one.new_end + head)
        for one in _joined(_changes(old, new, 0, 0))
    ]


def _changes(old: list[int], new: list[int], at: int, new_at: int) -> list[Change]:
    if not old and not new:
        return []
    if not old or not new:
        return [Change(at, at + len(old), new_at, new_at + len(new))]
    if len(old) * len(new) <= _MOST_CELLS:
        return _exact_changes(old, new, at, new_at)
    changes: list[Change] = []
    begin = new_begin = 0
    for anchor, new_anchor in [*_anchors(old, new), (len(old), len(new))]:
        piece, new_piece = old[begin:anchor], new[new_begin:new_anchor]
        if len(piece) * len(new_piece) <= _MOST_CELLS:
            changes += _changes(piece, new_piece, at + begin, new_at + new_begin)
        else:
            changes.append(Change(at + begin, at + anchor, new_at + new_begin, new_at + new_anchor))
        begin, new_begin = anchor + 1, new_anchor + 1
    return changes


def _exact_changes(old: list[int], new: list[int], at: int, new_at: int) -> list[Change]:
    from rapidfuzz.distance import LCSseq

    return [
        Change(at + code.src_start, at + code.src_end, new_at + code.dest_start, new_at + code.dest_end)
        for code in LCSseq.opcodes(old, new)
        if code.tag != "equal"
    ]


def _joined(changes: list[Change]) -> list[Change]:
    """A deletion and an insertion that touch are one replacement."""
    joined: list[Change] = []
    for one in changes:
        if joined and joined[-1].end == one.begin and joined[-1].new_end == one.new_begin:
            above = joined.pop()
            one = Change(above.begin, one.end, above.new_begin, one.new_end)
        joined.append(one)
    return joined


def _anchors(old: list[int], new: list[int]) -> list[tuple[int, int]]:
    """Items that stand once in each and in the same order (the longest such run): patience diff's anchors."""
    where = _single(old)
    pairs = [(where[item], place) for item, place in _single(new).items() if item in where]
    pairs.sort(key=lambda pair: pair[1])
    tails: list[int] = []
    ends: list[int] = []
    previous = [-1] * len(pairs)
    for index, (place, _) in enumerate(pairs):
        length = bisect_left(tails, place)
        previous[index] = ends[length - 1] if length else -1
        tails[length : length + 1] = [place]
        ends[length : length + 1] = [index]
    run = []
    index = ends[-1] if ends else -1
    while index >= 0:
        run.append(pairs[index])
        index = previous[index]
    return run[::-1]


def _single(items: list[int]) -> dict[int, int]:
    places: dict[int, int] = {}
    for place, item in enumerate(items):
        places[item] = -1 if item in places else place
    return {item: place for item, place in places.items() if place >= 0}
