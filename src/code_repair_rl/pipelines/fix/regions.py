"""The part of a file that a model is shown and may edit: one function, taken out and put back to the byte."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from code_repair_rl.edits.lines import lines_of, whole_lines
from code_repair_rl.synthesis.outer_functions import first_line_of

_WINDOW_LINES = 15
"""Shown above and below a line that is in no function."""
_LONG_FUNCTION_LINES = 150
"""Longer functions are shown in part: a prompt of several thousand tokens costs more than it tells."""
_PART_LINES = 40
"""Shown above and below a line of a long function."""


@dataclass(frozen=True, slots=True)
class Region:
    """Whole lines of one file, dedented as far as that can be undone."""

    path: str
    first: int
    """Number of the first line in the file, 1-based."""
    last: int
    """Number of the last line, inclusive."""
    text: str
    """Dedented; lines end with a line feed."""
    indent: str
    """What was taken off the front of every line that is not blank."""
    docstring: str
    """Of the function, cleaned; empty where there is none."""
    docstring_lines: range
    """Numbers of the docstring's lines in the file."""

    def shown(self, *, with_docstring: bool) -> str:
        """The text, with the docstring or without (then it is the description)."""
        if with_docstring or not self.docstring_lines:
            return self.text
        lines = whole_lines(self.text)
        return "".join(line for number, line in enumerate(lines, self.first) if number not in self.docstring_lines)

    def line(self, number: int) -> str:
        """Line `number` of the file as the region shows it."""
        return lines_of(self.text)[number - self.first]

    def put_back(self, source: str, text: str) -> str:
        """`source`, from which the region was taken, with `text` in its place."""
        lines = whole_lines(source)
        restored = "".join(self.indent + line if line.strip() else line for line in whole_lines(text))
        return "".join(lines[: self.first - 1]) + restored + "".join(lines[self.last :])


def region_around(path: str, source: str, number: int) -> Region:
    """The outermost function (of a class: its method) around a line, or a window where there is none or it is long.

    Args:
        path: the file, as the model is to see it.
        source: its text, lines ending with a line feed.
        number: the line, 1-based; it must be there.
    """
    count = len(lines_of(source))
    function = _function_around(source, number)
    long = function is not None and (function.end_lineno or 0) - function.lineno > _LONG_FUNCTION_LINES
    if function is None or long:
        around = _PART_LINES if long else _WINDOW_LINES
        first, last = max(1, number - around), min(count, number + around)
        return _region(path, source, first, last, docstring="", docstring_lines=range(0))
    first = first_line_of(function)
    docstring = ast.get_docstring(function) or ""
    expression = function.body[0]
    own_lines = docstring and len(function.body) > 1 and expression.lineno > function.lineno
    lines = range(expression.lineno, (expression.end_lineno or expression.lineno) + 1) if own_lines else range(0)
    return _region(path, source, first, function.end_lineno or first, docstring=docstring, docstring_lines=lines)


def _function_around(source: str, number: int) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if first_line_of(node) <= number <= (node.end_lineno or node.lineno):
                return node
            continue
        waiting += ast.iter_child_nodes(node)
    return None


def _region(path: str, source: str, first: int, last: int, *, docstring: str, docstring_lines: range) -> Region:
    lines = whole_lines(source)[first - 1 : last]
    written = [line for line in lines if line.strip()]
    indent = written[0][: len(written[0]) - len(written[0].lstrip(" \t"))] if written else ""
    if not all(line.startswith(indent) for line in written):
        indent = ""  # a string or a comment reaches further left: taking off less than all would change the code
    # Blank lines stay as they are, so that putting the untouched text back changes nothing.
    text = "".join(line[len(indent) :] if line.strip() else line for line in lines)
    return Region(path, first, last, text, indent, docstring, docstring_lines)
