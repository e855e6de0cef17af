"""A text as lines plus the two properties that lines alone do not have: their ending, and the last one's newline.

Splitting and joining is exact for every `str`: `join_lines(*split_lines(text, ending))` gives `text` back, whenever
`ending` is `LF`, or is `CRLF` and every `"\\n"` of the text has a `"\\r"` before it. Only `"\\n"` ends a line: lone
carriage returns, form feeds and Unicode separators are ordinary characters of a line.
"""

from __future__ import annotations

import io

LF = "\n"
CRLF = "\r\n"


def fits_crlf(text: str) -> bool:
    """Whether every line feed of `text` belongs to a CRLF (true of a text without any)."""
    return text.count("\n") == text.count("\r\n")


def line_ending(text: str) -> str:
    """`CRLF` where every line of `text` ends so (and there is one that ends), else `LF`."""
    return CRLF if "\r\n" in text and fits_crlf(text) else LF


def lines_of(text: str) -> list[str]:
    """The lines as edits see them, without their endings; line `n` of a message, a hint or a syntax tree is item `n-1`.

    Python's parser counts the same lines, but for lone carriage returns, each of which ends a line there.
    """
    return split_lines(text, line_ending(text))[0]


def whole_lines(text: str) -> list[str]:
    """The same lines with their endings: joined they are the text."""
    return list(io.StringIO(text))


def split_lines(text: str, ending: str) -> tuple[list[str], bool]:
    """The lines without their endings, and whether the last one is ended too (True for an empty text)."""
    if not text:
        return [], True
    lines = text.split(ending)
    if lines[-1]:
        return lines, False
    lines.pop()
    return lines, True


def join_lines(lines: list[str], final_newline: bool, ending: str) -> str:
    """The text that `split_lines` took apart."""
    if not lines:
        return ""
    text = ending.join(lines)
    return text + ending if final_newline else text
