"""Classification: is the label right, and do the cited lines hold what decides?

The cited lines are compared with the lines that the real fix changed, so that the reasoning itself is checked. Citing
everything is worth nothing: the score is corrected for what citing every line would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from code_repair_rl.edits.lines import lines_of
from code_repair_rl.grading.verdict import Outcome, Verdict
from code_repair_rl.tasks.classification import (
    ENOUGH_CITED,
    AnswerError,
    code_of,
    evidence_lines,
    fitting_answer,
    is_quoted,
)
from code_repair_rl.tasks.task import Task


@dataclass(frozen=True, slots=True)
class EvidenceScore:
    """Cited lines against the lines that decide."""

    precision: float
    recall: float
    """Of the lines that decide; `ENOUGH_CITED` of them are all that is asked for."""
    f1: float
    corrected: float
    """F1 above what citing every line of the code would give, as a share of what is left above that; in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one answer says, and how right it is."""

    label: str | None
    """None where the answer could not be read."""
    error: str | None
    """The `AnswerErrorKind` then."""
    right: bool
    cited: tuple[int, ...]
    """Cited lines that are in the code as quoted."""
    misquoted: int
    """Citations of lines that are not there, or that hold something else."""
    evidence: EvidenceScore | None
    """None where the lines that decide are not known, are all there are, or no answer could be read."""


def examine(task: Task, completion_text: str) -> Finding:
    """What an answer says, compared with what is known of the task."""
    try:
        answer = fitting_answer(completion_text, task)
    except AnswerError as error:
        return Finding(None, error.kind.value, False, (), 0, None)
    lines = lines_of(code_of(task)[1])
    cited = tuple(citation.number for citation in answer.citations if is_quoted(citation, lines))
    misquoted = len(answer.citations) - len(cited)
    wanted = {line.number for line in evidence_lines(task)}
    return Finding(
        label=answer.label,
        error=None,
        right=answer.label == task.oracle,
        cited=cited,
        misquoted=misquoted,
        evidence=evidence_score(cited, misquoted, wanted, written_lines(lines)),
    )


def classification_verdict(task: Task, completion_text: str) -> Verdict:
    """The verdict: passed for the right label, failed for a wrong one, refused where the form is broken."""
    found = examine(task, completion_text)
    if found.error is not None:
        return Verdict(Outcome.EDIT_REJECTED, edit_error=found.error, evidence=(f"unreadable answer: {found.error}",))
    said = f"answered {found.label}, cited lines {', '.join(map(str, found.cited)) or 'none'}"
    if found.misquoted:
        said += f", {found.misquoted} misquoted"
    if found.evidence is not None:
        said += f"; evidence F1 {found.evidence.f1:.2f}"
    return Verdict(Outcome.PASSED if found.right else Outcome.FAILED, evidence=(said,))


def evidence_score(
    cited: Sequence[int], misquoted: int, wanted: set[int], written: Sequence[int]
) -> EvidenceScore | None:
    """How well cited lines meet the lines that decide.

    Args:
        cited: lines that are there as quoted.
        misquoted: citations that are not; they cost precision.
        wanted: the lines that decide.
        written: all lines of the code that hold something.

    Returns:
        None where nothing is known, or every written line decides: then citing tells nothing.
    """
    everything = _f1(len(wanted), len(written), len(wanted))[2] if wanted else 1.0
    if not wanted or everything >= 1.0:
        return None
    hits = len(wanted.intersection(cited))
    precision, recall, f1 = _f1(hits, len(set(cited)) + misquoted, len(wanted))
    return EvidenceScore(precision, recall, f1, max(0.0, (f1 - everything) / (1.0 - everything)))


def written_lines(lines: Sequence[str]) -> list[int]:
    """1-based numbers of the lines that hold something."""
    return [number for number, line in enumerate(lines, start=1) if line.strip()]


def _f1(hits: int, cited: int, wanted: int) -> tuple[float, float, float]:
    """Precision, recall (full with `ENOUGH_CITED` hits) and their harmonic mean."""
    precision = hits / cited if cited else 0.0
    recall = min(1.0, hits / min(wanted, ENOUGH_CITED)) if wanted else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if hits else 0.0
