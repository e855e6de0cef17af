"""What of a tree a prompt shows."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from code_repair_rl.edits.lines import lines_of
from code_repair_rl.tasks.task import Kind, Line, RepositoryTests, Task

_LINES_AROUND = 8
"""Shown before and after a line that is in no function."""


def shown_files(task: Task, lines: Sequence[Line]) -> dict[str, str]:
    """Path to text, as a prompt shows it.

    A small tree is shown whole. Of a repository only the files that the known-good answer touches are shown (the
    setting that SWE-bench calls oracle retrieval), and where lines are hinted at only the functions around them. The
    same goes for a real file with a function masked out.
    """
    is_masked_file = task.kind is Kind.IMPLEMENT and task.tests is None
    if not isinstance(task.tests, RepositoryTests) and not is_masked_file:
        return dict(task.files)
    if lines:
        numbers: dict[str, list[int]] = {}
        for line in lines:
            numbers.setdefault(line.path, []).append(line.number)
        return {path: excerpt(task.files[path], found) for path, found in numbers.items()}
    touched: Mapping[str, object] = task.oracle if isinstance(task.oracle, Mapping) else {}
    return {path: task.files[path] for path in touched if path in task.files}


def excerpt(text: str, numbers: Sequence[int]) -> str:
    """The functions around the 1-based lines `numbers`, in the order of the text; an ellipsis stands for what is left
    out between them."""
    lines = lines_of(text)
    shown: list[str] = []
    end = 0
    for first, last in stretches(text, numbers):
        if shown and first > end + 1:
            shown.append("...")
        shown.extend(lines[first - 1 : last])
        end = last
    return "\n".join(shown) + "\n"


def stretches(text: str, numbers: Sequence[int]) -> list[tuple[int, int]]:
    """First and last line of the functions around the 1-based lines `numbers`, apart and in the order of the text."""
    count = len(lines_of(text))
    functions = _functions(text)
    found: list[tuple[int, int]] = []
    end = 0
    for first, last in sorted({_stretch(functions, number, count) for number in numbers}):
        if last > end:
            found.append((max(first, end + 1), last))
            end = last
    return found


def _functions(text: str) -> list[tuple[int, int]]:
    """First and last line of each function, decorators included; none where it is no Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []
    return [
        (min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]), node.end_lineno or node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def _stretch(functions: Sequence[tuple[int, int]], number: int, count: int) -> tuple[int, int]:
    """First and last line of the outermost of the functions around a line, else of its surroundings."""
    holding = [(first, last) for first, last in functions if first <= number <= last]
    if holding:
        return min(holding)
    return max(1, number - _LINES_AROUND), min(count, number + _LINES_AROUND)
