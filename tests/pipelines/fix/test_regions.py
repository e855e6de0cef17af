"""A region is one function, taken out of its file and put back to the byte."""

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_repair_rl.pipelines.fix import region_around

SOURCE = '''\
"""A module."""
import math


class Circle:
    """Round."""

    @property
    def area(self):
        """Return the area.

        In square units.
        """
        squared = self.radius**2

        return math.pi * squared


LIMIT = 3


def first(values): return values[0]
'''


def test_a_method_is_shown_whole_and_dedented() -> None:
    region = region_around("a.py", SOURCE, 14)
    assert (region.first, region.last) == (8, 16)
    assert region.text.startswith("@property\ndef area(self):\n    ")
    assert region.line(14) == "    squared = self.radius**2"


def test_the_docstring_can_be_left_out_and_is_told_apart() -> None:
    region = region_around("a.py", SOURCE, 16)
    assert region.docstring == "Return the area.\n\nIn square units."
    assert region.shown(with_docstring=True) == region.text
    assert region.shown(with_docstring=False) == (
        "@property\ndef area(self):\n    squared = self.radius**2\n\n    return math.pi * squared\n"
    )


def test_a_function_that_is_nothing_but_its_docstring_keeps_it() -> None:
    region = region_around("a.py", 'def f():\n    """Do nothing."""\n', 1)
    assert region.shown(with_docstring=False) == region.text


def test_a_line_in_no_function_is_shown_with_what_is_around_it() -> None:
    lines = [f"x{n} = {n}\n" for n in range(1, 61)]
    region = region_around("a.py", "".join(lines), 30)
    assert (region.first, region.last) == (15, 45)
    assert region.line(30) == "x30 = 30"


def test_of_a_very_long_function_a_part_is_shown() -> None:
    source = "def f():\n" + "".join(f"    x{n} = {n}\n" for n in range(2, 400))
    region = region_around("a.py", source, 200)
    assert (region.first, region.last) == (160, 240)
    assert region.put_back(source, region.text) == source


def test_a_file_that_does_not_parse_still_has_a_region() -> None:
    source = "def f(:\n    return 1\n"
    region = region_around("a.py", source, 1)
    assert region.text == source


def test_what_reaches_left_of_the_function_stops_the_dedent() -> None:
    source = 'class A:\n    def f(self):\n        return """\nleft\n"""\n'
    region = region_around("a.py", source, 3)
    assert region.indent == ""
    assert region.put_back(source, region.text.replace("left", "right")) == source.replace("left", "right")


def test_an_edited_region_lands_in_its_place_with_its_indentation() -> None:
    region = region_around("a.py", SOURCE, 16)
    after = region.put_back(SOURCE, region.text.replace("math.pi * squared", "math.pi * squared\n\n    # done"))
    assert after == SOURCE.replace("math.pi * squared", "math.pi * squared\n\n        # done")


_PIECES = st.sampled_from(
    [
        "x = 1\n",
        "\n",
        "    \n",
        "def f():\n    return 1\n",
        "class A:\n    def g(self):\n\n        return 2\n",
        "class B:\n\n    async def h(self):\n        s = '''\n    in\nleft'''\n        return s\n",
        "if x:\n    def k():\n        pass\nelse:\n    y = 'a\\x0cb'\n",
        "# \x0c form feed\n",
        "try:\n    pass\nexcept ValueError:\n    def m():\n        return 3\n",
    ]
)


@given(st.lists(_PIECES, min_size=1, max_size=12), st.data())
@settings(max_examples=200)
def test_putting_back_what_was_taken_changes_nothing(pieces: list[str], data: st.DataObject) -> None:
    source = "x = 0\n" + "".join(pieces)
    ast.parse(source)
    number = data.draw(st.integers(1, source.count("\n")))
    region = region_around("a.py", source, number)
    assert region.first <= number <= region.last
    assert region.put_back(source, region.text) == source


@pytest.mark.parametrize("number", range(1, SOURCE.count("\n") + 1))
def test_every_line_of_a_file_has_a_region_that_shows_it(number: int) -> None:
    region = region_around("a.py", SOURCE, number)
    shown = region.line(number)
    assert SOURCE.split("\n")[number - 1].strip() == shown.strip()
