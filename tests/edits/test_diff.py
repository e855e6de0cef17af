"""Blocks are minimal, their SEARCH is unique, and what cannot be said is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from code_repair_rl.edits import EditError, EditErrorKind, FileEdit, Hunk, LineEndings, Patch, diff
from code_repair_rl.edits.lines import split_lines
from tests.edits.trees import CODE


def hunks(before: str, after: str) -> tuple[Hunk, ...]:
    (edit,) = diff({"a.py": before}, {"a.py": after}).edits
    return edit.hunks


def occurrences(before: str, search: tuple[str, ...]) -> int:
    lines = tuple(split_lines(before, "\n")[0])
    return sum(lines[at : at + len(search)] == search for at in range(len(lines)))


def test_one_faulty_line_is_one_line_of_search() -> None:
    before = "def f(x):\n    if x < 1:\n        return 1\n    return x\n"
    assert hunks(before, before.replace("<", "<=")) == (Hunk(("    if x < 1:",), ("    if x <= 1:",)),)


def test_context_grows_only_until_the_place_is_unique() -> None:
    before = "a\nx\nb\nx\nc\n"
    assert hunks(before, "a\nx\nb\ny\nc\n") == (Hunk(("b", "x"), ("b", "y")),)
    assert hunks("x\nx\nx\n", "x\nx\ny\n") == (Hunk(("x", "x", "x"), ("x", "x", "y")),)


def test_insertions_take_the_rarer_neighbour() -> None:
    assert hunks("a\n\n\n", "a\nb\n\n\n") == (Hunk(("a",), ("a", "b")),)
    assert hunks("\na\n\n", "\nb\na\n\n") == (Hunk(("a",), ("b", "a")),)


def test_far_changes_are_blocks_of_their_own() -> None:
    before = "".join(f"{n}\n" for n in range(20))
    after = before.replace("3\n", "x\n", 1).replace("17\n", "y\n")
    assert hunks(before, after) == (Hunk(("3",), ("x",)), Hunk(("17",), ("y",)))


@settings(max_examples=200)
@given(CODE, CODE)
def test_every_search_stands_in_one_place_and_no_line_at_its_ends_could_be_spared(before: str, after: str) -> None:
    if before == after or not before or "\r" in before + after:
        return
    for hunk in hunks(before, after):
        assert occurrences(before, hunk.search) == 1
        if len(hunk.search) > 1 and hunk.search[:1] == hunk.replace[:1]:
            assert occurrences(before, hunk.search[1:]) > 1
        if len(hunk.search) > 1 and hunk.search[-1:] == hunk.replace[-1:]:
            assert occurrences(before, hunk.search[:-1]) > 1


def test_whole_files() -> None:
    patch = diff(
        {"gone.py": "x\n", "old.py": "a\nb\nc\n", "emptied.py": "x\n", "same.py": ""},
        {"new.py": "", "text.py": "t", "sub/old.py": "a\nb\nd\n", "emptied.py": "", "same.py": ""},
    )
    assert patch == Patch(
        (
            FileEdit("gone.py", deleted=True),
            FileEdit("old.py", (Hunk(("c",), ("d",)),), renamed_to="sub/old.py"),
            FileEdit("emptied.py", (Hunk(("x",), ()),)),
            FileEdit("new.py", created=True),
            FileEdit("text.py", (Hunk((), ("t",)),), final_newline=False),
        )
    )
    assert patch.paths == ("gone.py", "old.py", "sub/old.py", "emptied.py", "new.py", "text.py")


@pytest.mark.parametrize(
    ("before", "after", "endings"),
    [
        ("a\r\nb\r\n", "a\r\nc\r\n", None),
        ("a\nb\n", "a\r\nb\r\n", LineEndings.CRLF),
        ("a\r\nb\r\n", "a\nb\n", LineEndings.LF),
        ("a\r\nb\r\n", "a\r\nb\n", LineEndings.RAW),
        ("a\r\nb\n", "a\r\nc\n", None),
    ],
)
def test_line_endings_cost_a_header_only_where_they_change(
    before: str, after: str, endings: LineEndings | None
) -> None:
    (edit,) = diff({"a.py": before}, {"a.py": after}).edits
    assert edit.line_endings is endings
    assert len(edit.hunks) <= 1


@pytest.mark.parametrize("path", ["/a.py", "../a.py", "a/./b.py", "", "a//b.py", "C:\\a.py"])
def test_trees_with_paths_that_lead_out_are_refused(path: str) -> None:
    for before, after in (({path: "x"}, {}), ({}, {path: "x"})):
        with pytest.raises(EditError) as caught:
            diff(before, after)
        assert caught.value.kind is EditErrorKind.PATH_OUTSIDE


@pytest.mark.parametrize("text", [b"x", "\ud800"])
def test_trees_with_something_else_than_text_are_refused(text: object) -> None:
    with pytest.raises(EditError) as caught:
        diff({"a.py": text}, {})  # type: ignore[dict-item]
    assert caught.value.kind is EditErrorKind.NOT_TEXT


def test_text_without_paths_keeps_them_where_they_are_needed() -> None:
    created = diff({}, {"a.py": "x\n"})
    assert "a.py" in created.text(paths=False)
    several = diff({"a.py": "1\n", "b.py": "1\n"}, {"a.py": "2\n", "b.py": "2\n"})
    assert several.text(paths=False) == str(several)
    one = diff({"a.py": "1\n"}, {"a.py": "2\n"})
    assert one.text(paths=False) == "<<<<<<< SEARCH\n1\n=======\n2\n>>>>>>> REPLACE\n"
    assert str(one) == "a.py\n" + one.text(paths=False)


def test_many_renames_at_once_are_found_by_equal_text() -> None:
    before = {f"old/{n}.py": f"text {n}\n" for n in range(50)}
    after = {f"new/{n}.py": f"text {n}\n" for n in range(50)}
    patch = diff(before, after)
    assert all(edit.renamed_to == f"new/{n}.py" for n, edit in enumerate(patch.edits))
    assert patch.apply(before) == after


def test_long_texts_are_compared_in_pieces() -> None:
    lines = [f"line {n}\n" for n in range(30_000)]
    changed = [line for n, line in enumerate(lines) if n % 9000] + ["end\n"]
    before, after = {"a.py": "start\n" + "".join(lines)}, {"a.py": "".join(changed)}
    patch = diff(before, after)
    assert patch.apply(before) == after
    assert len(str(patch)) < 1000
