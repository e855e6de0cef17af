"""Of a repository a prompt shows the touched files, and around hinted lines only their functions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.tasks import HintLevel, Line, RepositoryTests, messages
from code_repair_rl.tasks.excerpts import excerpt, stretches
from tests.tasks.examples import addition

TEXT = """import os


@decorated
def first(a):
    def inner():
        return a

    return inner()


class Box:
    size = 1

    def second(self):
        return self.size


LAST = 1
"""


def test_the_function_around_a_line_is_shown_with_its_decorators() -> None:
    assert excerpt(TEXT, [7]) == "\n".join(TEXT.splitlines()[3:9]) + "\n"
    assert excerpt(TEXT, [16]) == "    def second(self):\n        return self.size\n"


def test_what_is_left_out_between_two_functions_is_marked() -> None:
    assert excerpt(TEXT, [16, 7]) == excerpt(TEXT, [7]) + "...\n" + excerpt(TEXT, [16])
    assert excerpt(TEXT, [7, 9]) == excerpt(TEXT, [7])


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_every_line_asked_for_is_shown_in_order(numbers: list[int]) -> None:
    shown = [line for line in excerpt(TEXT, numbers).splitlines() if line != "..."]
    lines = TEXT.splitlines()
    assert all(lines[number - 1] in shown for number in numbers if number <= len(lines))
    place = 0
    for line in shown:
        place = lines.index(line, place) + 1 if line else place


@pytest.mark.parametrize("sign", ["\x0c", "# \x1c", "LINE = '\u2028'"])
def test_a_form_feed_or_another_separator_ends_no_line(sign: str) -> None:
    shown = excerpt(TEXT, [16])
    assert excerpt(f"{sign}\n{TEXT}", [17]) == shown
    assert stretches(f"{sign}\n{TEXT}", [17]) == [(16, 17)]


def test_code_that_does_not_parse_is_shown_around_the_line() -> None:
    text = "def broken(:\n" + "x\n" * 40
    assert excerpt(text, [20]).count("x\n") == 17


def test_a_prompt_on_a_repository_shows_what_the_answer_touches() -> None:
    task = addition().model_copy(
        update={
            "files": {"pkg/a.py": TEXT, "tests/test_a.py": "def test(): pass\n", "other.py": "o = 1\n"},
            "oracle": {"pkg/a.py": TEXT.replace("LAST = 1", "LAST = 2")},
            "tests": RepositoryTests(fail_to_pass=("tests/test_a.py::test",)),
        }
    )
    hints = task.hints.model_copy(update={"exact_lines": (Line(path="pkg/a.py", number=16, text="x"),)})
    whole = messages(task, HintLevel.NONE)[1]["content"]
    assert TEXT in whole
    assert "o = 1" not in whole
    assert "pkg/a.py\n```python\n" in whole
    narrow = messages(task.model_copy(update={"hints": hints}), HintLevel.EXACT_LINE)[1]["content"]
    assert "def second" in narrow
    assert "def first" not in narrow
