"""What of a tree a prompt shows."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from code_repair_rl.tasks.task import Line, RepositoryTests, Task

_LINES_AROUND = 8
"""Shown before and after a line that is in no function."""


def shown_files(task: Task, lines: Sequence[Line]) -> dict[str, str]:
    """Path to text, as a prompt shows it.

    A small tree is shown whole. Of a repository only the files that the known-good answer touches are shown (the
    setting that SWE-bench calls oracle retrieval), and where lines are hinted at only the functions around them.
    """
    if not isinstance(task.tests, RepositoryTests):
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
    lines = text.splitlines()
    stretches = sorted({_stretch(text, number, len(lines)) for number in numbers})
    shown: list[str] = []
    end = 0
    for first, last in stretches:
        if last <= end:
            continue
        if shown and first > end + 1:
            shown.append("...")
        shown.extend(lines[max(first, end + 1) - 1 : last])
        end = last
    return "\n".join(shown) + "\n"


def _stretch(text: str, number: int, count: int) -> tuple[int, int]:
    """First and last line of the outermost function around a line, decorators included."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        tree = ast.Module(body=[], type_ignores=[])
    around = [
        (min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]), node.end_lineno or node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    holding = [(first, last) for first, last in around if first <= number <= last]
    if holding:
        return min(holding)
    return max(1, number - _LINES_AROUND), min(count, number + _LINES_AROUND)
