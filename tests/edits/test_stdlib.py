"""Round trips over the standard library: every function masked, and every function mutated."""

from __future__ import annotations

import ast
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from code_repair_rl.edits import diff, parse, unified

STDLIB = Path(sysconfig.get_paths()["stdlib"])
SAMPLED_FILES = 25
PARTS = 12
AROUND = 250
"""Lines kept above and below a function: whole files of most modules, and of the longest ones enough to be like it."""
OPERATORS = [("==", "!="), ("<", "<="), (">", ">="), (" + ", " - "), (" and ", " or "), ("not ", ""), ("True", "False")]


def files() -> list[Path]:
    return sorted(path for path in STDLIB.rglob("*.py") if "site-packages" not in path.parts)


def text_of(path: Path) -> str | None:
    """The text, to the byte; None for the few files (bad data of the test suite) that are not UTF-8."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        return None


def functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def masked(lines: list[str], function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str] | None:
    """The file with the function's body (behind its docstring) taken out, as for implement-from-spec."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    if not body or body[0].lineno == function.lineno:
        return None
    first, last = body[0], body[-1]
    begin = min([first.lineno, *(one.lineno for one in getattr(first, "decorator_list", []))]) - 1
    end = last.end_lineno or last.lineno
    return [*lines[:begin], " " * first.col_offset + "raise NotImplementedError\n", *lines[end:]]


def mutated(lines: list[str], function: ast.FunctionDef | ast.AsyncFunctionDef, chance: random.Random) -> list[str]:
    """The file with one line of the function changed: an operator swapped, a line lost, doubled or moved."""
    begin, end = function.body[0].lineno - 1, function.end_lineno or function.lineno
    line = chance.randrange(begin, end)
    swaps = [(a, b) for a, b in OPERATORS if a in lines[line]]
    what = chance.choice(["swap", "swap", "swap", "lose", "double", "move"])
    if what == "swap" and swaps:
        old, new = chance.choice(swaps)
        return [*lines[:line], lines[line].replace(old, new, 1), *lines[line + 1 :]]
    if what == "double":
        return [*lines[: line + 1], *lines[line:]]
    if what == "move" and line + 1 < len(lines):
        return [*lines[:line], lines[line + 1], lines[line], *lines[line + 2 :]]
    return [*lines[:line], *lines[line + 1 :]]


def check(before: str, after: str) -> None:
    """The fault and the fix; with a path and without; and the fix as a unified diff."""
    for one, other in ((before, after), (after, before)):
        tree, goal = {"a.py": one}, {"a.py": other}
        patch = diff(tree, goal)
        assert patch.apply(tree) == goal
        assert parse(str(patch)) == patch
        without_path = parse(patch.text(paths=False))
        assert [edit.hunks for edit in without_path.edits] == [edit.hunks for edit in patch.edits]
    assert before == after or parse(unified(tree, goal)).apply(tree) == goal


def check_file(path: Path) -> int:
    """Check every function of the file, each within the lines around it; gives the number of cases."""
    text = text_of(path)
    if text is None:
        return 0
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    chance = random.Random(path.name)
    cases = 0
    for function in functions(text):
        begin = max(0, function.lineno - AROUND)
        end = (function.end_lineno or function.lineno) + AROUND
        before = "".join(lines[begin:end])
        for changed in (masked(lines, function), mutated(lines, function, chance)):
            if changed is not None:
                check(before, "".join(changed[begin : end + len(changed) - len(lines)]))
                cases += 1
    return cases


def test_round_trips_over_a_sample_of_the_standard_library() -> None:
    small = [path for path in files() if path.stat().st_size < 30_000]
    cases = sum(check_file(path) for path in random.Random(0).sample(small, SAMPLED_FILES))
    assert cases > 200


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_round_trips_over_the_whole_standard_library(part: int) -> None:
    """In parts, so that one that fails says where, and so that parts can run side by side."""
    cases = sum(check_file(path) for path in files()[part::PARTS])
    assert cases > 20_000 // PARTS
