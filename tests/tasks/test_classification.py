"""The form of a classification's answer: read strictly, refused with a kind."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.errors import BadInput
from code_repair_rl.tasks import HintLevel, Split, has_hint, messages, oracle_answer
from code_repair_rl.tasks.classification import (
    MOST_CITED,
    AnswerError,
    AnswerErrorKind,
    Citation,
    answer_text,
    fitting_answer,
    is_quoted,
    label_names,
    parse_answer,
    relabelled,
)
from tests.tasks.labelled import CODE, labelled


def _kind(text: str) -> AnswerErrorKind:
    with pytest.raises(AnswerError) as caught:
        fitting_answer(text, labelled())
    return caught.value.kind


def test_the_known_good_answer_is_read_back() -> None:
    task = labelled(lines=(2, 3))
    answer = fitting_answer(oracle_answer(task), task)
    assert answer.label == "vulnerable"
    assert [citation.number for citation in answer.citations] == [2, 3]
    assert "CWE-89 SQL Injection" in answer.thinking
    assert all(is_quoted(citation, CODE.splitlines()) for citation in answer.citations)


def test_the_known_good_answer_to_benign_code_without_known_lines_cites_nothing() -> None:
    task = labelled("benign", lines=())
    assert oracle_answer(task) == "<think>\npattern: none\n</think>\n<answer>benign</answer>"
    assert fitting_answer(oracle_answer(task), task).citations == ()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", AnswerErrorKind.NO_THINK),
        ("vulnerable", AnswerErrorKind.NO_THINK),
        ("<answer>benign</answer>", AnswerErrorKind.NO_THINK),
        ("<think>line 2: query", AnswerErrorKind.UNTERMINATED),
        ("<think></think><answer>benign", AnswerErrorKind.UNTERMINATED),
        ("<think></think>", AnswerErrorKind.NO_ANSWER),
        ("<think></think><think></think><answer>benign</answer>", AnswerErrorKind.REPEATED_TAG),
        ("<think><answer></think>benign</answer>", AnswerErrorKind.REPEATED_TAG),
        ("<think></think><answer>benign</answer><answer>benign</answer>", AnswerErrorKind.REPEATED_TAG),
        ("<think></think> so <answer>benign</answer>", AnswerErrorKind.TEXT_OUTSIDE),
        ("<think></think><answer>benign</answer> !", AnswerErrorKind.TEXT_OUTSIDE),
        ("<think></think><answer>safe</answer>", AnswerErrorKind.UNKNOWN_LABEL),
        ("<think></think><answer>CWE-89</answer>", AnswerErrorKind.UNKNOWN_LABEL),
        ("<think>pattern: x</think><answer>vulnerable</answer>", AnswerErrorKind.NO_EVIDENCE),
    ],
)
def test_what_breaks_the_form_is_refused_with_its_kind(text: str, kind: AnswerErrorKind) -> None:
    assert _kind(text) is kind


def test_citing_everything_is_refused() -> None:
    cited = "\n".join(f"line {number}: x" for number in range(1, MOST_CITED + 2))
    assert _kind(f"<think>\n{cited}\n</think>\n<answer>vulnerable</answer>") is AnswerErrorKind.TOO_MANY_LINES


def test_a_line_cited_twice_counts_once() -> None:
    answer = parse_answer("<think>line 2: a\nline 2: b</think><answer>benign</answer>")
    assert answer.citations == (Citation(2, "a"),)


@pytest.mark.parametrize(
    ("number", "quoted", "holds"),
    [
        (3, "cursor.execute(query)", True),
        (3, "  cursor.execute( query)", False),
        (2, "query = \"SELECT * FROM", True),
        (2, "query", False),
        (6, "return rows", True),
        (4, "", False),
        (0, "def", False),
        (7, "return rows", False),
    ],
)  # fmt: skip
def test_a_quotation_is_the_line_or_a_good_part_of_its_beginning(number: int, quoted: str, holds: bool) -> None:
    assert is_quoted(Citation(number, quoted), CODE.splitlines()) is holds


_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="<>\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"))


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        answer = parse_answer(text)
    except AnswerError as error:
        assert error.kind in AnswerErrorKind
    else:
        assert len(answer.citations) <= MOST_CITED


@given(_WORDS, st.lists(st.integers(1, 6), unique=True, max_size=3), st.sampled_from(["benign", "vulnerable"]))
def test_canonical_answers_give_their_parts_back(pattern: str, numbers: list[int], label: str) -> None:
    task = labelled(label, lines=tuple(number for number in sorted(numbers) if number != 4))
    lines = task.hints.exact_lines
    answer = parse_answer(answer_text(label, lines, pattern.strip()))
    assert answer.label == label
    assert {citation.number for citation in answer.citations} >= {line.number for line in lines}


def test_errors_survive_pickling() -> None:
    error = AnswerError(AnswerErrorKind.NO_ANSWER, "there is none")
    again = pickle.loads(pickle.dumps(error))
    assert (again.kind, again.what) == (error.kind, error.what)


def test_the_prompt_numbers_the_lines_and_never_tells_the_answer() -> None:
    task = labelled()
    for level in HintLevel:
        text = messages(task, level)[1]["content"]
        assert "3:     cursor.execute(query)" in text
        assert "benign or vulnerable" in text
        assert "CWE-89" not in text
    assert messages(task, HintLevel.EXACT_LINE) == messages(labelled("benign", lines=()), HintLevel.NONE)
    assert not has_hint(task, HintLevel.EXACT_LINE)


def test_label_sets() -> None:
    training = [
        labelled(cwe=cwe, task_id=f"{cwe}-{number}", split=Split.TRAIN)
        for cwe, count in (("CWE-89", 3), ("CWE-78", 2), ("CWE-22", 1))
        for number in range(count)
    ]
    names = label_names("top-2", training)
    assert names == ("benign", "CWE-89", "CWE-78", "other")
    assert [task.oracle for task in relabelled(training, names)] == ["CWE-89"] * 3 + ["CWE-78"] * 2 + ["other"]
    assert {task.oracle for task in relabelled(training, label_names("full", training))} == {
        "CWE-89",
        "CWE-78",
        "CWE-22",
    }
    again = relabelled(relabelled(training, names), label_names("binary", training))
    assert {task.oracle for task in again} == {"vulnerable"}
    with pytest.raises(BadInput, match="top-5"):
        label_names("many", training)


def test_under_full_labels_any_cwe_may_be_named() -> None:
    (task,) = relabelled([labelled()], ())
    assert fitting_answer(answer_text("CWE-20", task.hints.exact_lines, ""), task).label == "CWE-20"
    with pytest.raises(AnswerError):
        fitting_answer(answer_text("CWE-x", task.hints.exact_lines, ""), task)
    assert "benign or a CWE" in messages(task)[1]["content"]
