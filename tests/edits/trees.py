"""Texts and trees for property tests: arbitrary ones, and ones full of what breaks parsers."""

from __future__ import annotations

from hypothesis import strategies as st

LINES = st.sampled_from(
    [
        *("a", "b", "", "  x", " a", "a ", "\t", "x = 1", "x = 10", "é", "\x0c", "\r", "b\r", "\x1c", "\u2028", "\0"),
        *("<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE", "======== ", "<<<<<<<< SEARCH\t", ">>>>>>> REPLACE</answer>"),
        *("```", "```python", "<answer>", "</answer>", "<think>", "</think>", "a.py", "*** Empty Patch"),
        *("*** Add File: q.py", "*** At Line: 3", "*** No Newline at End of File", "*** Line Endings: raw"),
        *(
            "--- a/a.py",
            "+++ b/a.py",
            "@@ -1 +1 @@",
            "-a",
            "+a",
            "diff --git a/a.py b/a.py",
            "\\ No newline at end of file",
        ),
    ]
)


def _joined(lines: list[str], ending: str, ended: bool) -> str:
    return ending.join(lines) + (ending if ended and lines else "")


CODE = st.builds(_joined, st.lists(LINES, max_size=14), st.sampled_from(["\n", "\r\n"]), st.booleans())
TEXTS = st.one_of(CODE, st.text(max_size=40))
PATHS = st.sampled_from(
    ["a.py", "b/c.py", "Makefile", "x y.txt", "é.py", '"q".py', "a\nb.py", "-x.py", "#h.py", "t\\t.py", "a: b.py", "…"]
)
TREES = st.dictionaries(PATHS, TEXTS, max_size=4)
