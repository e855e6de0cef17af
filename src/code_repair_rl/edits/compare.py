"""How much of the way an edit went: similarity on code tokens, gain over doing nothing, localisation, size.

None of these says whether code works. They shape a reward below the line that passing tests draws, and they describe
edits in reports; as a main reward similarity would pay for leaving the fault in place (`docs/edits.md`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from code_repair_rl.edits.lines import split_lines
from code_repair_rl.edits.matching import line_changes

_TOKEN = re.compile(r"\n[ \t\f]*+(?=[^\s])|\w++|[^\w\s]")
_TAB_COLUMNS = 8
"""As Python counts a tab in indentation."""


def code_tokens(text: str) -> list[str]:
    """Words, single signs, and every change of indentation between one line that is not blank and the next.

    Other white space (blank lines, blanks between and behind tokens, line endings) leaves no trace.
    """
    tokens: list[str] = []
    column = 0
    for token in _TOKEN.findall("\n" + text.replace("\r\n", "\n")):
        if token[0] != "\n":
            tokens.append(token)
            continue
        here = len(token[1:].expandtabs(_TAB_COLUMNS))
        if here != column:
            tokens.append(f"\n{here - column:+d}")
            column = here
    return tokens


def similarity(one: Mapping[str, str], other: Mapping[str, str]) -> float:
    """The share of tokens that two trees have in common and in the same order, in [0, 1].

    `2 · LCS / (tokens of one + tokens of other)`, summed over files matched by path (a file that is missing on one
    side has no tokens there). 1 for trees without tokens.
    """
    common = total = 0
    for path in one.keys() | other.keys():
        both, size = _common_tokens(one.get(path, ""), other.get(path, ""))
        common += both
        total += size
    return 2 * common / total if total else 1.0


def edit_gain(before: Mapping[str, str], predicted: Mapping[str, str], oracle: Mapping[str, str]) -> float:
    """How much of the way from `before` to `oracle` the answer `predicted` went, in [0, 1].

    `max(0, (s(predicted, oracle) - s(before, oracle)) / (1 - s(before, oracle)))`, where `s` is `similarity` over the
    files that differ in any of the three trees. The oracle gets 1, no change gets 0, and edits elsewhere lose. Where
    before and oracle have the same tokens, the gain is 1 for the oracle's exact text and 0 for any other.
    """
    touched = _differing(before, oracle) | _differing(before, predicted)
    start, answer, goal = (
        {path: tree[path] for path in touched if path in tree} for tree in (before, predicted, oracle)
    )
    if answer == goal:
        return 1.0
    at_start = similarity(start, goal)
    if at_start == 1.0:
        return 0.0
    return max(0.0, (similarity(answer, goal) - at_start) / (1.0 - at_start))


def changed_tokens(before: Mapping[str, str], after: Mapping[str, str]) -> int:
    """Tokens deleted plus tokens inserted, over all files: the size of an edit."""
    count = 0
    for path in _differing(before, after):
        common, total = _common_tokens(before.get(path, ""), after.get(path, ""))
        count += total - 2 * common
    return count


@dataclass(frozen=True, slots=True)
class Localisation:
    """How well the places that an answer edits agree with the places that the oracle edits."""

    precision: float
    """Share of the answer's places that are the oracle's; 0 where the answer has none and the oracle some."""
    recall: float
    """Share of the oracle's places that are the answer's."""

    @property
    def f1(self) -> float:
        """Harmonic mean of the two; 0 where both are."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def file_localisation(
    before: Mapping[str, str], predicted: Mapping[str, str], oracle: Mapping[str, str]
) -> Localisation:
    """Whether the answer edits the files that the oracle edits."""
    return _agreement(_differing(before, predicted), _differing(before, oracle))


def line_localisation(
    before: Mapping[str, str], predicted: Mapping[str, str], oracle: Mapping[str, str]
) -> Localisation:
    """Whether the answer edits the lines of `before` that the oracle edits; gaps between lines are places too."""
    return _agreement(changed_lines(before, predicted), changed_lines(before, oracle))


def changed_lines(before: Mapping[str, str], after: Mapping[str, str]) -> set[tuple[str, float]]:
    """Path and 1-based line of `before` that is deleted or replaced; `n + 0.5` is an insertion behind line `n`."""
    places: set[tuple[str, float]] = set()
    for path in _differing(before, after):
        old, _ = split_lines(before.get(path, ""), "\n")
        new, _ = split_lines(after.get(path, ""), "\n")
        for change in line_changes(old, new):
            lines = range(change.begin, change.end)
            places.update((path, float(line + 1)) for line in lines)
            if not lines:
                places.add((path, change.begin + 0.5))
    return places


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    """Paths whose texts differ."""
    if one is other:
        return set()
    return {path for path in one.keys() | other.keys() if one.get(path) != other.get(path)}


def _agreement(answer: Iterable[object], goal: Iterable[object]) -> Localisation:
    mine, theirs = set(answer), set(goal)
    if not mine and not theirs:
        return Localisation(1.0, 1.0)
    common = len(mine & theirs)
    return Localisation(common / len(mine) if mine else 0.0, common / len(theirs) if theirs else 0.0)


def _common_tokens(one: str, other: str) -> tuple[int, int]:
    """Length of the longest common subsequence of tokens, and the tokens of both sides together."""
    from rapidfuzz.distance import LCSseq

    tokens = code_tokens(one)
    if one == other:
        return len(tokens), 2 * len(tokens)
    others = code_tokens(other)
    # rapidfuzz compares hashes; small integers are their own, so that no two tokens are ever taken for each other.
    numbers: dict[str, int] = {}
    left = [numbers.setdefault(token, len(numbers)) for token in tokens]
    right = [numbers.setdefault(token, len(numbers)) for token in others]
    return int(LCSseq.similarity(left, right)), len(left) + len(right)
