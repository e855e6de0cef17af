"""Near-copies among many functions: MinHash to find candidates, exact Jaccard similarity to decide.

For sets of functions, in place of `duplicates`, which compares whole problems pair by pair: here a hundred thousand
functions take minutes (A. Broder, On the resemblance and containment of documents, 1997).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Hashable, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

THRESHOLD = 0.8
"""Jaccard similarity over shingles from which two functions are near-copies. Higher than for whole problems: the code
of unrelated functions of one style overlaps more, once it is short."""

_TOKEN = re.compile(r"\w+|[^\w\s]")
_SHINGLE_TOKENS = 4
_BANDS, _ROWS = 16, 4
"""A pair with similarity 0.8 shares a band with probability 1 - (1 - 0.8^4)^16 = 0.9998."""


def near_copies(
    texts: Sequence[str], groups: Sequence[Hashable], threshold: float = THRESHOLD
) -> list[tuple[int, int]]:
    """The pairs of places in different groups whose texts are near-copies of each other, the smaller place first.

    Boilerplate that everybody has is compared once: of texts with the same shingles in a group the first stands for
    all, and each of the others is paired with the first of the other group only.
    """
    same: dict[tuple[Hashable, frozenset[int]], list[int]] = {}
    for place, (text, group) in enumerate(zip(texts, groups, strict=True)):
        if shingles := _shingles(text):
            same.setdefault((group, shingles), []).append(place)
    kinds = list(same)
    candidates: set[tuple[int, int]] = set()
    buckets: dict[tuple[int, bytes], list[int]] = {}
    for number, (group, shingles) in enumerate(kinds):
        signature = _signature(shingles)
        for band in range(_BANDS):
            key = (band, signature[band * _ROWS : (band + 1) * _ROWS].tobytes())
            earlier = buckets.setdefault(key, [])
            candidates.update((other, number) for other in earlier if kinds[other][0] != group)
            earlier.append(number)
    found: set[tuple[int, int]] = set()
    for one, two in candidates:
        if _jaccard(kinds[one][1], kinds[two][1]) >= threshold:
            these, those = same[kinds[one]], same[kinds[two]]
            found |= {_ordered(place, those[0]) for place in these} | {_ordered(these[0], place) for place in those}
    return sorted(found)


def _ordered(one: int, two: int) -> tuple[int, int]:
    return min(one, two), max(one, two)


def _shingles(text: str) -> frozenset[int]:
    tokens = _TOKEN.findall(text)
    count = max(1, len(tokens) - _SHINGLE_TOKENS + 1)
    return frozenset(
        zlib.crc32(" ".join(tokens[start : start + _SHINGLE_TOKENS]).encode()) for start in range(count) if tokens
    )


def _signature(shingles: frozenset[int]) -> NDArray[np.uint64]:
    """`(BANDS * ROWS,)` minima of as many hash functions."""
    import numpy as np

    factors, shifts = _hashes()
    values = np.fromiter(shingles, dtype=np.uint64, count=len(shingles))
    # Multiply-shift hashing: unsigned arithmetic wraps around on purpose, and the upper half is used.
    with np.errstate(over="ignore"):
        hashed = (values[:, None] * factors[None] + shifts[None]) >> np.uint64(32)
    least: NDArray[np.uint64] = hashed.min(axis=0)
    return least


@cache
def _hashes() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    import numpy as np

    rng = np.random.default_rng(20240601)
    count = _BANDS * _ROWS
    factors = rng.integers(1, 1 << 63, size=count, dtype=np.uint64) | np.uint64(1)
    return factors, rng.integers(0, 1 << 63, size=count, dtype=np.uint64)


def _jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    return len(one & other) / len(one | other)
