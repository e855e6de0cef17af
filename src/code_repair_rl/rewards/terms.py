"""The single terms of a reward, each in [0, 1], each from the typed verdict or from the edit itself."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from code_repair_rl.edits import EditErrorKind, Tolerance, changed_tokens, code_tokens
from code_repair_rl.grading.verdict import Outcome, TestStatus, Verdict
from code_repair_rl.tasks.classification import AnswerErrorKind

_FORMAT_OF_KIND = {
    # Nothing that could be read, or a breach of the rules of the place.
    EditErrorKind.UNREADABLE: 0.0,
    EditErrorKind.NOT_TEXT: 0.0,
    EditErrorKind.TOO_LARGE: 0.0,
    EditErrorKind.PROTECTED: 0.0,
    EditErrorKind.PATH_OUTSIDE: 0.0,
    # The grammar was begun and broken.
    EditErrorKind.UNTERMINATED: 0.25,
    EditErrorKind.MISSING_DIVIDER: 0.25,
    EditErrorKind.NESTED_MARKER: 0.25,
    EditErrorKind.MALFORMED_HEADER: 0.25,
    EditErrorKind.MALFORMED_DIFF: 0.25,
    # Well-formed, but it does not fit the files.
    EditErrorKind.SEARCH_NOT_FOUND: 0.5,
    EditErrorKind.AMBIGUOUS: 0.5,
    EditErrorKind.OVERLAPPING: 0.5,
    EditErrorKind.NO_PATH: 0.5,
    EditErrorKind.NO_SUCH_FILE: 0.5,
    EditErrorKind.FILE_EXISTS: 0.5,
    EditErrorKind.EMPTY_SEARCH: 0.5,
}
_FORMAT_OF_ANSWER = {
    AnswerErrorKind.NO_THINK: 0.0,
    # The grammar was begun and broken.
    AnswerErrorKind.UNTERMINATED: 0.25,
    AnswerErrorKind.NO_ANSWER: 0.25,
    AnswerErrorKind.REPEATED_TAG: 0.25,
    # Well-formed, but it does not fit what was asked.
    AnswerErrorKind.TEXT_OUTSIDE: 0.5,
    AnswerErrorKind.UNKNOWN_LABEL: 0.5,
    AnswerErrorKind.NO_EVIDENCE: 0.5,
    AnswerErrorKind.TOO_MANY_LINES: 0.5,
}
_FORMAT_OF_RUNG = {Tolerance.EXACT: 1.0, Tolerance.TRAILING_WHITESPACE: 0.9, Tolerance.INDENTATION: 0.8}


def format_term(verdict: Verdict) -> float:
    """How well-formed the answer was: 1 if it applied exactly, less on a lenient rung, by kind if it was refused."""
    if verdict.outcome is Outcome.EDIT_REJECTED:
        try:
            return _FORMAT_OF_KIND[EditErrorKind(verdict.edit_error or "")]
        except ValueError:  # refused for a reason that is not an edit's: a label that could not be read
            return 0.0
    if not verdict.applied:
        return 0.0
    return _FORMAT_OF_RUNG[Tolerance(verdict.tolerance)] if verdict.tolerance else 1.0


def answer_format_term(error: str | None) -> float:
    """How well-formed a classification's answer was: 1 where it could be read, else by the kind of its failure."""
    return 1.0 if error is None else _FORMAT_OF_ANSWER[AnswerErrorKind(error)]


def changes_code(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Whether any file differs in more than comments, docstrings and white space.

    Python is compared by syntax tree where both texts have one; everything else by code tokens.
    """
    for path in before.keys() | after.keys():
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        if old is None or new is None or not _same_code(path, old, new):
            return True
    return False


def economy_term(before: Mapping[str, str], after: Mapping[str, str], oracle: Mapping[str, str]) -> float:
    """1 for an edit no larger than the oracle's (in tokens deleted and inserted), falling with the ratio beyond."""
    mine, theirs = changed_tokens(before, after), max(1, changed_tokens(before, oracle))
    return min(1.0, theirs / max(1, mine))


def length_term(text: str, oracle_text: str, completion_tokens: int, max_new_tokens: int) -> float:
    """1 for a text no longer than the oracle's canonical one, falling to 0 at `max_new_tokens`.

    The oracle's length in tokens is estimated from the answer's own characters per token.
    """
    if not text or completion_tokens <= 0:
        return 1.0
    oracle_tokens = completion_tokens * len(oracle_text) / len(text)
    if completion_tokens <= oracle_tokens:
        return 1.0
    room = max_new_tokens - oracle_tokens
    return max(0.0, 1.0 - (completion_tokens - oracle_tokens) / room) if room > 0 else 0.0


def visible_term(verdict: Verdict) -> dict[str, float]:
    """`visible`: the share of the visible tests that pass; nothing where there is none."""
    held = [test.status is TestStatus.PASSED for test in verdict.tests if test.visible]
    return {"visible": sum(held) / len(held)} if held else {}


def _same_code(path: str, old: str, new: str) -> bool:
    if path.endswith((".py", ".pyi")):
        trees = _syntax(old), _syntax(new)
        if None not in trees:
            return trees[0] == trees[1]
    return code_tokens(old) == code_tokens(new)


def _syntax(text: str) -> str | None:
    """The syntax tree as text, without docstrings and other bare constants, which do nothing; None for broken code."""
    try:
        tree = ast.parse(text)
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [one for one in body if not _is_bare_constant(one)]  # type: ignore[attr-defined]
        return ast.dump(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_bare_constant(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
