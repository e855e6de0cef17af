"""Lines are counted in one way everywhere: as edits do, and as Python's parser does."""

from __future__ import annotations

import ast

from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.edits.lines import line_ending, lines_of, whole_lines
from tests.edits.trees import TEXTS


@given(TEXTS)
def test_whole_lines_are_the_text_and_the_lines_with_their_endings(text: str) -> None:
    assert "".join(whole_lines(text)) == text
    assert [line.removesuffix(line_ending(text)) for line in whole_lines(text)] == lines_of(text)


@given(
    st.lists(st.sampled_from(["", "\x0c", "# \x1c", "# \u2028", "# \x85", "s = '\u2029'"])),
    st.sampled_from(["\n", "\r\n"]),
)
def test_the_parser_counts_the_same_lines(above: list[str], ending: str) -> None:
    text = ending.join([*above, "def f():", "    pass", ""])
    function = ast.parse(text).body[-1]
    assert lines_of(text)[function.lineno - 1] == "def f():"
    assert function.end_lineno == len(lines_of(text))
