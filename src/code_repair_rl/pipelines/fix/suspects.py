"""Which lines to show a model as suspicious, best first.

A small model repairs well once it knows the place and badly when it has to find it, so the place is searched for:
lines that the user names; else lines of the failing test's traceback; then every statement that the failing command
executed (or, where that is unknown, every statement), operators and comparisons first. `repair` shows one at a time.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

_TRACEBACK_LINE = re.compile(
    r'File "(?P<python>[^"\n]+)", line (?P<n>\d+)|^(?P<pytest>[^\s:][^:\n]*\.py):(?P<m>\d+):', re.M
)


class Why(StrEnum):
    """Where a suspicion comes from."""

    GIVEN = "given"
    """The user named the line."""
    TRACEBACK = "traceback"
    """It is in the traceback of the failing command."""
    EXECUTED = "executed"
    """The failing command executed it."""
    STATEMENT = "statement"
    """Nothing is known but that it does something."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """Lines of one file that are shown together as suspicious."""

    path: str
    numbers: tuple[int, ...]
    """1-based, ascending."""
    why: Why


def given(path: str, numbers: Iterable[int]) -> list[Suspect]:
    """What the user named; neighbouring lines are shown together."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [Suspect(path, tuple(run), Why.GIVEN) for run in runs]


def located(sources: Mapping[str, str], output: str, executed: Mapping[str, frozenset[int]]) -> list[Suspect]:
    """Suspects for a failing command, best first, without repetition.

    Args:
        sources: path to text of the files that may be repaired.
        output: what the failing command wrote.
        executed: lines that it executed, per path; a path that is absent is unknown.
    """
    found: dict[tuple[str, int], Suspect] = {}
    statements = {path: statement_lines(text) for path, text in sources.items()}
    for path, number in reversed(traceback_lines(output, sources)):  # the innermost frame comes last
        line = _statement_of(statements[path], number)
        found.setdefault((path, line), Suspect(path, (line,), Why.TRACEBACK))
    for path, lines in statements.items():
        known = executed.get(path)
        why = Why.STATEMENT if known is None else Why.EXECUTED
        for line in lines:
            if known is None or line in known:
                found.setdefault((path, line), Suspect(path, (line,), why))
    return list(found.values())


def traceback_lines(output: str, paths: Iterable[str]) -> list[tuple[str, int]]:
    """Places in `paths` that a traceback names (in Python's form or pytest's short one), in the order of the text."""
    places = []
    for match in _TRACEBACK_LINE.finditer(output):
        named = match["python"] or match["pytest"]
        for path in paths:  # absolute below wherever the command ran, or relative to there
            if named.removeprefix("./") == path or named.endswith("/" + path):
                places.append((path, int(match["n"] or match["m"])))
                break
    return places


def statement_lines(source: str) -> list[int]:
    """First lines of the statements that a repair may be about; those that compute or compare come first.

    Statements inside functions, or all of them where a file has no function. A file that does not parse has the line
    that the parser complains of, its neighbours, then every other line that is not blank.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        return _unparsed_lines(source, getattr(error, "lineno", None) or 1)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    roots: Sequence[ast.AST] = functions or [tree]
    ranked: dict[int, int] = {}
    for root in roots:
        for node in ast.walk(root):
            if isinstance(node, ast.stmt) and (rank := _rank(node)) is not None:
                ranked[node.lineno] = min(rank, ranked.get(node.lineno, rank))
    return sorted(ranked, key=lambda line: (ranked[line], line))


def _rank(node: ast.stmt) -> int | None:
    """0 for a statement whose own line computes, 1 for another, 2 for a header, None for what cannot be wrong."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return 2 if node.args.defaults or node.args.kw_defaults else None
    if isinstance(node, ast.ClassDef | ast.Import | ast.ImportFrom | ast.Global | ast.Nonlocal | ast.Pass):
        return None
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return None  # a docstring, or three dots
    computing = ast.Compare | ast.BinOp | ast.BoolOp | ast.UnaryOp | ast.Subscript
    return (
        0
        if isinstance(node, ast.AugAssign) or any(isinstance(part, computing) for part in _own_expressions(node))
        else 1
    )


def _own_expressions(node: ast.stmt) -> Iterable[ast.AST]:
    """Expressions of a statement itself, without those of the statements inside it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr | ast.withitem):
            yield from ast.walk(child)


def _unparsed_lines(source: str, complained_of: int) -> list[int]:
    written = [number for number, line in enumerate(source.split("\n"), 1) if line.strip()]
    return sorted(written, key=lambda number: (abs(number - complained_of), number))


def _statement_of(statements: Sequence[int], number: int) -> int:
    """The statement that a line of a traceback belongs to: itself, or the nearest one above."""
    above = [line for line in statements if line <= number]
    return number if number in above or not above else max(above)
