"""Functions that somebody labelled as vulnerable or not, whatever file they came from, and their pairs.

The readers of the single sources (`vulnerabilities_primevul`, `vulnerabilities_sven`, `vulnerabilities_own`) give a
`Reading`: the functions, and what was left out with its reason. A pair is a function before and after its fix. Pairs
are joined by identity (a pair id, or commit and function), never by neighbouring rows; a side that is missing or
stands there twice is reported, not guessed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from code_repair_rl.edits.lines import lines_of
from code_repair_rl.errors import BadInput
from code_repair_rl.tasks.task import Split

_LANGUAGES = {".py": "python", ".c": "c", ".h": "c", ".cc": "cpp", ".cpp": "cpp", ".cxx": "cpp", ".hpp": "cpp"}
_SPLIT_WORDS = {
    "train": Split.TRAIN,
    "valid": Split.VALIDATION,
    "val": Split.VALIDATION,
    "validation": Split.VALIDATION,
    "dev": Split.VALIDATION,
    "test": Split.TEST,
}
_LINE_ENDS = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")
"""What `str.splitlines` ends a line at, beside carriage return and line feed."""
_CWE = re.compile(r"(?:CWE)?-?0*([1-9]\d*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LabelledFunction:
    """One function with somebody's label."""

    function_id: str
    """Unique within its source."""
    code: str
    """With line feeds only."""
    vulnerable: bool
    cwes: tuple[str, ...] = ()
    """`CWE-89` …; of a fixed function those that its fix removed."""
    language: str = "c"
    path: str = ""
    """The file it came from, where that is known."""
    project: str = ""
    commit: str = ""
    pair_id: str | None = None
    """Both sides of a pair have the same."""
    lines: tuple[int, ...] | None = None
    """1-based lines that decide, where the source names them; None where they follow from the pair, or are unknown."""
    split: Split | None = None
    """Where the source says so."""
    licence: str = "NOASSERTION"
    where: str = ""
    """File and line, for messages."""


@dataclass(frozen=True, slots=True)
class VulnerabilityPair:
    """One function before and after its vulnerability was fixed."""

    pair_id: str
    vulnerable: LabelledFunction
    fixed: LabelledFunction


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file held."""

    source: str
    """The data set's name."""
    functions: tuple[LabelledFunction, ...]
    """In the file's order; the two sides of a pair both, or none."""
    left_out: Mapping[str, str]
    """What could not be used (a row's or a pair's name) and why."""

    @property
    def pairs(self) -> tuple[VulnerabilityPair, ...]:
        """The pairs, in the order of their first sides."""
        sides: dict[str, dict[bool, LabelledFunction]] = {}
        for function in self.functions:
            if function.pair_id is not None:
                sides.setdefault(function.pair_id, {})[function.vulnerable] = function
        return tuple(VulnerabilityPair(pair_id, both[True], both[False]) for pair_id, both in sides.items())


def joined(source: str, functions: Sequence[LabelledFunction], left_out: Mapping[str, str] | None = None) -> Reading:
    """Functions whose pairs are whole; a pair with a side missing, repeated or unchanged is left out."""
    refused = dict(left_out or {})
    by_pair: dict[str, list[LabelledFunction]] = {}
    for function in functions:
        if function.pair_id is not None:
            by_pair.setdefault(function.pair_id, []).append(function)
    broken: set[str] = set()
    for pair_id, sides in by_pair.items():
        reason = _fault_of(sides)
        if reason is not None:
            broken.add(pair_id)
            refused[f"pair {pair_id}"] = reason
    kept = tuple(function for function in functions if function.pair_id not in broken)
    return Reading(source, kept, refused)


def together(readings: Sequence[Reading]) -> Reading:
    """Several files of one source as one.

    The same function with the same label may stand in several of them (all functions, and those in pairs): it is taken
    once, with its pair.

    Raises:
        BadInput: two different functions have the same id.
    """
    functions: dict[str, LabelledFunction] = {}
    left_out: dict[str, str] = {}
    for reading in readings:
        left_out.update(reading.left_out)
        for function in reading.functions:
            first = functions.setdefault(function.function_id, function)
            if (first.code, first.vulnerable, first.split) != (function.code, function.vulnerable, function.split):
                raise BadInput(f"another {function.function_id} stands at {first.where}", where=function.where)
            if first.pair_id is None:
                functions[function.function_id] = function
    return joined(readings[0].source, tuple(functions.values()), left_out)


def decisive_lines(code: str, other: str) -> tuple[int, ...]:
    """The 1-based lines of `code` that differ from the other side of its pair.

    Where the other side only has more lines, the written lines on both sides of the gap. White space at the ends of
    lines makes no difference, and empty lines decide nothing.
    """
    mine, theirs = ([line.rstrip() for line in lines_of(text)] for text in (code, other))
    found: set[int] = set()
    for tag, start, end, _, _ in difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
        if tag in ("replace", "delete"):
            found.update(number for number in range(start + 1, end + 1) if mine[number - 1])
        elif tag == "insert":
            before = [number for number in range(start, 0, -1) if mine[number - 1]]
            after = [number for number in range(start + 1, len(mine) + 1) if mine[number - 1]]
            found.update(before[:1] + after[:1])
    return tuple(sorted(found))


def cwe_id(text: str) -> str | None:
    """`CWE-89` for any way of writing it (`cwe-089`, `89`); None for what is none (`NVD-CWE-noinfo`)."""
    match = _CWE.fullmatch(text.strip())
    return f"CWE-{match[1]}" if match else None


def language_of(path: str, code: str) -> str:
    """The language by the file's name; where it says nothing, Python if the code begins like Python, else C."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in _LANGUAGES:
        return _LANGUAGES[suffix]
    return "python" if re.match(r"\s*(async\s+def|def|class|@|import|from)\b", code) else "c"


def with_line_feeds(code: str) -> str:
    """The code with every line ended by a line feed, the last one, too, and no other character that ends lines.

    Form feeds and the like become spaces: who counts lines by them would count differently from a compiler.
    """
    text = code.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    return _LINE_ENDS.sub(" ", text) + "\n"


def split_named_in(path: Path) -> Split | None:
    """The split that a file's name tells (`primevul_valid.jsonl`)."""
    words = re.split(r"[^a-z]+", path.stem.lower())
    return next((split for word, split in _SPLIT_WORDS.items() if word in words), None)


def _fault_of(sides: Sequence[LabelledFunction]) -> str | None:
    places = ", ".join(function.where for function in sides)
    vulnerable = sum(function.vulnerable for function in sides)
    fixed = len(sides) - vulnerable
    if not vulnerable or not fixed:
        return f"the {'vulnerable' if not vulnerable else 'fixed'} side is missing ({places})"
    if vulnerable > 1 or fixed > 1:
        return f"{vulnerable} vulnerable and {fixed} fixed sides: which belong together is not known ({places})"
    if not decisive_lines(sides[0].code, sides[1].code):
        return f"both sides are the same code ({places})"
    return None


def unique(functions: Iterable[LabelledFunction]) -> list[LabelledFunction]:
    """The functions.

    Raises:
        BadInput: two have the same id.
    """
    seen: dict[str, str] = {}
    found = []
    for function in functions:
        if (first := seen.setdefault(function.function_id, function.where)) != function.where:
            raise BadInput(f"id {function.function_id} stands at {first} already", where=function.where)
        found.append(function)
    return found
