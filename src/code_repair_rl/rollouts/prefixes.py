"""Which prompts are computed together: those that begin alike, as later turns of attempts at one task do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_LEAST_SHARE = 0.5
"""What prompts have in common is this share of the longest at least: else they had better be computed in one go."""
_LEAST_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Place:
    """Rows whose prompts begin alike."""

    rows: tuple[tuple[int, int], ...]
    """Of each its prompt's number, and its number among that prompt's completions."""
    shared: int
    """Tokens that all these prompts begin with; never more than one of them has."""


def apart(prompts: Sequence[Sequence[int]], counts: Sequence[int], max_rows: int) -> list[Place]:
    """Every prompt for itself, with at most `max_rows` rows a place."""
    return [
        Place(tuple((number, row) for row in range(start, min(start + max_rows, count))), len(prompt))
        for number, (prompt, count) in enumerate(zip(prompts, counts, strict=True))
        for start in range(0, count, max_rows)
    ]


def alike(prompts: Sequence[Sequence[int]], counts: Sequence[int], max_rows: int) -> list[Place]:
    """As `apart`, but neighbours that begin alike share a place, as far as their rows fit into it."""
    places: list[Place] = []
    for place in apart(prompts, counts, max_rows):
        joined = _joined(places[-1], place, prompts) if places else None
        if joined is not None and len(joined.rows) <= max_rows:
            places[-1] = joined
        else:
            places.append(place)
    return places


def _joined(one: Place, other: Place, prompts: Sequence[Sequence[int]]) -> Place | None:
    here = prompts[one.rows[0][0]][: one.shared]
    shared = common_prefix(here, prompts[other.rows[0][0]])
    longest = max(len(prompts[number]) for number, _ in (*one.rows, *other.rows))
    if shared < _LEAST_TOKENS or shared < _LEAST_SHARE * longest:
        return None
    return Place((*one.rows, *other.rows), shared)


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    length = min(len(one), len(other))
    return next((place for place in range(length) if one[place] != other[place]), length)
