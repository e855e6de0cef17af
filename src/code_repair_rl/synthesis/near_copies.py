"""Near-copies among many texts: every pair of sets of shingles whose Jaccard similarity reaches a threshold.

Exact, and fast where few are alike: two sets that are so much alike share one of their rarest shingles, so only sets
that share one of those are compared (R. Bayardo et al., Scaling up all pairs similarity search, 2007). A hundred
thousand functions take minutes.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

FUNCTION_THRESHOLD = 0.8
"""Jaccard similarity over `plain_shingles` from which two functions are near-copies. Higher than for whole problems:
the code of unrelated functions of one style overlaps more, once it is short."""

_TOKEN = re.compile(r"\w+|[^\w\s]")
_SHINGLE_TOKENS = 4


def plain_shingles(text: str) -> frozenset[int]:
    """Hashes of the stretches of four words and signs of a text in any language; of a shorter text the one there is."""
    tokens = _TOKEN.findall(text)
    count = max(1, len(tokens) - _SHINGLE_TOKENS + 1)
    return frozenset(
        zlib.crc32(" ".join(tokens[start : start + _SHINGLE_TOKENS]).encode()) for start in range(count) if tokens
    )


def similarity(one: AbstractSet[Hashable], two: AbstractSet[Hashable]) -> float:
    """Jaccard similarity, 0 to 1; of two empty sets 0."""
    return len(one & two) / len(one | two) if one | two else 0.0


def near_copies(
    marks: Sequence[frozenset[Hashable]], groups: Sequence[Hashable], threshold: float
) -> list[tuple[int, int]]:
    """The pairs of places in different groups whose marks are alike, the smaller place first, in order.

    Boilerplate that everybody has is compared once: of equal marks in a group the first stands for all, and each of
    the others is paired with the first of the other group only.

    Args:
        marks: the shingles of each text; a text without any is like none.
        groups: of each text.
        threshold: Jaccard similarity, above 0.
    """
    same: dict[tuple[Hashable, frozenset[Hashable]], list[int]] = {}
    for place, (mark, group) in enumerate(zip(marks, groups, strict=True)):
        same.setdefault((group, mark), []).append(place)
    kinds = list(same)
    found: set[tuple[int, int]] = set()
    for one, two in alike([mark for _, mark in kinds], threshold, [group for group, _ in kinds]):
        these, those = same[kinds[one]], same[kinds[two]]
        found |= {_ordered(place, those[0]) for place in these} | {_ordered(these[0], place) for place in those}
    return sorted(found)


def alike(
    marks: Sequence[frozenset[Hashable]], threshold: float, groups: Sequence[Hashable] | None = None
) -> Iterator[tuple[int, int]]:
    """Every pair of places whose marks reach the threshold, the smaller place first; with groups, in different ones."""
    rank = _ranks(marks)
    holders: dict[Hashable, list[int]] = {}
    for place, mark in enumerate(marks):
        candidates: set[int] = set()
        for shingle in _rarest(mark, rank, threshold):
            earlier = holders.setdefault(shingle, [])
            candidates.update(earlier)
            earlier.append(place)
        for other in sorted(candidates):
            apart = groups is None or groups[other] != groups[place]
            if apart and similarity(marks[other], mark) >= threshold:
                yield other, place


def _ranks(marks: Iterable[frozenset[Hashable]]) -> dict[Hashable, int]:
    """The shingles that several have, the rarest first: one order for all, or two alike sets could miss each other."""
    count = Counter(shingle for mark in marks for shingle in mark)
    several = [shingle for shingle, holders in count.items() if holders > 1]
    return {shingle: number for number, shingle in enumerate(sorted(several, key=count.__getitem__))}


def _rarest(mark: frozenset[Hashable], rank: Mapping[Hashable, int], threshold: float) -> list[Hashable]:
    """So many of the rarest shingles that a set that is alike has to share one of its own with them.

    Alike sets share at least `threshold` of either. Were none of these shared, too few others would be left.
    """
    least_shared = math.ceil(threshold * len(mark) - 1e-9)  # a product that is whole may come out a little larger
    in_order = sorted(mark, key=lambda shingle: rank.get(shingle, -1))
    return [shingle for shingle in in_order[: len(mark) - least_shared + 1] if shingle in rank]


def _ordered(one: int, two: int) -> tuple[int, int]:
    return min(one, two), max(one, two)
