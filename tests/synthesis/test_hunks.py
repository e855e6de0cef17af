"""Changes between two versions of a file, by function, taken back alone or together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.synthesis.hunks import hunks, reverted

OLD = """\
import os


def first(x):
    return x[0]


class Box:
    def put(self, x):
        self.x = x

    def get(self):
        return self.x
"""
NEW = """\
import os
import re


def first(x):
    if not x:
        return None
    return x[0]


class Box:
    def put(self, x):
        self.x = [x]

    def get(self):
        return self.x

    def empty(self):
        return not self.x
"""
_LINES = st.lists(st.sampled_from(["a = 1\n", "b = 2\n", "def f():\n    return 1\n", "\n", "c = 3\n"]), max_size=12)


def test_changes_are_named_by_the_function_they_lie_in() -> None:
    assert [hunk.unit for hunk in hunks(OLD, NEW)] == ["line 2", "first", "Box.put", "Box.empty"]


def test_form_feeds_before_functions_do_not_move_the_changes() -> None:
    old, new = (text.replace("\n\n\n", "\n\n\x0c\n\x0c\n\x0c\n") for text in (OLD, NEW))
    assert [hunk.unit for hunk in hunks(old, new)] == ["line 2", "first", "Box.put", "Box.empty"]


def test_one_change_is_taken_back_and_the_others_stay() -> None:
    (put,) = [hunk for hunk in hunks(OLD, NEW) if hunk.unit == "Box.put"]
    assert reverted(OLD, NEW, [put]) == NEW.replace("[x]\n\n    def get", "x\n\n    def get")


@given(old=_LINES, new=_LINES, end=st.booleans())
def test_all_taken_back_is_the_old_text_and_none_the_new_one(old: list[str], new: list[str], end: bool) -> None:
    before, after = "".join(old), "".join(new)
    if end:
        before = before.rstrip("\n")
    found = hunks(before, after)
    assert reverted(before, after, found) == before
    assert reverted(before, after, []) == after
    for place in range(len(found)):
        part = reverted(before, after, found[: place + 1])
        assert reverted(before, after, found[place + 1 :]).count("\n") + part.count("\n") == before.count(
            "\n"
        ) + after.count("\n")
