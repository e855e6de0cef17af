"""What a model reads: a task as chat messages, and the known-good answer in the form that is asked for.

The prompt is short on purpose: the smallest model that we train reads it on a CPU. It shows the description, the
code, at most one hint and the form of the answer. Hidden examples and the trusted `check` never enter it: the
templates are given the shown parts only, not the task.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypedDict

from code_repair_rl.edits import diff
from code_repair_rl.tasks.classification import code_of, known_good_answer, labels_of
from code_repair_rl.tasks.excerpts import shown_files
from code_repair_rl.tasks.task import HintLevel, Kind, Line, Task

if TYPE_CHECKING:
    import jinja2

_LANGUAGES = {"python": "Python", "c": "C", "cpp": "C++"}
_SUFFIXES = {
    **{".py": "python", ".pyi": "python", ".c": "c", ".h": "c", ".cc": "cpp", ".cpp": "cpp", ".hpp": "cpp"},
    **{".go": "go", ".js": "javascript", ".ts": "typescript", ".java": "java", ".rs": "rust", ".rb": "ruby"},
}
_NAMES = {**_LANGUAGES, "go": "Go", "javascript": "JavaScript", "typescript": "TypeScript", "java": "Java"} | {
    "rust": "Rust",
    "ruby": "Ruby",
}


class Message(TypedDict):
    """One chat message."""

    role: str
    content: str


def messages(task: Task, hint: HintLevel | str = HintLevel.NONE) -> list[Message]:
    """The conversation that asks for `task`: one system and one user message.

    A level for which the task has no hint (no visible example fails, say) is asked without one. A classification task
    never has one: its lines are what is asked for.
    """
    level = HintLevel(hint)
    if task.kind is Kind.CLASSIFY:
        return _classification(task)
    lines = _lines(task, level)
    shown_texts = {path: _ended(text) for path, text in shown_files(task, lines).items()}
    shown = {
        "description": task.description.strip(),
        "files": shown_texts,
        "with_paths": len(task.files) > 1,
        "failing_call": task.hints.failing_call if level is HintLevel.FAILING_CALL else None,
        "lines": lines,
        "fences": {path: _SUFFIXES.get(PurePosixPath(path).suffix, "") for path in shown_texts},
    }
    return [
        {"role": "system", "content": _rendered("system", {"kind": task.kind.value, "language": _language(task)})},
        {"role": "user", "content": _rendered(task.kind.value, shown)},
    ]


def has_hint(task: Task, hint: HintLevel | str) -> bool:
    """Whether the task has something to tell at this level (`NONE`: always)."""
    level = HintLevel(hint)
    if level is HintLevel.NONE:
        return True
    if task.kind is Kind.CLASSIFY:
        return False
    if level is HintLevel.FAILING_CALL:
        return task.hints.failing_call is not None
    return bool(_lines(task, level))


def oracle_answer(task: Task) -> str:
    """The known-good answer in the form that the prompt asks for; with paths where there are several files."""
    if isinstance(task.oracle, str):
        return known_good_answer(task)
    before = {path: task.files[path] for path in task.oracle if path in task.files}
    after = {path: text for path, text in task.oracle.items() if text is not None}
    return diff(before, after).text(paths=len(task.files) > 1).rstrip("\n")


def _classification(task: Task) -> list[Message]:
    _, code = code_of(task)
    shown = {
        "lines": code.rstrip("\n").split("\n"),
        "language": _LANGUAGES.get(str(task.origin.detail.get("language")), ""),
        "labels": labels_of(task),
    }
    return [
        {"role": "system", "content": _rendered("system", {"kind": task.kind.value, "language": ""})},
        {"role": "user", "content": _rendered("classify", shown)},
    ]


def _language(task: Task) -> str:
    """The language of the files that the answer touches, as a prompt names it; empty where there are several."""
    touched = [path for path in (task.oracle if isinstance(task.oracle, Mapping) else task.files) if path in task.files]
    found = {_NAMES.get(_SUFFIXES.get(PurePosixPath(path).suffix, ""), "") for path in touched}
    return found.pop() if len(found) == 1 else ""


def _lines(task: Task, level: HintLevel) -> tuple[Line, ...]:
    if level is HintLevel.SUSPICIOUS_LINES:
        return task.hints.suspicious_lines
    if level is HintLevel.EXACT_LINE:
        return task.hints.exact_lines
    return ()


def _ended(text: str) -> str:
    """`text` with a newline at its end, so that the code fence begins on its own line."""
    return text if text.endswith("\n") else text + "\n"


def _rendered(template: str, values: Mapping[str, object]) -> str:
    return _templates().get_template(f"{template}.jinja").render(values).strip()


@cache
def _templates() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("code_repair_rl.tasks"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
