"""The place of a fault, from before and after."""

from __future__ import annotations

import pytest

from code_repair_rl.tasks import Line, exact_lines, faulty_lines


@pytest.mark.parametrize(
    ("faulty", "whole", "lines"),
    [
        ("a\nb\nc\n", "a\nx\nc\n", [2]),
        ("a\nb\nc\n", "a\nc\n", [2]),
        ("a\nc\n", "a\nb\nc\n", [1]),
        ("a\n\nc\n", "a\n\nb\nc\n", [1]),
        ("c\n", "b\nc\n", [1]),
        ("a\nb\n", "a\nb\n", []),
        ("\x0c\na\u2028\nb\n", "\x0c\na\u2028\nc\n", [3]),
    ],
)
def test_faulty_lines_are_what_changes_or_stands_before_the_gap(faulty: str, whole: str, lines: list[int]) -> None:
    assert faulty_lines(faulty, whole) == lines


def test_lines_of_several_files_come_with_their_texts() -> None:
    before = {"a.py": "x\ny\n", "b.py": "z\n", "c.py": "same\n"}
    after = {"a.py": "x\nw\n", "b.py": None, "c.py": "same\n", "new.py": "n\n"}
    assert exact_lines(before, after) == (Line(path="a.py", number=2, text="y"),)


def test_a_line_is_numbered_as_the_parser_does_and_comes_without_its_ending() -> None:
    before = {"a.py": "\x0c\r\nx\x1c\r\ny\r\n"}
    assert exact_lines(before, {"a.py": "\x0c\r\nx\x1c\r\nz\r\n"}) == (Line(path="a.py", number=3, text="y"),)


def test_an_empty_file_has_no_line_to_name() -> None:
    assert exact_lines({"a.py": ""}, {"a.py": "x\n"}) == ()
