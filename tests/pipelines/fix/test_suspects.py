"""Suspects: given lines, else the traceback's, else what the failing command executed, what computes first."""

from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from code_repair_rl.pipelines.fix import Why, given, located, statement_lines, traceback_lines

SOURCE = '''\
import os


def total(values, start=0):
    """Add up."""
    result = start
    for value in values:
        if value > 0:
            result -= value
    return result


def other():
    pass
'''


def test_neighbouring_given_lines_are_shown_together() -> None:
    suspects = given("a.py", [7, 3, 8, 3])
    assert [(suspect.numbers, suspect.why) for suspect in suspects] == [((3,), Why.GIVEN), ((7, 8), Why.GIVEN)]


def test_statements_that_compute_come_first_and_what_cannot_be_wrong_is_left_out() -> None:
    assert statement_lines(SOURCE) == [8, 9, 6, 7, 10, 4]


def test_a_file_without_functions_has_its_own_statements() -> None:
    assert statement_lines("import os\nx = 1\ny = x + 1\n") == [3, 2]


def test_a_file_that_does_not_parse_has_the_line_complained_of_first() -> None:
    assert statement_lines("x = 1\n\ny = (\nz = = 3\n")[0] in (3, 4)
    assert sorted(statement_lines("x = 1\n\ny = (\nz = = 3\n")) == [1, 3, 4]


def test_both_forms_of_a_traceback_are_read() -> None:
    output = """
  File "/job/pkg/a.py", line 7, in f
  File "/usr/lib/python3.11/json/__init__.py", line 1, in loads
pkg/a.py:9: ValueError
./b.py:3: in g
test_a.py:12: AssertionError
"""
    assert traceback_lines(output, ["pkg/a.py", "b.py"]) == [("pkg/a.py", 7), ("pkg/a.py", 9), ("b.py", 3)]


def test_a_file_whose_name_ends_alike_is_another_file() -> None:
    assert traceback_lines('File "/job/data.py", line 7', ["a.py"]) == []


def test_the_innermost_frame_is_suspected_first_then_what_was_executed() -> None:
    output = 'File "/job/a.py", line 10, in total\nFile "/job/a.py", line 9, in total\n'
    suspects = located({"a.py": SOURCE}, output, {"a.py": frozenset({6, 7, 8, 9})})
    assert [(suspect.numbers[0], suspect.why) for suspect in suspects] == [
        (9, Why.TRACEBACK),
        (10, Why.TRACEBACK),
        (8, Why.EXECUTED),
        (6, Why.EXECUTED),
        (7, Why.EXECUTED),
    ]


def test_where_nothing_is_known_every_statement_is_suspected_once() -> None:
    suspects = located({"a.py": SOURCE}, "", {})
    assert [suspect.numbers[0] for suspect in suspects] == statement_lines(SOURCE)
    assert {suspect.why for suspect in suspects} == {Why.STATEMENT}


def test_a_traceback_line_inside_a_statement_points_at_its_beginning() -> None:
    source = "def f(a):\n    return sum(\n        a,\n        1 / 0,\n    )\n"
    (suspect,) = located({"a.py": source}, 'File "a.py", line 4', {"a.py": frozenset()})
    assert suspect.numbers == (2,)


@hypothesis_given(st.text(alphabet="abc=()[]:\n \t\"'\\\x00+", max_size=80))
def test_any_text_has_statements_that_are_lines_of_it(text: str) -> None:
    lines = statement_lines(text)
    assert len(set(lines)) == len(lines)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines)
