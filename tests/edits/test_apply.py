"""Whole lines, one place, all or nothing; and the ladder of tolerance."""

from __future__ import annotations

import pytest

from code_repair_rl.edits import EditError, EditErrorKind, FileEdit, Hunk, Patch, Tolerance, parse

CODE = "def f(x):\n    if x < 1:\n        return 1\n    return x - 1\n\n\ndef g(x):\n    return x - 1\n"
TREE = {"a.py": CODE, "b.py": "x = 10\n"}


def block(search: str, replace: str) -> str:
    return f"<<<<<<< SEARCH\n{search}=======\n{replace}>>>>>>> REPLACE\n"


def refused(text: str, tree: dict[str, str] | None = None, **options: object) -> EditError:
    was = dict(TREE if tree is None else tree)
    tree = dict(was)
    with pytest.raises(EditError) as caught:
        parse(text).apply(tree, **options)  # type: ignore[arg-type]
    assert tree == was
    return caught.value


def test_blocks_replace_delete_insert_create_and_empty() -> None:
    text = (
        "a.py\n"
        + block("    if x < 1:\n", "    if x <= 1:\n")
        + block("\n\ndef g(x):\n    return x - 1\n", "")
        + "new/c.py\n"
        + block("", "y = 1\n")
        + "b.py\n"
        + block("x = 10\n", "")
    )
    assert parse(text).apply(TREE) == {
        "a.py": "def f(x):\n    if x <= 1:\n        return 1\n    return x - 1\n",
        "b.py": "",
        "new/c.py": "y = 1\n",
    }


def test_only_whole_lines_match() -> None:
    assert refused("b.py\n" + block("x = 1\n", "x = 2\n")).kind is EditErrorKind.SEARCH_NOT_FOUND
    assert refused("b.py\n" + block("= 10\n", "x = 2\n")).kind is EditErrorKind.SEARCH_NOT_FOUND


def test_two_places_are_refused_with_both() -> None:
    error = refused("a.py\n" + block("    return x - 1\n", "    return x\n"))
    assert (error.kind, error.places, error.path) == (EditErrorKind.AMBIGUOUS, (4, 8), "a.py")


def test_places_that_overlap_themselves_count() -> None:
    error = refused(block("x\nx\n", "y\n"), {"a.py": "x\nx\nx\n"})
    assert (error.kind, error.places) == (EditErrorKind.AMBIGUOUS, (1, 2))


def test_all_blocks_are_located_in_the_original() -> None:
    swap = block("a\n", "b\n") + block("b\n", "a\n")
    assert parse(swap).apply({"f.py": "a\nb\n"}) == {"f.py": "b\na\n"}


def test_overlapping_blocks_are_refused() -> None:
    error = refused("a.py\n" + block("def f(x):\n    if x < 1:\n", "") + block("    if x < 1:\n", "    if x:\n"))
    assert (error.kind, error.places, error.line) == (EditErrorKind.OVERLAPPING, (2,), 7)
    assert refused("c.py\n" + block("", "x\n") + block("", "y\n")).kind is EditErrorKind.OVERLAPPING


def test_many_blocks_find_their_places_as_few_do() -> None:
    before = "".join(f"x{n}\nsame\n" for n in range(60))
    text = "".join(block(f"x{n}\nsame\n", f"y{n}\nsame\n") for n in range(60))
    assert parse(text).apply({"a.py": before})["a.py"] == before.replace("x", "y")
    many_same = text + block("same\n", "")
    assert refused(many_same, {"a.py": before}).kind is EditErrorKind.AMBIGUOUS
    assert refused(text + block("gone\n", ""), {"a.py": before}).kind is EditErrorKind.SEARCH_NOT_FOUND


def test_a_path_is_needed_unless_the_tree_has_one_file() -> None:
    text = block("x = 10\n", "x = 11\n")
    assert refused(text).kind is EditErrorKind.NO_PATH
    assert refused(text, {}).kind is EditErrorKind.NO_PATH
    assert parse(text).apply({"b.py": "x = 10\n"}) == {"b.py": "x = 11\n"}


def test_one_file_may_not_be_edited_under_no_name_and_its_own_at_one_place() -> None:
    text = block("a\n", "b\n") + "f.py\n" + block("a\n", "c\n")
    assert refused(text, {"f.py": "a\n"}).kind is EditErrorKind.OVERLAPPING
    both = block("a\n", "b\n") + "f.py\n" + block("c\n", "d\n")
    assert parse(both).apply({"f.py": "a\nc\n"}) == {"f.py": "b\nd\n"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("aa.py\n" + block("x\n", "y\n"), EditErrorKind.NO_SUCH_FILE),
        ("*** Delete File: c.py\n", EditErrorKind.NO_SUCH_FILE),
        ("*** Rename File: c.py\n*** Move to: d.py\n", EditErrorKind.NO_SUCH_FILE),
        ("*** Rename File: a.py\n*** Move to: b.py\n", EditErrorKind.FILE_EXISTS),
        ("*** Rename File: a.py\n*** Move to: b.py/a.py\n", EditErrorKind.FILE_EXISTS),
        ("a.py/x/y.py\n" + block("", "y\n"), EditErrorKind.FILE_EXISTS),
        ("*** Add File: c\n*** Add File: c/x.py\n", EditErrorKind.FILE_EXISTS),
        ("a.py\n" + block("", "y\n"), EditErrorKind.EMPTY_SEARCH),
        ("*** Add File: a.py\n", EditErrorKind.EMPTY_SEARCH),
        ("*** Delete File: b.py\n" + block("gone\n", ""), EditErrorKind.SEARCH_NOT_FOUND),
        ("*** Delete File: a.py\n" + block("def f(x):\n", ""), EditErrorKind.SEARCH_NOT_FOUND),
        ("b.py\n*** At Line: 9\n" + block("", "y\n"), EditErrorKind.SEARCH_NOT_FOUND),
    ],
)
def test_edits_that_do_not_fit_the_tree(text: str, kind: EditErrorKind) -> None:
    assert refused(text).kind is kind


def test_a_file_may_become_a_folder() -> None:
    assert parse("*** Rename File: a\n*** Move to: a/__init__.py\n").apply({"a": "x\n"}) == {"a/__init__.py": "x\n"}
    with_two = parse("*** Delete File: a\n*** Add File: a/b.py\n*** Add File: a/c.py\n")
    assert with_two.apply({"a": "x\n"}) == {"a/b.py": "", "a/c.py": ""}


def test_a_wrong_path_is_answered_with_the_likely_one() -> None:
    assert "'a.py'" in (refused("src/a.py\n" + block("x\n", "y\n")).hint or "")


@pytest.mark.parametrize("protected", [["b.py"], ["*.py"], ["./x", "b.py"]])
def test_protected_files_are_refused(protected: list[str]) -> None:
    error = refused("b.py\n" + block("x = 10\n", "x = 11\n"), protected=protected)
    assert (error.kind, error.path) == (EditErrorKind.PROTECTED, "b.py")


@pytest.mark.parametrize(
    "text",
    [
        "tests/test_a.py\n" + block("", "y\n"),
        "*** Add File: tests/deep/conftest.py\n",
        "*** Rename File: a.py\n*** Move to: tests/a.py\n",
    ],
)
def test_a_protected_folder_protects_all_below_it(text: str) -> None:
    assert refused(text, protected=["tests/"]).kind is EditErrorKind.PROTECTED


def test_patches_made_by_hand_meet_the_same_rules_about_paths() -> None:
    with pytest.raises(EditError) as caught:
        Patch((FileEdit("../x.py", (Hunk((), ("y",)),)),)).apply(TREE)
    assert caught.value.kind is EditErrorKind.PATH_OUTSIDE


def test_bytes_are_no_text() -> None:
    with pytest.raises(EditError) as caught:
        parse("a.py\n" + block("x\n", "y\n")).apply({"a.py": b"x\n"})  # type: ignore[dict-item]
    assert caught.value.kind is EditErrorKind.NOT_TEXT


def test_a_line_number_decides_between_places() -> None:
    text = "*** At Line: 3\n" + block("x\n", "y\n")
    assert parse(text).apply({"a.py": "x\nz\nx\n"}) == {"a.py": "x\nz\ny\n"}
    assert refused(text, {"a.py": "x\nx\nz\n"}).kind is EditErrorKind.AMBIGUOUS


def test_trailing_white_space_is_the_second_rung() -> None:
    tree = {"a.py": "a  \nb\t\nc\n"}
    text = block("a\nb\n", "a\nB\n")
    assert refused(text, tree).kind is EditErrorKind.SEARCH_NOT_FOUND
    applied = parse(text).apply_with(tree, tolerance=Tolerance.TRAILING_WHITESPACE)
    # The line that the answer only repeats keeps its blanks.
    assert (applied.files, applied.rung) == ({"a.py": "a  \nB\nc\n"}, Tolerance.TRAILING_WHITESPACE)


def test_uniform_indentation_is_the_third_rung() -> None:
    tree = {"a.py": "class A:\n    def f(self):\n\n        return 1\n"}
    text = block("def f(self):\n\n    return 1\n", "def f(self):\n\n    if self:\n        return 2\n")
    for tolerance in (Tolerance.EXACT, Tolerance.TRAILING_WHITESPACE):
        assert refused(text, tree, tolerance=tolerance).kind is EditErrorKind.SEARCH_NOT_FOUND
    applied = parse(text).apply_with(tree, tolerance=Tolerance.INDENTATION)
    assert applied.files["a.py"] == "class A:\n    def f(self):\n\n        if self:\n            return 2\n"
    assert applied.rung is Tolerance.INDENTATION


def test_indentation_may_be_taken_away_but_never_guessed() -> None:
    tree = {"a.py": "if x:\n    y\n"}
    deep = block("    if x:\n        y\n", "    if z:\n        y\n")
    assert parse(deep).apply(tree, tolerance=Tolerance.INDENTATION) == {"a.py": "if z:\n    y\n"}
    uneven = block("  if x:\n        y\n", "z\n")
    assert refused(uneven, tree, tolerance=Tolerance.INDENTATION).kind is EditErrorKind.SEARCH_NOT_FOUND
    cannot_follow = block("    if x:\n        y\n", "z\n")
    assert refused(cannot_follow, tree, tolerance=Tolerance.INDENTATION).kind is EditErrorKind.SEARCH_NOT_FOUND


def test_the_strictest_rung_that_finds_a_place_decides() -> None:
    tree = {"a.py": "    x\nx\n"}
    applied = parse(block("x\n", "y\n")).apply_with(tree, tolerance=Tolerance.INDENTATION)
    assert (applied.files["a.py"], applied.rung) == ("    x\ny\n", Tolerance.EXACT)
    twice = {"a.py": "x \nx\t\n"}
    assert refused(block("x\n", "y\n"), twice, tolerance=Tolerance.INDENTATION).kind is EditErrorKind.AMBIGUOUS


def test_answers_need_not_write_out_carriage_returns() -> None:
    tree = {"a.py": "a\r\nb\r\nc"}
    for text in (block("b\n", "x\ny\n"), block("b\r\n", "x\r\ny\r\n"), block("b\n", "x\ny\n").replace("\n", "\r\n")):
        applied = parse(text).apply_with(tree)
        assert (applied.files["a.py"], applied.rung) == ("a\r\nx\r\ny\r\nc", Tolerance.EXACT)


def test_a_missing_final_newline_stays_missing_unless_a_header_says_otherwise() -> None:
    tree = {"a.py": "a\nb"}
    assert parse(block("b\n", "c\n")).apply(tree) == {"a.py": "a\nc"}
    assert parse("*** Newline at End of File\n" + block("b\n", "c\n")).apply(tree) == {"a.py": "a\nc\n"}


def test_only_what_really_differs_counts_as_changed() -> None:
    text = "a.py\n" + block("def f(x):\n", "def f(x):\n") + "b.py\n" + block("x = 10\n", "x = 11\n")
    assert parse(text).apply_with(TREE).changed == {"b.py"}
    moved = parse("*** Rename File: b.py\n*** Move to: c.py\n").apply_with(TREE)
    assert moved.changed == {"b.py", "c.py"}
    assert parse("a.py\n" + block("def f(x):\n", "def f(x):\n")).changes(TREE).texts == {}


class LazyTree(dict[str, str]):
    """Records which texts were read."""

    def __init__(self, files: dict[str, str]) -> None:
        super().__init__(files)
        self.read: set[str] = set()

    def __getitem__(self, path: str) -> str:
        self.read.add(path)
        return super().__getitem__(path)

    def get(self, path: str, default: object = None) -> object:  # type: ignore[override]
        if path not in self:
            return default
        return self[path]


def test_changes_read_only_the_files_that_are_edited() -> None:
    tree = LazyTree(TREE)
    assert parse("b.py\n" + block("x = 10\n", "x = 11\n")).changes(tree).texts == {"b.py": "x = 11\n"}
    assert tree.read == {"b.py"}


@pytest.mark.parametrize(
    ("search", "place", "words"),
    [
        ("    if x <1:\n", 2, "line 2 is '    if x < 1:', but SEARCH has '    if x <1:'"),
        ("    if x < 1:\n        return 2\n", 2, "line 3 is"),
        ("  if x < 1:\n", 2, "only in indentation"),
        ("    if x < 1: \n", 2, "only in white space at the ends"),
        ("    return x - 1\n    more\n", 8, "the file ends at line 8"),
        ("zzzzzzzzzzzz\n", None, "copy the SEARCH lines"),
    ],
)
def test_the_nearest_place_is_named_with_its_difference(search: str, place: int | None, words: str) -> None:
    error = refused("a.py\n" + block(search, "x\n"), {"a.py": CODE[CODE.index("def f") :], "b.py": ""})
    if "the file ends" in words:
        assert error.places
        return
    assert error.places == (() if place is None else (place,))
    assert words in (error.hint or "")
