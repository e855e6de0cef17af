"""A function with a specification and tests: what bugs are written into."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass

from code_repair_rl.tasks import Example

SOLUTION_PATH = "solution.py"
"""The one file of a function task."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One function, its description and its tests."""

    name: str
    """What splits and clusters go by: `HumanEval/0`."""
    entry_point: str
    solution: str
    """The reference module, without the entry point's docstring."""
    description: str
    """The docstring."""
    check: str
    """Source that defines `check(candidate)`, with everything it needs besides the candidate."""
    visible: tuple[Example, ...] = ()
    """Examples that the description claims; not yet run."""


def without_docstring(text: str, entry_point: str) -> tuple[str, str]:
    """A module's text without the docstring of one function, and the docstring.

    A string after imports at the beginning of the function counts as its docstring as well: people write it there.
    Blank lines around and white space at the ends of lines go where the program stays the same.

    Raises:
        ValueError: no such function, or it has no docstring.
    """
    tree = ast.parse(text)
    function = next(
        (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == entry_point), None
    )
    if function is None:
        raise ValueError(f"there is no function {entry_point}")
    for statement in function.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            value = statement.value.value
            if isinstance(value, str):
                lines = text.split("\n")
                rest = lines[statement.end_lineno :]
                while rest and not rest[0].strip():
                    rest.pop(0)
                kept = [*lines[: statement.lineno - 1], *rest]
                description = "\n".join(line.rstrip() for line in inspect.cleandoc(value).split("\n"))
                return _tidy("\n".join(kept)), description
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            break
    raise ValueError(f"the function {entry_point} has no docstring")


def check_with_its_needs(check: str, solution: str) -> str:
    """The check preceded by the imports and functions of the reference solution that it uses.

    A check that recomputes with a function must use the trusted one, not the candidate's.
    """
    used = {node.id for node in ast.walk(ast.parse(check)) if isinstance(node, ast.Name)}
    tree = ast.parse(solution)
    helpers = [
        ast.get_source_segment(solution, node) or ""
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name in used
    ]
    body = _only_check(check)
    if not helpers:
        return body
    imports = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join(imports) + "\n\n\n" + "\n\n\n".join(helpers) + "\n\n\n" + body


def _only_check(check: str) -> str:
    """The check without what stands around its definition (meta data)."""
    tree = ast.parse(check)
    wanted = [
        ast.get_source_segment(check, node) or ""
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.Import | ast.ImportFrom)
    ]
    return "\n\n\n".join(wanted) + "\n"


def _tidy(text: str) -> str:
    trimmed = "\n".join(line.rstrip() for line in text.strip("\n").split("\n")).rstrip() + "\n"
    return trimmed if ast.dump(ast.parse(trimmed)) == ast.dump(ast.parse(text)) else text.strip("\n") + "\n"
