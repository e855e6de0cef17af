"""Words in code that give its label away, taken out: comments go, and names made of such words are renamed.

`bad_query`, `is_vulnerable` or `/* FIXED: CWE-89 */` would let a classifier read the label instead of the code. All
sides of a pair are neutralised together, so that the same name gets the same new one on both.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

_STRINGS = {
    "python": r"\"\"\".*?\"\"\"|'''.*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'",
    "c": r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'",
}
_COMMENTS = {"python": r"\#[^\n]*", "c": r"/\*.*?\*/|//[^\n]*"}
_TOKENS = {
    language: re.compile(f"(?P<string>{strings})|(?P<comment>{_COMMENTS[language]})", re.DOTALL)
    for language, strings in _STRINGS.items()
}
_NAME = re.compile(r"[A-Za-z_]\w*(?:-\d+)?")
_PART = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_TELLING = re.compile(
    r"(?:bad|good|vuln\w*|cwe|cve|exploit\w*|insecure\w*|unsafe\w*|secure|securely|flaw\w*|patched|fixed|juliet)"
)
_KEPT = frozenset({"usedforsecurity", "markupsafe", "secure_filename", "secure_compare"})
"""Names of interfaces: another name would be another call."""


def tells(name: str) -> bool:
    """Whether a name is made of a word that gives a label away."""
    if name.lower() in _KEPT:
        return False
    return any(_TELLING.fullmatch(part.lower()) for part in _PART.findall(name))


def neutralised(texts: Sequence[str], language: str) -> tuple[list[str], list[Mapping[int, int]]]:
    """The texts without comments, and with neutral names for those that tell.

    Lines that are empty afterwards are dropped, and so is the indentation that all lines share. A text without any
    comment or telling name stays as it is, but for that.

    Args:
        texts: code that belongs together (the sides of a pair).
        language: `python`, or anything that comments like C.

    Returns:
        The new texts, and for each the new number of every line that stayed by its old one (both from 1).
    """
    kind = "python" if language == "python" else "c"
    bare = [_without_comments(text, kind) for text in texts]
    names = dict.fromkeys(name for text in bare for name in _NAME.findall(text) if tells(name))
    neutral = {name: f"name_{number}" for number, name in enumerate(names, start=1)}
    found, lines = [], []
    for old, text in zip(texts, bare, strict=True):
        renamed = _NAME.sub(lambda match: neutral.get(match[0], match[0]), text)
        kept, numbers = _without_emptied_lines(old, renamed)
        found.append(kept)
        lines.append(numbers)
    return found, lines


def _without_comments(text: str, kind: str) -> str:
    """Comments become nothing, but their line feeds stay, so that lines keep their numbers."""

    def kept(match: re.Match[str]) -> str:
        if match["string"] is not None:
            return match[0]
        return "\n" * match[0].count("\n")

    return _TOKENS[kind].sub(kept, text)


def _without_emptied_lines(old: str, new: str) -> tuple[str, Mapping[int, int]]:
    """Lines that held a comment only go, and empty ones at the end; other empty lines that were there stay."""
    numbers: dict[int, int] = {}
    kept: list[str] = []
    for number, (was, line) in enumerate(zip(old.split("\n"), new.split("\n"), strict=True), start=1):
        if line.strip() or not was.strip():
            kept.append(line.rstrip())
            numbers[number] = len(kept)
    text = textwrap.dedent("\n".join(kept)).rstrip("\n") + "\n"
    last = text.count("\n") + 1
    return text, {number: now for number, now in numbers.items() if now <= last}
