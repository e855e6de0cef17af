"""Where a search that was not found nearly stands, and how it differs: for messages, so bounded, not complete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

_MAX_LINES = 5000
"""Lines of the file that are looked at one by one."""
_MAX_SEARCH_LINES = 200
_MAX_PLACES_OF_A_LINE = 20
_SHOWN_CHARACTERS = 120
_LEAST_SIMILARITY = 60.0
"""In per cent, rapidfuzz's `ratio`: below it a line is no likely candidate."""


def describe_nearest(lines: Sequence[str], search: Sequence[str]) -> tuple[int | None, str]:
    """The 1-based line of the nearest place (None if nothing is near), and a sentence on how it differs."""
    place = _place_by_equal_lines(lines, search)
    if place is None:
        place = _place_by_similar_line(lines, search)
    if place is None:
        return None, "copy the SEARCH lines from the file as they stand there"
    return place + 1, _difference(lines, search, place)


def _place_by_equal_lines(lines: Sequence[str], search: Sequence[str]) -> int | None:
    """The offset on which most lines agree, blanks around them aside."""
    where: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        places = where.setdefault(line.strip(), [])
        if len(places) < _MAX_PLACES_OF_A_LINE:
            places.append(number)
    votes: Counter[int] = Counter()
    for offset, line in enumerate(search[:_MAX_SEARCH_LINES]):
        bare = line.strip()
        if bare:
            votes.update(number - offset for number in where.get(bare, ()) if number >= offset)
    if not votes:
        return None
    most = max(votes.values())
    return min(place for place, count in votes.items() if count == most)


def _place_by_similar_line(lines: Sequence[str], search: Sequence[str]) -> int | None:
    from rapidfuzz import fuzz, process

    offset = max(range(min(len(search), _MAX_SEARCH_LINES)), key=lambda index: len(search[index].strip()))
    wanted = search[offset].strip()[: 10 * _SHOWN_CHARACTERS]
    choices = [line.strip()[: 10 * _SHOWN_CHARACTERS] for line in lines[:_MAX_LINES]]
    best = process.extractOne(wanted, choices, scorer=fuzz.ratio, score_cutoff=_LEAST_SIMILARITY)
    return None if best is None else max(0, best[2] - offset)


def _difference(lines: Sequence[str], search: Sequence[str], place: int) -> str:
    there = lines[place : place + len(search)]
    if [line.rstrip() for line in there] == [line.rstrip() for line in search]:
        return f"line {place + 1} differs only in white space at the ends of lines"
    if [line.strip() for line in there] == [line.strip() for line in search]:
        return f"line {place + 1} differs only in indentation"
    for offset, wanted in enumerate(search):
        if place + offset >= len(lines):
            return f"the file ends at line {len(lines)}, but SEARCH goes on with {_shown(wanted)}"
        if lines[place + offset] != wanted:
            return f"line {place + offset + 1} is {_shown(lines[place + offset])}, but SEARCH has {_shown(wanted)}"
    return f"see line {place + 1}"


def _shown(line: str) -> str:
    return repr(line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS] + "…")
