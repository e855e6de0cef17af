"""What is promised for any two text trees: building, writing, reading and applying lose nothing."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from code_repair_rl.edits import EditError, Patch, diff, parse, unified
from tests.edits.trees import CODE, TEXTS, TREES

Tree = Mapping[str, str]


@settings(max_examples=250)
@given(TREES, TREES)
def test_diff_leads_from_before_to_after_to_the_byte(before: Tree, after: Tree) -> None:
    was = dict(before)
    assert diff(before, after).apply(before) == after
    assert before == was


@settings(max_examples=250)
@given(TREES, TREES)
def test_canonical_text_reads_back_as_an_equal_patch(before: Tree, after: Tree) -> None:
    patch = diff(before, after)
    again = parse(str(patch))
    assert again == patch
    assert str(again) == str(patch)
    assert again.apply(before) == after


@settings(max_examples=250)
@given(TEXTS, TEXTS)
def test_text_without_paths_says_the_same_of_a_tree_of_one_file(before: str, after: str) -> None:
    text = diff({"a.py": before}, {"a.py": after}).text(paths=False)
    assert parse(text).apply({"a.py": before}) == {"a.py": after}


@settings(max_examples=250)
@given(TREES, TREES, st.integers(1, 4))
def test_unified_diffs_read_back(before: Tree, after: Tree, context: int) -> None:
    text = unified(before, after, context=context)
    if before == after:
        assert text == ""
    else:
        assert parse(text).apply(before) == after


@settings(max_examples=150)
@given(CODE, CODE)
def test_a_patch_read_from_a_unified_diff_has_canonical_text_too(before: str, after: str) -> None:
    if before == after:
        return
    patch = parse(unified({"a.py": before}, {"a.py": after}))
    assert parse(str(patch)) == patch


@settings(max_examples=150)
@given(
    TREES, TREES, st.sampled_from(["```\n{}```\n", "Sure:\n<answer>\n{}</answer>\nDone.", "<think>\nhm\n</think>\n{}"])
)
def test_wrapping_changes_nothing(before: Tree, after: Tree, wrapping: str) -> None:
    patch = diff(before, after)
    assert parse(wrapping.format(str(patch))) == patch


@settings(max_examples=600)
@given(st.one_of(st.text(), CODE))
def test_any_text_gives_a_patch_or_an_edit_error(text: str) -> None:
    try:
        patch = parse(text)
    except EditError as error:
        assert error.line is None or 1 <= error.line <= text.count("\n") + 1
        return
    assert isinstance(patch, Patch)
    assert parse(str(patch)) == patch


@settings(max_examples=250)
@given(st.one_of(st.text(), CODE), TREES)
def test_applying_never_does_half_or_touches_its_input(text: str, tree: Tree) -> None:
    was = dict(tree)
    try:
        after = parse(text).apply(tree)
    except EditError:
        after = None
    assert tree == was
    assert after is not tree


def test_any_two_texts_of_a_long_repetitive_file() -> None:
    before = {"a.py": "x\n" * 3000}
    after = {"a.py": "x\n" * 1000 + "y\n" + "x\n" * 1500 + "z\n" + "x\n" * 499}
    assert diff(before, after).apply(before) == after


@given(TREES)
def test_equal_trees_give_the_empty_patch(tree: Tree) -> None:
    patch = diff(tree, dict(tree))
    assert patch == Patch()
    assert str(patch) == "*** Empty Patch\n"
    assert parse(str(patch)) == patch
    assert patch.apply(tree) == tree
