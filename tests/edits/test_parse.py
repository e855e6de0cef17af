"""What reads as an edit, what does not, and what is said about it."""

from __future__ import annotations

import pickle

import pytest

from code_repair_rl.edits import EditError, EditErrorKind, FileEdit, Hunk, LineEndings, Patch, parse

BLOCK = "<<<<<<< SEARCH\nold\n=======\nnew\n>>>>>>> REPLACE\n"
HUNK = Hunk(("old",), ("new",))


def refused(text: str) -> EditError:
    with pytest.raises(EditError) as caught:
        parse(text)
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        "a/b.py\n" + BLOCK,
        "a/b.py\n```python\n" + BLOCK + "```\n",
        "```python\na/b.py\n" + BLOCK + "```\n",
        "Here is the fix.\n\n`a/b.py`\n\n```\n" + BLOCK + "```",
        "### `a/b.py`:\n" + BLOCK,
        "**a/b.py**:\n" + BLOCK,
        "**`a/b.py`**\n" + BLOCK,
        '"a/b.py"\n' + BLOCK,
        "./a/b.py\n" + BLOCK,
        "a/b.py:\n" + BLOCK,
        "<answer>\na/b.py\n" + BLOCK + "</answer>",
        "<answer>a/b.py\n" + BLOCK.rstrip() + "</answer>",
        "<think>\nx.py\n" + BLOCK + "or so</think>\n<answer>\na/b.py\n" + BLOCK + "</answer>\nx.py\n" + BLOCK,
        "thoughts without an opening tag\nx.py\n" + BLOCK + "</think>\na/b.py\n" + BLOCK,
        "Draft:\na/b.py\n" + BLOCK + "That is it.</think>\n\na/b.py\n" + BLOCK,
        "Only the line changes:\n@@ -1 +1 @@\n-old\n+new\n</think>\na/b.py\n" + BLOCK,
        "x.py\n" + BLOCK + "or so</think> The fix:\n\na/b.py\n" + BLOCK,
        "x.py\n" + BLOCK + "or so.</think><answer>\na/b.py\n" + BLOCK + "</answer></think>\n",
        "a/b.py\n" + BLOCK + "Now `</think>` and '</think>' are handled.\n",
        "<answer>\nx.py\n" + BLOCK + "</answer>\nNo:\n<answer>\na/b.py\n" + BLOCK + "</answer>",
        "a/b.py\n<<<<<<<<< SEARCH\nold\n=========\nnew\n>>>>>>>>> REPLACE",
        "a/b.py\n<<<<<<< SEARCH  \nold\n======= \nnew\n>>>>>>> REPLACE\t\n",
        ("a/b.py\n" + BLOCK).replace("\n", "\r\n"),
    ],
)
def test_blocks_are_found_wherever_a_model_puts_them(text: str) -> None:
    assert parse(text) == Patch((FileEdit("a/b.py", (HUNK,)),))


def test_a_path_is_optional_and_prose_is_no_path() -> None:
    pathless = Patch((FileEdit(None, (HUNK,)),))
    for above in ("", "Here is the fix:\n", "fixed.\n", "```python\n", "The fault is in a.py, line 3\n"):
        assert parse(above + BLOCK) == pathless


def test_a_block_without_a_path_belongs_to_the_file_before() -> None:
    other = "<<<<<<< SEARCH\nx\n=======\n>>>>>>> REPLACE\n"
    patch = parse("a.py\n" + BLOCK + "and\n" + other + "b.py\n" + BLOCK + "a.py\n" + other.replace("x", "y"))
    assert patch == Patch(
        (
            FileEdit("a.py", (HUNK, Hunk(("x",), ()), Hunk(("y",), ()))),
            FileEdit("b.py", (HUNK,)),
        )
    )


def test_blank_lines_and_marker_like_lines_are_content() -> None:
    text = "<<<<<<<< SEARCH\n\n=======\n<<<<<<< SEARCH\n ========\n========\n>>>>>>> REPLACE\n\n>>>>>>>> REPLACE\n"
    (edit,) = parse(text).edits
    assert edit.hunks == (Hunk(("", "=======", "<<<<<<< SEARCH", " ========"), (">>>>>>> REPLACE", "")),)


def test_headers_say_what_blocks_cannot() -> None:
    text = (
        "*** Add File: new.py\n"
        "*** Delete File: a file with blanks.txt\n"
        "*** Rename File: old.py\n*** Move to: dir/new.py\n" + BLOCK + "c.py\n"
        "*** Line Endings: CRLF\n*** No Newline at End of File\n*** At Line: 4\n" + BLOCK
    )
    assert parse(text) == Patch(
        (
            FileEdit("new.py", created=True),
            FileEdit("a file with blanks.txt", deleted=True),
            FileEdit("old.py", (HUNK,), renamed_to="dir/new.py"),
            FileEdit("c.py", (Hunk(("old",), ("new",), at=4),), final_newline=False, line_endings=LineEndings.CRLF),
        )
    )
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("text", "kind", "line"),
    [
        ("", EditErrorKind.UNREADABLE, None),
        ("I do not know.", EditErrorKind.UNREADABLE, None),
        ("```python\nx = 1\n```", EditErrorKind.UNREADABLE, None),
        ("<think>\n" + BLOCK, EditErrorKind.UNREADABLE, None),
        ("<answer>\n</answer>\n" + BLOCK, EditErrorKind.UNREADABLE, None),
        ("x\n<<<<<<< SEARCH\nold\n", EditErrorKind.UNTERMINATED, 2),
        ("<<<<<<< SEARCH", EditErrorKind.UNTERMINATED, 1),
        ("<<<<<<< SEARCH\nold\n=======\nnew\n>>>>>>> REPL", EditErrorKind.UNTERMINATED, 1),
        ("<<<<<<< SEARCH\nold\n=======\nnew\n>>>>>>>> REPLACE", EditErrorKind.UNTERMINATED, 1),
        ("<<<<<<< SEARCH\nold\n>>>>>>> REPLACE\n", EditErrorKind.MISSING_DIVIDER, 3),
        ("<<<<<<< SEARCH\nold\n<<<<<<< SEARCH\n", EditErrorKind.NESTED_MARKER, 3),
        ("<<<<<<< SEARCH\nold\n=======\nnew\n=======\n>>>>>>> REPLACE", EditErrorKind.NESTED_MARKER, 5),
        ("<<<<<<< SEARCH\nold\n=======\nnew\n" + BLOCK, EditErrorKind.NESTED_MARKER, 5),
        (BLOCK + "<<<<<<< SEARCH\nold\n", EditErrorKind.UNTERMINATED, 6),
        ("/etc/passwd.txt\n" + BLOCK, EditErrorKind.PATH_OUTSIDE, 2),
        ("../a.py\n" + BLOCK, EditErrorKind.PATH_OUTSIDE, 2),
        ("a/../../b.py\n" + BLOCK, EditErrorKind.PATH_OUTSIDE, 2),
        ("*** Delete File: a//b.py", EditErrorKind.PATH_OUTSIDE, 1),
        ('"C:\\\\x.py"\n' + BLOCK, EditErrorKind.PATH_OUTSIDE, 2),
        ("*** Empty Patch\n" + BLOCK, EditErrorKind.MALFORMED_HEADER, 1),
        ("*** At Line: 0\n" + BLOCK, EditErrorKind.MALFORMED_HEADER, 1),
        ("a.py\n" + BLOCK + "*** At Line: 3\n", EditErrorKind.MALFORMED_HEADER, 8),
        ("*** Rename File: a.py\n" + BLOCK, EditErrorKind.MALFORMED_HEADER, 1),
        ("*** Delete File: a.py\n*** Add File: a.py", EditErrorKind.MALFORMED_HEADER, 2),
        ("*** Line Endings: CR\n", EditErrorKind.MALFORMED_HEADER, 1),
        ("*** Newline at End of File\n*** No Newline at End of File\n", EditErrorKind.MALFORMED_HEADER, 2),
        ('*** Add File: "a\n', EditErrorKind.MALFORMED_HEADER, 1),
        ("<<<<<<< SEARCH\n=======\n>>>>>>> REPLACE\n", EditErrorKind.EMPTY_SEARCH, 1),
        ("ok\n\ud800", EditErrorKind.NOT_TEXT, 2),
    ],
)
def test_what_cannot_be_read_is_refused_with_kind_and_line(text: str, kind: EditErrorKind, line: int | None) -> None:
    error = refused(text)
    assert (error.kind, error.line) == (kind, line)


def test_a_text_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(EditError) as caught:
        parse(BLOCK, max_characters=10)
    assert caught.value.kind is EditErrorKind.TOO_LARGE


def test_errors_survive_the_way_between_processes() -> None:
    error = refused("x\n<<<<<<< SEARCH\nold\n")
    again = pickle.loads(pickle.dumps(error))
    assert (again.kind, again.line, again.hint, str(again)) == (error.kind, error.line, error.hint, str(error))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: FileEdit("a.py"),
        lambda: FileEdit(None, deleted=True),
        lambda: FileEdit("a.py", created=True, deleted=True),
        lambda: Patch((FileEdit("a.py", (HUNK,)), FileEdit("a.py", (HUNK,)))),
        lambda: Patch((FileEdit("a.py", (HUNK,)), FileEdit(None, (HUNK,)))),
    ],
)
def test_patches_that_no_text_can_say_cannot_be_made(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        wrong()  # type: ignore[operator]
