"""Is this code vulnerable: what is asked, and the form of the answer.

An answer cites lines of the code as evidence and then says one label:

    <think>
    line 12: cursor.execute("SELECT " + name)
    pattern: CWE-89 SQL Injection
    </think>
    <answer>vulnerable</answer>

Every line of the form `line N: TEXT` is a citation; its text has to stand on that line of the code, or to begin it.
Other lines of the thinking are free. What breaks the form is refused with a kind, as edits are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from code_repair_rl.errors import BadInput, CrrlError
from code_repair_rl.tasks.files import load_tasks
from code_repair_rl.tasks.task import Kind, Line, Split, Task

BENIGN = "benign"
"""The label of code in which nobody found a vulnerability."""
VULNERABLE = "vulnerable"
"""The other label of the set `binary`."""
OTHER = "other"
"""In a set of the most frequent CWEs: vulnerable in another way."""

MOST_CITED = 8
"""More citations than this are refused: whoever cites everything has found nothing."""
ENOUGH_CITED = 3
"""So many right lines are full recall, and the known-good answer cites no more."""

_QUOTED = 40
"""Characters of a line that the known-good answer quotes."""
_LEAST_QUOTED = 12
"""A shorter quotation has to be the whole line."""
_CITATION = re.compile(r"^[ \t]*line[ \t]+(\d{1,6})[ \t]*:(.*)$", re.MULTILINE | re.IGNORECASE)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_TOP = re.compile(r"top-([1-9]\d{0,2})")


class AnswerErrorKind(StrEnum):
    """Why an answer could not be read. The value goes into verdicts and reward terms."""

    NO_THINK = "no-think"
    """The answer does not begin with `<think>`."""
    UNTERMINATED = "unterminated-tag"
    """A tag was opened and never closed (often: the token limit)."""
    NO_ANSWER = "no-answer"
    """The thinking is there, and no `<answer>` follows it."""
    REPEATED_TAG = "repeated-tag"
    """A tag stands there more than once, or in the wrong order."""
    TEXT_OUTSIDE = "text-outside"
    """Something stands between the two parts or after them."""
    UNKNOWN_LABEL = "unknown-label"
    """The label is none of those that were asked for."""
    NO_EVIDENCE = "no-evidence"
    """The label says vulnerable, and no line is cited."""
    TOO_MANY_LINES = "too-many-lines"
    """More than `MOST_CITED` lines are cited."""


class AnswerError(CrrlError):
    """An answer that is refused.

    Attributes:
        kind: which rule it broke.
    """

    def __init__(self, kind: AnswerErrorKind, what: str) -> None:
        super().__init__(what)
        self.kind = kind

    def __reduce__(self) -> tuple[object, ...]:
        return (AnswerError, (self.kind, self.what))


@dataclass(frozen=True, slots=True)
class Citation:
    """One cited line, as the answer has it."""

    number: int
    quoted: str
    """What the answer says stands there."""


@dataclass(frozen=True, slots=True)
class ClassificationAnswer:
    """An answer in its parts."""

    label: str
    citations: tuple[Citation, ...]
    """In order, each line once."""
    thinking: str
    """The whole text between the tags."""


def parse_answer(text: str) -> ClassificationAnswer:
    """The parts of an answer. Says nothing about whether label and citations fit a task: see `fitting_answer`.

    Raises:
        AnswerError: it breaks the form.
    """
    body = text.strip()
    if not body.startswith("<think>"):
        raise AnswerError(AnswerErrorKind.NO_THINK, "the answer does not begin with <think>")
    counts = {tag: body.count(tag) for tag in _TAGS}
    if not counts["</think>"]:
        raise AnswerError(AnswerErrorKind.UNTERMINATED, "<think> is not closed")
    if counts["<answer>"] and not counts["</answer>"]:
        raise AnswerError(AnswerErrorKind.UNTERMINATED, "<answer> is not closed")
    if not counts["<answer>"]:
        raise AnswerError(AnswerErrorKind.NO_ANSWER, "there is no <answer> after the thinking")
    places = [body.index(tag) for tag in _TAGS]
    if max(counts.values()) > 1 or places != sorted(places):
        raise AnswerError(AnswerErrorKind.REPEATED_TAG, "each tag stands once, <think> before <answer>")
    thinking, between, label, after = (
        body[start + len(tag) : end] for tag, start, end in zip(_TAGS, places, [*places[1:], None], strict=True)
    )
    if between.strip() or after.strip():
        raise AnswerError(AnswerErrorKind.TEXT_OUTSIDE, "nothing stands between the parts or after them")
    citations: dict[int, Citation] = {}
    for match in _CITATION.finditer(thinking):
        citations.setdefault(int(match[1]), Citation(int(match[1]), match[2].strip()))
    if len(citations) > MOST_CITED:
        raise AnswerError(AnswerErrorKind.TOO_MANY_LINES, f"{len(citations)} lines are cited, at most {MOST_CITED} may")
    return ClassificationAnswer(label.strip(), tuple(citations.values()), thinking.strip())


def fitting_answer(text: str, task: Task) -> ClassificationAnswer:
    """The answer, its label one of those that the task asks for and a claim of vulnerability with evidence.

    Raises:
        AnswerError: it breaks the form, or one of these.
    """
    answer = parse_answer(text)
    if not is_label(answer.label, task):
        raise AnswerError(AnswerErrorKind.UNKNOWN_LABEL, f"{answer.label[:40]!r} is no label of this task")
    if answer.label != BENIGN and not answer.citations:
        raise AnswerError(AnswerErrorKind.NO_EVIDENCE, "no line is cited for the vulnerability")
    return answer


def answer_text(label: str, lines: Sequence[Line], pattern: str) -> str:
    """An answer in canonical form: `parse_answer` gives its parts back."""
    cited = [f"line {line.number}: {line.text.strip()[:_QUOTED].rstrip()}" for line in lines]
    thinking = "\n".join([*cited, f"pattern: {pattern or 'none'}"])
    return f"<think>\n{thinking}\n</think>\n<answer>{label}</answer>"


def is_quoted(citation: Citation, code_lines: Sequence[str]) -> bool:
    """Whether the cited line is there and holds (or begins with) what was quoted; white space makes no difference."""
    if not 1 <= citation.number <= len(code_lines):
        return False
    line, quoted = (" ".join(text.split()) for text in (code_lines[citation.number - 1], citation.quoted))
    if not quoted or not line:
        return False
    return quoted == line or (len(quoted) >= _LEAST_QUOTED and line.startswith(quoted))


def code_of(task: Task) -> tuple[str, str]:
    """Path and text of the one file that a classification task shows.

    Raises:
        BadInput: it shows none or several.
    """
    if len(task.files) != 1:
        raise BadInput(f"a classification task shows one file, not {len(task.files)}", where=task.task_id)
    return next(iter(task.files.items()))


def evidence_lines(task: Task) -> tuple[Line, ...]:
    """The lines that decide, as far as the source tells; empty where it does not."""
    return task.hints.exact_lines


def known_good_answer(task: Task) -> str:
    """The label with the first lines of its evidence."""
    assert isinstance(task.oracle, str)
    pattern = str(task.origin.detail.get("pattern", "")) if task.oracle != BENIGN else ""
    return answer_text(task.oracle, evidence_lines(task)[:ENOUGH_CITED], pattern)


def labels_of(task: Task) -> tuple[str, ...]:
    """The labels that are asked for; empty where any CWE may be named."""
    return tuple(task.origin.detail.get("labels", (BENIGN, VULNERABLE)))


def is_label(label: str, task: Task) -> bool:
    """Whether an answer to the task may say this."""
    labels = labels_of(task)
    return label in labels if labels else label == BENIGN or re.fullmatch(r"CWE-[1-9]\d*", label) is not None


def is_classification(tasks: Iterable[Task]) -> bool:
    """Whether all tasks (at least one) ask for a label.

    Raises:
        BadInput: some do and others do not: their results mean different things.
    """
    kinds = {task.kind is Kind.CLASSIFY for task in tasks}
    if len(kinds) > 1:
        raise BadInput("repair and classification tasks are mixed", mend="keep them in files of their own")
    return kinds == {True}


def notes_on(tasks: Iterable[Task]) -> list[str]:
    """What has to be said wherever results on these tasks are shown: whose labels they are, what names give away."""
    notes: dict[str, None] = {}
    for task in tasks:
        detail = task.origin.detail
        if who := detail.get("labels_by"):
            notes[f"The labels are {who}'s own opinion: agreement with it is measured, not vulnerability."] = None
        if "leak" in detail:
            notes[leak_note(detail["leak"], "the held-out part of this set")] = None
    return list(notes)


def leak_note(found: Mapping[str, Any] | None, where: str) -> str:
    """What is said of names that may give labels away.

    Args:
        found: `balanced_accuracy`, `low`, `high` and `claims` of a bag of identifiers; None where none was fitted.
        where: what it was measured on.
    """
    if found is None:
        return f"What names alone give away of the labels was not measured on {where}, so NOTHING IS CLAIMED on it."
    measured = f"{found['balanced_accuracy']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
    text = f"A bag of identifiers reaches balanced accuracy {measured} on {where}"
    if found["claims"]:
        return f"{text}: names alone do not give the labels away."
    return f"{text}: names alone may give the labels away, so NOTHING IS CLAIMED on it."


def load_as_asked(name_or_path: str | Path, labels: str, *, split: Split | str) -> list[Task]:
    """The tasks of a split, classification tasks under the label set `labels`.

    Raises:
        BadInput: as `load_tasks` and `label_names` do.
    """
    found = load_tasks(name_or_path, split=split)
    if not found or not is_classification(found):
        return found
    training = load_tasks(name_or_path, split=Split.TRAIN) if _TOP.fullmatch(labels) else []
    return relabelled(found, label_names(labels, training))


def label_names(labels: str, training: Iterable[Task]) -> tuple[str, ...]:
    """The labels of a set: `binary`, `top-N` (the N most frequent CWEs in training, `other`, `benign`) or `full`.

    Returns:
        Empty for `full`: any CWE is a label.

    Raises:
        BadInput: there is no such set.
    """
    if labels == "binary":
        return (BENIGN, VULNERABLE)
    if labels == "full":
        return ()
    match = _TOP.fullmatch(labels)
    if match is None:
        raise BadInput(f"there is no label set {labels!r}", where="tasks.labels", mend="use binary, top-5 or full")
    counts = Counter(cwes[0] for task in training if (cwes := _cwes(task)) and task.oracle != BENIGN)
    ranked = sorted(counts, key=lambda cwe: (-counts[cwe], int(cwe.removeprefix("CWE-"))))
    return (BENIGN, *ranked[: int(match[1])], OTHER)


def relabelled(tasks: Iterable[Task], names: Sequence[str]) -> list[Task]:
    """The tasks under another label set.

    Args:
        names: as `label_names` gives them. Vulnerable tasks of which no CWE is known have no label under `full` and
            are left out there. What names give away was measured for two labels, and is not said of others.
    """
    found = []
    for task in tasks:
        label = _label(task, names)
        if label is not None:
            detail = {**task.origin.detail, "labels": list(names)}
            if VULNERABLE not in names:
                detail.pop("leak", None)
                detail["pattern"] = _pattern(task, label)
            origin = task.origin.model_copy(update={"detail": detail})
            found.append(task.model_copy(update={"oracle": label, "origin": origin}))
    return found


def _pattern(task: Task, label: str) -> str:
    """The weakness's name where the label names that weakness, else the label alone."""
    pattern = str(task.origin.detail.get("pattern", ""))
    return pattern if label in (BENIGN, OTHER) or pattern.partition(" ")[0] == label else label


def _label(task: Task, names: Sequence[str]) -> str | None:
    if task.oracle == BENIGN:
        return BENIGN
    if VULNERABLE in names:
        return VULNERABLE
    cwes = _cwes(task)
    if not names:
        return cwes[0] if cwes else None
    return next((cwe for cwe in cwes if cwe in names), OTHER)


def _cwes(task: Task) -> tuple[str, ...]:
    return tuple(task.origin.detail.get("cwes", ()))
