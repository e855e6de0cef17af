"""Unified diffs: what git writes is read, what is written git reads, and sloppy ones are refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings

from code_repair_rl.edits import EditError, EditErrorKind, parse, unified
from tests.edits.trees import CODE

BEFORE = {
    "a.py": "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n",
    "crlf.py": "a\r\nb\r\nc",
    "gone.py": "x\n",
    "gone_empty.py": "",
    "moved.py": "first line\nsecond line\nthird line\n",
    "ä ö.py": "x = 1\n",
    "no_newline.py": "x",
    "sql.sql": "-- old\nselect 1\n",
}
AFTER = {
    "a.py": "one\nTWO\nthree\nfour\nfive\nsix\nseven\neight\nnine\nTEN",
    "crlf.py": "a\r\nB\r\nc",
    "new/x.py": "y\n",
    "empty.py": "",
    "dir/moved.py": "first line\nsecond line\nthird\n",
    "ä ö.py": "x = 2\n",
    "no_newline.py": "x\n",
    "sql.sql": "++ new\nselect 1\n",
}

git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def write(tree: dict[str, str], folder: Path) -> None:
    for path, text in tree.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())


def read(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes().decode()
        for file in folder.rglob("*")
        if file.is_file() and ".git" not in file.parts
    }


def run_git(folder: Path, *words: str, stdin: bytes | None = None) -> str:
    command = ["git", "-c", "core.autocrlf=false", "-c", "core.safecrlf=false", *words]
    done = subprocess.run(command, cwd=folder, input=stdin, capture_output=True, check=True)
    return done.stdout.decode()


@git
@pytest.mark.parametrize("options", [[], ["-M"], ["--no-prefix"], ["-U1"], ["-U10"], ["--no-renames"]])
def test_what_git_writes_is_read(tmp_path: Path, options: list[str]) -> None:
    write(BEFORE, tmp_path)
    run_git(tmp_path, "init", "-q")
    run_git(tmp_path, "add", "-A")
    before = run_git(tmp_path, "write-tree").strip()
    for path in BEFORE:
        (tmp_path / path).unlink()
    write(AFTER, tmp_path)
    run_git(tmp_path, "add", "-A")
    text = run_git(tmp_path, "diff", *options, before, run_git(tmp_path, "write-tree").strip())
    assert parse(text).apply(BEFORE) == AFTER
    assert parse(f"The fix:\n```diff\n{text}```\n").apply(BEFORE) == AFTER


@git
def test_what_is_written_git_reads(tmp_path: Path) -> None:
    write(BEFORE, tmp_path)
    run_git(tmp_path, "init", "-q")
    run_git(tmp_path, "apply", "--whitespace=nowarn", "-", stdin=unified(BEFORE, AFTER).encode())
    assert read(tmp_path) == AFTER


@git
@settings(max_examples=25)
@given(CODE, CODE)
def test_git_agrees_on_any_two_texts(tmp_path_factory: pytest.TempPathFactory, before: str, after: str) -> None:
    if before == after or "\0" in before + after:
        return
    folder = tmp_path_factory.mktemp("tree")
    write({"a.py": before}, folder)
    text = unified({"a.py": before}, {"a.py": after})
    run_git(folder, "apply", "--whitespace=nowarn", "-", stdin=text.encode())
    assert read(folder) == {"a.py": after}


def test_plain_diffs_of_several_files_are_told_apart_by_their_counts() -> None:
    text = (
        "--- a/x.sql\n+++ b/x.sql\n@@ -1,2 +1 @@\n--- old\n select 1\n"
        "--- y.py\t2024-01-01 00:00:00\n+++ y.py\t2024-01-02 00:00:00\n@@ -1 +1 @@\n-1\n+2\n"
    )
    assert parse(text).apply({"x.sql": "-- old\nselect 1\n", "y.py": "1\n"}) == {"x.sql": "select 1\n", "y.py": "2\n"}


def test_counts_may_be_left_out_and_blank_context_may_have_lost_its_blank() -> None:
    text = "--- a/x.py\n+++ b/x.py\n@@ @@\n a\n\n-b\n+c\n\nand that is all\n"
    assert parse(text).apply({"x.py": "a\n\nb\n"}) == {"x.py": "a\n\nc\n"}


def test_line_numbers_may_be_off_where_only_one_place_fits() -> None:
    text = "--- a/x.py\n+++ b/x.py\n@@ -70 +70 @@\n-b\n+c\n"
    assert parse(text).apply({"x.py": "a\nb\n"}) == {"x.py": "a\nc\n"}
    with pytest.raises(EditError) as caught:
        parse(text).apply({"x.py": "b\nb\n"})
    assert caught.value.kind is EditErrorKind.AMBIGUOUS


def test_insertions_without_context_go_where_the_header_says() -> None:
    text = "--- a/x.py\n+++ b/x.py\n@@ -1,0 +2 @@\n+b\n@@ -2,0 +4 @@\n+d\n"
    assert parse(text).apply({"x.py": "a\nc\n"}) == {"x.py": "a\nb\nc\nd\n"}


def test_a_change_of_mode_alone_is_no_edit() -> None:
    mode = "diff --git a/x.py b/x.py\nold mode 100644\nnew mode 100755\n"
    with pytest.raises(EditError) as caught:
        parse(mode)
    assert caught.value.kind is EditErrorKind.UNREADABLE
    more = mode + "diff --git a/y.py b/y.py\n--- a/y.py\n+++ b/y.py\n@@ -1 +1 @@\n-1\n+2\n"
    assert parse(more).apply({"x.py": "", "y.py": "1\n"}) == {"x.py": "", "y.py": "2\n"}


HUNK = "@@ -1 +1 @@\n-a\n+b\n"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("--- a/x\n+++ b/x\n@@ -1,2 +1 @@\n-a\n+b\n", EditErrorKind.MALFORMED_DIFF),
        ("--- a/x\n+++ b/x\n@@ -1 +1,3 @@\n-a\n+b\n", EditErrorKind.MALFORMED_DIFF),
        ("--- a/x\n+++ b/y\n" + HUNK, EditErrorKind.MALFORMED_DIFF),
        ("--- /dev/null\n+++ /dev/null\n" + HUNK, EditErrorKind.MALFORMED_DIFF),
        ("diff --git a/x b/y\n", EditErrorKind.MALFORMED_DIFF),
        ("diff --git a/x b/y\nrename from x\n", EditErrorKind.MALFORMED_DIFF),
        ("diff --git a/x b/y\nsimilarity index 100%\ncopy from x\ncopy to y\n", EditErrorKind.MALFORMED_DIFF),
        ("diff --git a/x b/x\nindex 1..2\nindex 1..2\n", EditErrorKind.MALFORMED_DIFF),
        ("--- a/x\n+++ b/x\n@@ @@\n\\ No newline at end of file\n-a\n+b\n", EditErrorKind.MALFORMED_DIFF),
        ("--- a/x\n+++ b/x\n@@ @@\n a\n\\ No newline at end of file\n-a\n", EditErrorKind.MALFORMED_DIFF),
        ("diff --git a/x b/x\nBinary files a/x and b/x differ\n", EditErrorKind.NOT_TEXT),
        ("diff --git a/x b/x\nGIT binary patch\nliteral 1\n", EditErrorKind.NOT_TEXT),
        ("--- a/../x\n+++ b/../x\n" + HUNK, EditErrorKind.PATH_OUTSIDE),
        ("--- /x\n+++ /x\n" + HUNK, EditErrorKind.PATH_OUTSIDE),
        (("--- a/x\n+++ b/x\n" + HUNK) * 2, EditErrorKind.OVERLAPPING),
        ("--- a/x\n+++ b/x\n-a\n+b\n", EditErrorKind.MALFORMED_DIFF),
        ("--- /dev/null\n+++ b/x\n+b\n", EditErrorKind.MALFORMED_DIFF),
        ("--- a/x\n+++ b/x\nHere:\n" + HUNK, EditErrorKind.MALFORMED_DIFF),
        ("diff --git a/x b/x\nindex 1..2\n" + HUNK, EditErrorKind.MALFORMED_DIFF),
        (HUNK, EditErrorKind.MALFORMED_DIFF),
    ],
)
def test_sloppy_diffs_are_refused(text: str, kind: EditErrorKind) -> None:
    with pytest.raises(EditError) as caught:
        parse(text)
    assert caught.value.kind is kind
    assert caught.value.line is not None


@pytest.mark.parametrize(
    ("rest", "line"),
    [
        ("+c\n", 6),
        ("    c\n", 6),
        ("-c\n", 6),
        ("-    c\n", 6),
        ("--- c\n", 6),
        ("\n+c\n", 7),
        ("@@ -5 +5\n-c\n+d\n", 6),
        ("@@ def f():\n-c\n+d\n", 6),
        ("\n@@ -5 +5\n-c\n+d\n", 7),
        ("```\n```diff\n@@ -5 +5 @@\n-c\n+d\n", 8),
        ("--- a/y\n+++ b/y\n@@ -1 +1\n-c\n+d\n", 8),
    ],
)
def test_no_line_of_a_diff_is_passed_over(rest: str, line: int) -> None:
    with pytest.raises(EditError) as caught:
        parse("--- a/x\n+++ b/x\n" + HUNK + rest)
    assert (caught.value.kind, caught.value.line) == (EditErrorKind.MALFORMED_DIFF, line)


@pytest.mark.parametrize(
    "rest",
    [
        "-- \n2.39.2\n\n",
        "--\n2.39.2\n",
        "---\nThat is all.\n",
        "- The bound was off by one.\n- Nothing else changed.\n",
        "\n+ one more bullet\n",
        "\n  - a bullet within\n",
        "\n    an indented line\n",
        "```\nDone: - and + as before.\n",
        "\ncommit 1234\nAuthor: A. B.\n\n    Say why\n",
        "",
    ],
)
def test_prose_may_follow_a_diff(rest: str) -> None:
    assert parse("--- a/x\n+++ b/x\n" + HUNK + rest).apply({"x": "a\n"}) == {"x": "b\n"}


def test_blank_lines_may_stand_between_hunks() -> None:
    for first, second in (("@@ -1 +1 @@", "@@ -3 +3 @@"), ("@@ @@", "@@ @@")):
        text = f"--- a/x\n+++ b/x\n{first}\n-a\n+A\n\n\n{second}\n-c\n+C\n"
        assert parse(text).apply({"x": "a\nb\nc\n"}) == {"x": "A\nb\nC\n"}


def test_a_deletion_must_know_what_it_deletes() -> None:
    text = "--- a/x.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n"
    assert parse(text).apply({"x.py": "a\n"}) == {}
    for other in ("b\n", "a\nb\n"):
        with pytest.raises(EditError) as caught:
            parse(text).apply({"x.py": other})
        assert caught.value.kind is EditErrorKind.SEARCH_NOT_FOUND


def test_context_is_needed() -> None:
    with pytest.raises(ValueError, match="context"):
        unified(BEFORE, AFTER, context=0)
