"""Similarity, gain, localisation and size: what each is for, on cases a careful engineer would judge alike."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_repair_rl.edits import (
    changed_lines,
    changed_tokens,
    code_tokens,
    edit_gain,
    file_localisation,
    line_localisation,
    similarity,
)
from tests.edits.trees import CODE, TREES

BEFORE = {"a.py": "def f(x):\n    if x < 1:\n        return 1\n    return x\n", "b.py": "y = 1\n"}
ORACLE = {**BEFORE, "a.py": BEFORE["a.py"].replace("x < 1", "x <= 1")}


def with_a(text: str) -> dict[str, str]:
    return {**BEFORE, "a.py": text}


def test_tokens_see_words_signs_and_indentation_only() -> None:
    assert code_tokens("if x:\n    return y+1\nz") == ["if", "x", ":", "\n+4", "return", "y", "+", "1", "\n-4", "z"]
    spaced = "if  x :\r\n\r\n    return y + 1   \r\n\n\nz\n"
    assert code_tokens(spaced) == code_tokens("if x:\n    return y+1\nz")
    assert code_tokens("if x:\n\treturn") == code_tokens("if x:\n        return")
    assert code_tokens("if x:\n    a\n    b") != code_tokens("if x:\n    a\nb")
    assert code_tokens("") == []


@settings(max_examples=150)
@given(TREES, TREES)
def test_similarity_is_symmetric_and_between_0_and_1(one: dict[str, str], other: dict[str, str]) -> None:
    value = similarity(one, other)
    assert 0.0 <= value <= 1.0
    assert value == similarity(other, one)
    assert similarity(one, one) == 1.0


@settings(max_examples=150)
@given(TREES, TREES, TREES)
def test_gain_is_1_for_the_oracle_0_for_nothing_and_between_for_all(
    before: dict[str, str], predicted: dict[str, str], oracle: dict[str, str]
) -> None:
    assert 0.0 <= edit_gain(before, predicted, oracle) <= 1.0
    assert edit_gain(before, oracle, oracle) == 1.0
    if before != oracle:
        assert edit_gain(before, before, oracle) == 0.0


@pytest.mark.parametrize(
    "predicted",
    [
        pytest.param(with_a(BEFORE["a.py"] + " \n\n"), id="white space"),
        pytest.param(with_a("# fixed\n" + BEFORE["a.py"]), id="comment"),
        pytest.param(with_a(""), id="deleted"),
        pytest.param({**BEFORE, "b.py": "y <= 1\n"}, id="another file"),
        pytest.param(with_a(BEFORE["a.py"].replace("return x", "return x - 1 + 1")), id="another place"),
    ],
)
def test_edits_elsewhere_gain_nothing(predicted: dict[str, str]) -> None:
    assert edit_gain(BEFORE, predicted, ORACLE) == 0.0


def test_a_fix_with_extra_edits_gains_less_than_the_fix() -> None:
    fixed = with_a(ORACLE["a.py"] + "z = 1\n")
    assert 0.0 <= edit_gain(BEFORE, fixed, ORACLE) < 1.0
    partly = {"a.py": "a = 1\nb = 2\n"}
    goal = {"a.py": "a = 7\nb = 8\n"}
    assert edit_gain(partly, {"a.py": "a = 7\nb = 2\n"}, goal) == pytest.approx(0.5)


def test_where_tokens_are_equal_only_the_exact_text_gains() -> None:
    before, oracle = {"a.py": "x=1\n"}, {"a.py": "x = 1\n"}
    assert edit_gain(before, oracle, oracle) == 1.0
    assert edit_gain(before, before, oracle) == 0.0
    assert edit_gain(before, {"a.py": "x =1\n"}, oracle) == 0.0


def test_files_that_nobody_edits_do_not_count() -> None:
    rest = {f"lib/{n}.py": "import os\n" * 50 for n in range(20)}
    half = with_a(ORACLE["a.py"] + "z = 1\n")
    assert edit_gain({**BEFORE, **rest}, {**half, **rest}, {**ORACLE, **rest}) == edit_gain(BEFORE, half, ORACLE)


def test_similarity_alone_prefers_doing_nothing_to_a_right_but_different_fix() -> None:
    """Why similarity must never be the main reward."""
    rewritten = with_a("def f(x):\n    return 1 if not x > 1 else x\n")
    assert similarity(BEFORE, ORACLE) > similarity(rewritten, ORACLE)


def test_size_counts_tokens_out_and_in() -> None:
    assert changed_tokens(BEFORE, BEFORE) == 0
    assert changed_tokens(BEFORE, ORACLE) == 1
    assert changed_tokens({"a.py": "x = 1\n"}, {"a.py": "x = 2\n"}) == 2
    assert changed_tokens({"a.py": "x = 1\n"}, {}) == 3
    assert changed_tokens({"a.py": "x = 1\n"}, {"a.py": "x  =  1\n"}) == 0


@settings(max_examples=100)
@given(TREES, TREES)
def test_size_is_symmetric_and_at_most_all_tokens(one: dict[str, str], other: dict[str, str]) -> None:
    size = changed_tokens(one, other)
    assert size == changed_tokens(other, one)
    assert 0 <= size <= sum(len(code_tokens(text)) for tree in (one, other) for text in tree.values())


def test_localisation_of_files() -> None:
    both = {"a.py": "", "b.py": ""}
    assert file_localisation(BEFORE, ORACLE, ORACLE).f1 == 1.0
    found = file_localisation(BEFORE, both, ORACLE)
    assert (found.precision, found.recall) == (0.5, 1.0)
    nothing = file_localisation(BEFORE, BEFORE, ORACLE)
    assert (nothing.precision, nothing.recall, nothing.f1) == (0.0, 0.0, 0.0)
    assert file_localisation(BEFORE, BEFORE, BEFORE).f1 == 1.0


def test_localisation_of_lines() -> None:
    assert changed_lines(BEFORE, ORACLE) == {("a.py", 2.0)}
    assert changed_lines({"a.py": "a\nb\n"}, {"a.py": "a\nx\nb\n"}) == {("a.py", 1.5)}
    right_line_wrong_fix = with_a(BEFORE["a.py"].replace("x < 1", "x > 1"))
    assert line_localisation(BEFORE, right_line_wrong_fix, ORACLE).f1 == 1.0
    two_lines = with_a(right_line_wrong_fix["a.py"].replace("return 1", "return 2"))
    found = line_localisation(BEFORE, two_lines, ORACLE)
    assert (found.precision, found.recall) == (0.5, 1.0)


@settings(max_examples=100)
@given(CODE, CODE)
def test_localisation_is_perfect_for_the_oracle_itself(before: str, oracle: str) -> None:
    assert line_localisation({"a.py": before}, {"a.py": oracle}, {"a.py": oracle}).f1 == 1.0


@given(st.text())
def test_tokens_of_any_text(text: str) -> None:
    joined = "".join(token for token in code_tokens(text) if token[0] != "\n")
    assert joined == "".join(text.split())
