"""Which functions are worth writing back from their description: filters on docstring, code and file.

Each filter gives a reason or None; the numbers are judgements, documented in docs/tasks.md and tested one by one.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from code_repair_rl.synthesis.masking import Function

LEAST_DOCSTRING_WORDS = 6
MOST_DOCSTRING_CHARACTERS = 3000
LEAST_STATEMENTS = 3
"""Statements after the docstring, those inside others counted."""
MOST_LINES = 60
MOST_LITERAL_SHARE = 0.5
"""Characters of the body that may stand in string literals."""
MOST_LINE_CHARACTERS = 300
MOST_FILE_CHARACTERS = 200_000
_LEAST_LETTERS = 0.5
_LEAST_NEW_WORDS = 3
_GENERATED = re.compile(r"(auto|automatically|machine)?[ -]?generated (by|from|with|code)|do not (edit|modify)", re.I)
_EMPTY_WORDS = re.compile(
    r"\b(todo|fixme|xxx|docstring|not documented|undocumented|see (the )?(base|parent|super)|inherit)", re.IGNORECASE
)
_FILLERS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "for",
        "from",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "of",
        "on",
        "or",
        "that",
        "the",
        "this",
        "to",
        "with",
    ]
)


def file_fault(text: str) -> str | None:
    """Why nothing is taken from a file, or None."""
    if len(text) > MOST_FILE_CHARACTERS:
        return "the file is too large"
    if any(len(line) > MOST_LINE_CHARACTERS for line in text.splitlines()):
        return "the file has lines that nobody writes by hand"
    if _GENERATED.search("\n".join(text.splitlines()[:15])):
        return "the file is generated"
    return None


def docstring_fault(function: Function) -> str | None:
    """Why a function's docstring does not specify it, or None."""
    docstring = function.docstring
    if not docstring:
        return "no docstring"
    words = re.findall(r"[^\W\d_]{2,}", docstring)
    if len(words) < LEAST_DOCSTRING_WORDS:
        return "the docstring is too short"
    if len(docstring) > MOST_DOCSTRING_CHARACTERS:
        return "the docstring is too long"
    visible = [character for character in docstring if not character.isspace()]
    if sum(character.isalpha() for character in visible) < _LEAST_LETTERS * len(visible):
        return "the docstring is no prose"
    if _EMPTY_WORDS.search(docstring.splitlines()[0]):
        return "the docstring puts the reader off"
    named = {word.lower() for word in re.findall(r"[A-Za-z][a-z]*", function.name)}
    if len({word.lower() for word in words} - named - _FILLERS) < _LEAST_NEW_WORDS:
        return "the docstring only repeats the name"
    return None


def code_fault(function: Function, text: str) -> str | None:
    """Why a function's code is not worth writing back, or None.

    Args:
        function: one of `functions_in(text)`.
        text: the file.
    """
    if function.is_stub:
        return "there is nothing to write"
    if function.name.startswith("__") and function.name.endswith("__"):
        return "the language calls it, its docstring does not tell how"
    if any(name.rpartition(".")[2] in ("property", "setter", "deleter") for name in function.decorators):
        return "it is a property"
    body = function.node.body[1:] if function.docstring is not None else function.node.body
    if sum(1 for _ in _statements(body)) < LEAST_STATEMENTS:
        return "the code is trivial"
    if function.last_line - function.def_line + 1 - (function.docstring or "").count("\n") > MOST_LINES:
        return "the code is too long"
    if _only_raises(body):
        return "it is not implemented"
    characters = function.end - function.body_start
    literal = sum(len(node.value) for node in _constants(body) if isinstance(node.value, str | bytes))
    if literal > MOST_LITERAL_SHARE * characters:
        return "the code is mostly text"
    return None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield from (node for node in ast.walk(statement) if isinstance(node, ast.stmt))


def _constants(body: list[ast.stmt]) -> Iterator[ast.Constant]:
    for statement in body:
        yield from (node for node in ast.walk(statement) if isinstance(node, ast.Constant))


def _only_raises(body: list[ast.stmt]) -> bool:
    last = body[-1]
    raised = last.exc if isinstance(last, ast.Raise) else None
    name = raised.func if isinstance(raised, ast.Call) else raised
    return isinstance(name, ast.Name) and name.id == "NotImplementedError"
