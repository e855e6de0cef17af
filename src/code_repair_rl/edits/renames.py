"""Which deleted file lives on as which new one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

_MOST_PAIRS = 400
"""Pairs of files compared by content; beyond it only equal texts are taken for renames."""
_LEAST_SIMILARITY = 0.5
"""Share of equal lines from which on a file counts as renamed: git's default."""


def find_renames(gone: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Old path to new path: equal texts first, then the most similar ones."""
    if not gone or not new:
        return {}
    renames: dict[str, str] = {}
    by_text: dict[str, list[str]] = {}
    for path, text in new.items():
        if text:
            by_text.setdefault(text, []).append(path)
    for path, text in gone.items():
        if by_text.get(text):
            renames[path] = by_text[text].pop(0)
    taken = set(renames.values())
    left = [path for path in gone if path not in renames]
    free = [path for path in new if path not in taken]
    if not 0 < len(left) * len(free) <= _MOST_PAIRS:
        return renames
    lines = {path: Counter(text.split("\n")) for tree in (gone, new) for path, text in tree.items()}
    pairs = [(_similarity(lines[old], lines[path]), old, path) for old in left for path in free]
    for similarity, old, path in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if similarity < _LEAST_SIMILARITY:
            break
        if old not in renames and path not in taken:
            renames[old] = path
            taken.add(path)
    return renames


def _similarity(one: Counter[str], other: Counter[str]) -> float:
    """Share of lines in common, by characters, so that blank lines do not count."""
    common = sum(len(line) * count for line, count in (one & other).items())
    most = max(sum(len(line) * count for line, count in side.items()) for side in (one, other))
    return common / most if most else 0.0
