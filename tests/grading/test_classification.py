"""Labels and their evidence: graded against what the real fix changed, and citing everything is worth nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.grading import Grader, Outcome
from code_repair_rl.grading.classification import evidence_score, examine
from code_repair_rl.tasks import oracle_answer
from code_repair_rl.tasks.classification import answer_text
from code_repair_rl.tasks.task import Line
from tests.tasks.labelled import CODE, labelled


def _lines(*numbers: int) -> tuple[Line, ...]:
    texts = CODE.splitlines()
    return tuple(Line(path="code.py", number=number, text=texts[number - 1]) for number in numbers)


def test_the_grader_gives_labels_a_verdict_without_running_anything() -> None:
    task = labelled()
    answers = [
        (oracle_answer(task), Outcome.PASSED, None),
        (answer_text("benign", (), ""), Outcome.FAILED, None),
        ("", Outcome.EDIT_REJECTED, "no-think"),
        (oracle_answer(task)[:-5], Outcome.EDIT_REJECTED, "unterminated-tag"),
    ]
    with Grader(workers=1) as grader:
        verdicts = grader.grade_many([(task, text) for text, _, _ in answers])
    assert [(verdict.outcome, verdict.edit_error) for verdict in verdicts] == [
        (outcome, error) for _, outcome, error in answers
    ]


def test_evidence_is_precision_and_recall_of_the_cited_lines() -> None:
    task = labelled(lines=(2, 3))
    found = examine(task, answer_text("vulnerable", _lines(2, 5), "x"))
    assert found.evidence is not None
    assert (found.evidence.precision, found.evidence.recall, found.evidence.f1) == (0.5, 0.5, 0.5)


def test_a_line_that_says_something_else_is_no_evidence() -> None:
    task = labelled(lines=(2,))
    found = examine(task, "<think>line 2: cursor.execute(query)</think><answer>vulnerable</answer>")
    assert (found.cited, found.misquoted) == ((), 1)
    assert found.evidence is not None
    assert found.evidence.corrected == 0.0


def test_where_no_line_is_known_there_is_no_score() -> None:
    assert examine(labelled("benign", lines=()), answer_text("benign", (), "")).evidence is None


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(1, n), min_size=1))))
def test_citing_every_line_is_worth_nothing_and_the_right_ones_everything(case: tuple[int, set[int]]) -> None:
    count, wanted = case
    written = list(range(1, count + 1))
    everything = evidence_score(written, 0, wanted, written)
    right = evidence_score(sorted(wanted), 0, wanted, written)
    if everything is None or right is None:
        assert len(wanted) == count
        return
    assert everything.corrected == pytest.approx(0.0, abs=1e-12)
    assert right.corrected == pytest.approx(1.0)


@given(
    st.sets(st.integers(1, 9), min_size=1, max_size=8), st.sets(st.integers(1, 9)), st.integers(0, 3), st.integers(1, 9)
)
def test_a_wrong_line_more_never_helps(wanted: set[int], cited: set[int], misquoted: int, extra: int) -> None:
    written = list(range(1, 10))
    before = evidence_score(sorted(cited), misquoted, wanted, written)
    worse = evidence_score(sorted(cited), misquoted + 1, wanted, written)
    assert before is not None
    assert worse is not None
    assert 0.0 <= worse.corrected <= before.corrected <= 1.0
    if extra not in wanted:
        with_extra = evidence_score(sorted(cited | {extra}), misquoted, wanted, written)
        assert with_extra is not None
        assert with_extra.f1 <= before.f1
