"""A task with an oracle, and answers of every sort with the verdicts that grading gives them."""

from __future__ import annotations

from code_repair_rl.edits import EditError, Tolerance, diff, parse
from code_repair_rl.grading.verdict import Outcome, Verdict
from code_repair_rl.tasks import Kind, Origin, Split, Task

BEFORE = {
    "a.py": (
        '"""Sums."""\n\n\ndef total(values):\n    result = 0\n    for value in values[1:]:\n        result += value\n'
        "    return result\n\n\ndef mean(values):\n    return total(values) / len(values)\n"
    ),
    "b.py": "def first(values):\n    return values[0]\n",
}
ORACLE = {"a.py": BEFORE["a.py"].replace("values[1:]", "values")}


def task(files: dict[str, str] | None = None, oracle: dict[str, str | None] | str | None = None) -> Task:
    return Task(
        task_id="t",
        kind=Kind.CLASSIFY if isinstance(oracle, str) else Kind.REPAIR,
        files=BEFORE if files is None else files,
        description="",
        oracle=ORACLE if oracle is None else oracle,
        split=Split.TRAIN,
        problem="t",
        origin=Origin(source="test"),
        licence="CC0-1.0",
    )


def answer(path: str, old: str, new: str) -> str:
    """The canonical answer that replaces text in one file."""
    assert old in BEFORE[path]
    return str(diff(BEFORE, {**BEFORE, path: BEFORE[path].replace(old, new, 1)}))


def verdict_on(text: str, *, passes: bool = False, outcome: Outcome = Outcome.FAILED) -> Verdict:
    """As grading goes: refused, unchanged, or what the tests say."""
    try:
        applied = parse(text).apply_with(BEFORE, tolerance=Tolerance.INDENTATION)
    except EditError as error:
        return Verdict(Outcome.EDIT_REJECTED, edit_error=error.kind.value)
    if not applied.changed:
        return Verdict(Outcome.UNCHANGED, tolerance=applied.rung.value)
    return Verdict(Outcome.PASSED if passes else outcome, tolerance=applied.rung.value)


ORACLE_TEXT = str(diff(BEFORE, {**BEFORE, **ORACLE}))
