"""Grading where there are no tests: by comparison with the known-good answer, without running anything."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from code_repair_rl.grading.verdict import Outcome, Verdict
from code_repair_rl.tasks import Task


def compare_with_oracle(task: Task, files_after: Mapping[str, str]) -> Verdict:
    """A pass where every file says the same as after the known-good answer, `untested` otherwise.

    Python says the same where its syntax trees are equal (comments and layout aside), anything else where its text is.

    Args:
        task: a task without tests whose oracle is an edit.
        files_after: the whole tree after the answer.
    """
    before, oracle = task.files, task.files_after_oracle()
    paths = sorted(oracle.keys() | files_after.keys())
    if all(files_after.get(path) == before.get(path) for path in {*paths, *before}):
        return Verdict(Outcome.UNCHANGED, evidence=("the edit changes nothing",))
    for path in paths:
        if not _says_the_same(path, files_after.get(path), oracle.get(path)):
            return Verdict(Outcome.UNTESTED, evidence=(f"{path} differs from the known-good answer's",))
    return Verdict(Outcome.PASSED, evidence=("there are no tests: it says the same as the known-good answer",))


def _says_the_same(path: str, one: str | None, other: str | None) -> bool:
    if one == other:
        return True
    if one is None or other is None or not path.endswith((".py", ".pyi")):
        return False
    shapes = _shape(one), _shape(other)
    return None not in shapes and shapes[0] == shapes[1]


def _shape(text: str) -> str | None:
    try:
        return ast.dump(ast.parse(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
