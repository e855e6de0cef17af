"""Examples are found in docstrings as people write them, and nothing is invented."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.synthesis.examples import arguments_of, examples_in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (">>> f([1, 2])\n3", [("f([1, 2])", "3")]),
        (">>> f(1)\n[1,\n 2]\n", [("f(1)", "[1, 2]")]),
        (">>> f('a)b', 2)\n'x'", [("f('a)b', 2)", "'x'")]),
        ("f(5) ➞ True", [("f(5)", "True")]),
        ("f(5) => true", [("f(5)", "True")]),
        ('f("ab") ==> ["a", "b"]', [("f('ab')", "['a', 'b']")]),
        ("f(5) -> -1.", [("f(5)", "-1")]),
        ("f(5) == 7", [("f(5)", "7")]),
        ("f(5) # => 7", [("f(5)", "7")]),
        ("f(5) should return 7.", [("f(5)", "7")]),
        ("f(5) returns (1, 2)", [("f(5)", "(1, 2)")]),
        ("f(15)   # returns 'db1111db'", [("f(15)", "'db1111db'")]),
        ("f(5) = 3 # a comment", [("f(5)", "3")]),
        ("f() == None", [("f()", "None")]),
        (">>> f(1)\n1\n>>> f(1)\n2", [("f(1)", "1")]),
        (">>> round(f(1), 2)\n0.5", []),
        ("not f(1) == True", []),
        ("f(x) == 3", []),
        ("f(1) is fine", []),
        ("f(1", []),
        ("g(1) == 2, of(2) == 3, a.f(3) == 4", []),
        ("f(n=3) == 4", []),
    ],
)
def test_examples_are_found_as_people_write_them(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(example.call, example.expected) for example in examples_in(text, "f")] == expected


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text("abc()[]'\" #", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=4,
)


@given(st.lists(plain, max_size=3), plain)
def test_any_doctest_with_literals_is_read_back(arguments: list[object], expected: object) -> None:
    call = f"f({', '.join(repr(argument) for argument in arguments)})"
    (example,) = examples_in(f"Text before.\n>>> {call}\n{expected!r}\n\nText after.", "f")
    assert arguments_of(example.call) == tuple(arguments)
    assert ast.literal_eval(example.expected) == expected


@given(st.text("f()[]12,.'\" =>➞\n#-:", max_size=60))
def test_whatever_is_written_what_is_found_is_a_call_with_literals(text: str) -> None:
    for example in examples_in(text, "f"):
        assert arguments_of(example.call) is not None
        ast.literal_eval(example.expected)
