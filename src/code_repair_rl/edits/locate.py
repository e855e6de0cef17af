"""Find where the lines of a SEARCH stand in a file: whole lines, one place, rung by rung."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from code_repair_rl.edits.errors import EditError, EditErrorKind
from code_repair_rl.edits.patch import Hunk, Tolerance

_RUNGS = tuple(Tolerance)
MAX_PLACES = 100
"""Most places that an ambiguous search reports."""
_INDEX_FROM_HUNKS = 16
"""Hunks from which on an index of the file's lines is quicker than searching its text for each."""
_BLANKS = " \t\r\f\v"


@dataclass(frozen=True, slots=True)
class Located:
    """Lines `begin` to `end` (0-based, end excluded) of the file become `replace`."""

    begin: int
    end: int
    replace: tuple[str, ...]
    rung: Tolerance
    hunk: Hunk


class SearchableFile:
    """The lines of one file, ready to be searched by many hunks."""

    def __init__(self, path: str, lines: Sequence[str], *, hunks: int = 1) -> None:
        self.path = path
        self.lines = lines
        self._bodies: dict[Tolerance, str] = {}
        self._where = _index(lines) if hunks >= _INDEX_FROM_HUNKS else None

    def locate(self, hunk: Hunk, tolerance: Tolerance) -> Located:
        """The place of `hunk`'s SEARCH under the strictest rung that finds one.

        Raises:
            EditError: `SEARCH_NOT_FOUND`, `AMBIGUOUS`, or `EMPTY_SEARCH`.
        """
        if not hunk.search:
            return self._locate_insertion(hunk)
        for rung in _RUNGS:
            if rung.rank > tolerance.rank:
                break
            places = self._places(hunk, rung)
            if hunk.at is not None and len(places) > 1 and hunk.at - 1 in places:
                places = [hunk.at - 1]
            if len(places) > 1:
                raise self._ambiguous(hunk, places)
            if places:
                return self._located(hunk, places[0], rung)
        from code_repair_rl.edits.nearest import describe_nearest

        line, hint = describe_nearest(self.lines, hunk.search)
        raise EditError(
            EditErrorKind.SEARCH_NOT_FOUND,
            "the SEARCH lines do not stand in the file",
            line=hunk.line,
            path=self.path,
            places=() if line is None else (line,),
            hint=hint,
        )

    def _locate_insertion(self, hunk: Hunk) -> Located:
        at = 1 if hunk.at is None else hunk.at
        if hunk.at is None and self.lines:
            raise EditError(
                EditErrorKind.EMPTY_SEARCH,
                "an empty SEARCH creates a file, but this one is there and has text",
                line=hunk.line,
                path=self.path,
                hint="put the line next to the place of the change into SEARCH",
            )
        if at > len(self.lines) + 1:
            raise EditError(
                EditErrorKind.SEARCH_NOT_FOUND,
                f"the file has {len(self.lines)} lines, so nothing can be inserted before line {at}",
                line=hunk.line,
                path=self.path,
                places=(max(1, len(self.lines)),),
            )
        return Located(at - 1, at - 1, hunk.replace, Tolerance.EXACT, hunk)

    def _places(self, hunk: Hunk, rung: Tolerance) -> list[int]:
        """0-based lines at which the search stands; of more than `MAX_PLACES`, the first ones (and `at`)."""
        if rung is Tolerance.INDENTATION and not any(line.strip(_BLANKS) for line in hunk.search):
            return []
        if rung is Tolerance.EXACT and (indexed := self._indexed_places(hunk.search)) is not None:
            return indexed
        simplify = _SIMPLIFY[rung]
        body = self._bodies.get(rung)
        if body is None:
            body = self._bodies[rung] = _body(self.lines, simplify)
        needle = _body(hunk.search, simplify)
        shifted = rung is Tolerance.INDENTATION
        places: list[int] = []
        position = body.find(needle)
        line = 0
        counted = 0
        while position >= 0:
            line += body.count("\n", counted, position)
            counted = position
            wanted = len(places) < MAX_PLACES or line + 1 == hunk.at
            if wanted and (not shifted or _shift(self.lines[line : line + len(hunk.search)], hunk.search) is not None):
                places.append(line)
            if len(places) >= MAX_PLACES and (hunk.at is None or line >= hunk.at):
                break
            position = body.find(needle, position + 1)
        return places

    def _indexed_places(self, search: tuple[str, ...]) -> list[int] | None:
        """As `_places` for exact matches, by the search's rarest line; None where that is no quicker."""
        if self._where is None:
            return None
        offset, rarest = 0, self._where.get(search[0], [])
        for number, line in enumerate(search):
            places = self._where.get(line, [])
            if len(places) < len(rarest):
                offset, rarest = number, places
        if len(rarest) > MAX_PLACES:
            return None
        starts = [place - offset for place in rarest if place >= offset]
        return [start for start in starts if tuple(self.lines[start : start + len(search)]) == search]

    def _located(self, hunk: Hunk, begin: int, rung: Tolerance) -> Located:
        end = begin + len(hunk.search)
        replace = hunk.replace
        if rung is Tolerance.EXACT:
            return Located(begin, end, replace, rung, hunk)
        if rung is Tolerance.INDENTATION:
            shift = _shift(self.lines[begin:end], hunk.search)
            assert shift is not None
            moved = shift.move(replace)
            if moved is None:
                raise EditError(
                    EditErrorKind.SEARCH_NOT_FOUND,
                    "the SEARCH lines are indented deeper than the file's, and a REPLACE line cannot follow them",
                    line=hunk.line,
                    path=self.path,
                    places=(begin + 1,),
                    hint="indent SEARCH as the file does",
                )
            replace = moved
        return Located(begin, end, self._with_kept_lines(hunk, begin, replace), rung, hunk)

    def _with_kept_lines(self, hunk: Hunk, begin: int, replace: tuple[str, ...]) -> tuple[str, ...]:
        """`replace` with the lines that it repeats from SEARCH, at its beginning and end, as the file has them."""
        most = min(len(hunk.search), len(hunk.replace))
        above = 0
        while above < most and hunk.search[above] == hunk.replace[above]:
            above += 1
        below = 0
        while below < most - above and hunk.search[-1 - below] == hunk.replace[-1 - below]:
            below += 1
        end = begin + len(hunk.search)
        return (
            *self.lines[begin : begin + above],
            *replace[above : len(replace) - below],
            *self.lines[end - below : end],
        )

    def _ambiguous(self, hunk: Hunk, places: list[int]) -> EditError:
        numbers = tuple(place + 1 for place in places)
        shown = ", ".join(str(number) for number in numbers[:8]) + (" …" if len(numbers) > 8 else "")
        return EditError(
            EditErrorKind.AMBIGUOUS,
            f"the SEARCH lines stand in several places (lines {shown})",
            line=hunk.line,
            path=self.path,
            places=numbers,
            hint="add the lines above or below to SEARCH and REPLACE until only one place fits",
        )


def _index(lines: Sequence[str]) -> dict[str, list[int]]:
    where: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        where.setdefault(line, []).append(number)
    return where


def _body(lines: Sequence[str], simplify: Callable[[str], str] | None) -> str:
    """Lines each between line feeds, so that a substring search finds whole lines only."""
    return "\n" + "\n".join(lines if simplify is None else map(simplify, lines)) + "\n"


_SIMPLIFY: dict[Tolerance, Callable[[str], str] | None] = {
    Tolerance.EXACT: None,
    Tolerance.TRAILING_WHITESPACE: lambda line: line.rstrip(_BLANKS),
    Tolerance.INDENTATION: lambda line: line.strip(_BLANKS),
}


@dataclass(frozen=True, slots=True)
class _Shift:
    """What leads every line of SEARCH that is not blank to its line in the file."""

    add: str
    remove: str

    def move(self, lines: Sequence[str]) -> tuple[str, ...] | None:
        """The lines shifted; None if one of them is not indented by what there is to remove."""
        moved = []
        for line in lines:
            if not line.strip(_BLANKS):
                moved.append(line)
            elif line.startswith(self.remove):
                moved.append(self.add + line[len(self.remove) :])
            else:
                return None
        return tuple(moved)


def _shift(file_lines: Sequence[str], search: Sequence[str]) -> _Shift | None:
    """The one shift that fits all lines that are not blank; their texts are known to agree but for blanks around."""
    shift: _Shift | None = None
    for there, wanted in zip(file_lines, search, strict=True):
        bare = wanted.strip(_BLANKS)
        if not bare:
            continue
        have = there[: len(there) - len(there.lstrip(_BLANKS))]
        want = wanted[: len(wanted) - len(wanted.lstrip(_BLANKS))]
        if shift is None:
            if have.endswith(want):
                shift = _Shift(have[: len(have) - len(want)], "")
            elif want.endswith(have):
                shift = _Shift("", want[: len(want) - len(have)])
            else:
                return None
        if not want.startswith(shift.remove) or shift.add + want[len(shift.remove) :] != have:
            return None
    return shift
