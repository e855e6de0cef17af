"""Each operator writes the mistake that its docstring names, at one place, and nothing else moves."""

from __future__ import annotations

import ast
import random
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_repair_rl.synthesis.mutation import OPERATORS, mutants, name_of, sampled_mutants

steady = settings(max_examples=20)


def written(operator: str, text: str) -> set[str]:
    """The changed lines (stripped) that an operator writes into a text."""
    text = textwrap.dedent(text).lstrip("\n")
    before = text.split("\n")
    found = set()
    for mutant in mutants(text):
        if mutant.operator == operator:
            after = mutant.text.split("\n")
            changed = [line.strip() for line in after if line not in before]
            found.add(" | ".join(changed))
    return found


@pytest.mark.parametrize(
    ("operator", "text", "expected"),
    [
        ("comparison", "def f(a, b):\n    return a < b\n", {"return a <= b", "return a > b"}),
        ("comparison", "def f(a, b):\n    return a not in b\n", {"return a in b"}),
        ("comparison", "def f(a):\n    return a is None\n", {"return a is not None"}),
        ("arithmetic", "def f(a, b):\n    return a * b\n", {"return a + b", "return a // b"}),
        ("swapped-operands", "def f(a, b):\n    return a - b\n", {"return b - a"}),
        ("swapped-operands", "def f(a, b):\n    return (a + b) / 2\n", {"return 2 / (a + b)"}),
        ("swapped-operands", "def f(a, b):\n    return a * b - 1\n", {"return 1 - (a * b)"}),
        ("boolean", "def f(a, b):\n    return a and b\n", {"return a or b"}),
        ("dropped-condition", "def f(a, b):\n    return a and b\n", {"return a", "return b"}),
        ("negated-condition", "def f(a):\n    if a > 1:\n        a = 2\n", {"if not (a > 1):"}),
        ("negated-condition", "def f(a):\n    while not a:\n        a = 2\n", {"while a:"}),
        ("boundary-constant", "def f(a):\n    return a > 0\n", {"return a > 1"}),
        ("boundary-constant", "def f(a):\n    return a > 0.5\n", {"return a > 0.6"}),
        ("wrong-index", "def f(a):\n    return a[0]\n", {"return a[-1]", "return a[1]"}),
        ("wrong-index", "def f(a, i):\n    return a[i + 1]\n", {"return a[i]"}),
        ("slice-bounds", "def f(a):\n    return a[1:]\n", {"return a[2:]", "return a[:]"}),
        ("slice-bounds", "def f(a):\n    return a[::-1]\n", {"return a[::1]"}),
        ("slice-bounds", "def f(a, n):\n    return a[:n - 1]\n", {"return a[:n - 2]", "return a[:n]"}),
        ("range-bounds", "def f(n):\n    range(n)\n", {"range(n - 1)", "range(n + 1)", "range(1, n)"}),
        ("range-bounds", "def f(n):\n    range(0, n)\n", {"range(0, n - 1)", "range(0, n + 1)", "range(1, n)"}),
        ("wrong-variable", "def f(a, b):\n    return len(a)\n", {"return len(b)"}),
        ("swapped-arguments", "def f(a, b):\n    return pow(a, b)\n", {"return pow(b, a)"}),
        ("dropped-argument", "def f(a):\n    return sorted(a, key=len)\n", {"return sorted(a)"}),
        ("wrong-method", "def f(a):\n    return a.lower()\n", {"return a.upper()"}),
        ("wrong-function", "def f(a):\n    return min(a)\n", {"return max(a)"}),
        ("dropped-call", "def f(a):\n    return abs(a) + 1\n", {"return a + 1"}),
        ("dropped-call", "def f(a):\n    return a.strip()\n", {"return a"}),
        ("wrong-constant", "def f(a):\n    return a + 'Yes'\n", {"return a + 'yES'", "return a + 'Ye'"}),
        ("swapped-branches", "def f(a, b):\n    return a if a else b\n", {"return b if a else a"}),
        ("dropped-filter", "def f(a):\n    return [x for x in a if x]\n", {"return [x for x in a]"}),
        ("augmented-assignment", "def f(a):\n    a += 2\n    return a\n", {"a -= 2", "a = 2"}),
        ("default-value", "def f(a):\n    n = 0\n    return n\n", {"n = 1"}),
        ("default-value", "def f(a, n=True):\n    return n\n", {"def f(a, n=False):"}),
        ("default-value", "def f(a):\n    m = float('-inf')\n    return m\n", {"m = 0"}),
        ("dropped-statement", "def f(a):\n    for x in a:\n        print(x)\n    return a\n", {"pass"}),
        ("wrong-return", "def f(a):\n    return True\n", {"return False"}),
        ("wrong-return", "def f(a, b):\n    return a, b\n", {"return b, a"}),
        ("loop-control", "def f(a):\n    for x in a:\n        if x:\n            break\n", {"continue", "pass"}),
        ("broken-chain", "def f(a):\n    if a:\n        return 1\n    elif a < 1:\n        return 2\n", {"if a < 1:"}),
    ],
)  # fmt: skip
def test_an_operator_writes_its_mistake(operator: str, text: str, expected: set[str]) -> None:
    assert written(operator, text) == expected


def test_a_dropped_statement_takes_its_whole_line_with_it() -> None:
    text = "def f(a):\n    b = 1\n    a += b\n    return a\n"
    dropped = {mutant.text for mutant in mutants(text) if mutant.operator == "dropped-statement"}
    assert dropped == {"def f(a):\n    a += b\n    return a\n", "def f(a):\n    b = 1\n    return a\n"}


def test_a_return_moves_into_the_loop_before_it() -> None:
    text = "def f(a):\n    for x in a:\n        a = x\n    return a\n"
    moved = [mutant for mutant in mutants(text) if mutant.operator == "early-return"]
    assert [mutant.text for mutant in moved] == ["def f(a):\n    for x in a:\n        a = x\n        return a\n"]
    assert moved[0].line == 4


def test_an_else_is_lost() -> None:
    text = "def f(a):\n    if a:\n        b = 1\n    else:\n        b = 2\n    return b\n"
    lost = [mutant.text for mutant in mutants(text) if mutant.operator == "dropped-else"]
    assert lost == ["def f(a):\n    if a:\n        b = 1\n    b = 2\n    return b\n"]


def test_every_operator_has_a_name_of_its_own_and_says_what_the_mistake_is() -> None:
    names = [name_of(operator) for operator in OPERATORS]
    assert len(set(names)) == len(names) >= 12
    assert all(operator.__doc__ for operator in OPERATORS)


def test_imports_annotations_docstrings_and_names_of_definitions_stay() -> None:
    head = "import math\nfrom typing import List\n\n\ndef f(a: List[int] = "
    text = head + 'None, b: "int" = 1) -> List[int]:\n    """Text."""\n    return a\n'
    for mutant in mutants(text):
        assert mutant.text.startswith(head)
        assert '"""Text."""' in mutant.text
        assert ") -> List[int]:" in mutant.text


names = st.sampled_from(["a", "b", "total", "é"])
atoms = names | st.sampled_from(["0", "1", "'x'", "[1, 2]", "a[0]", "len(b)", "b[1:]", "not a"])
expressions = st.recursive(
    atoms,
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "<", "==", "and", "or", "if a else"]), inner).map(
        lambda parts: f"({parts[0]}) {parts[1]} ({parts[2]})"
    ),
    max_leaves=5,
)
statements = st.one_of(
    st.tuples(names, expressions).map(lambda parts: f"    {parts[0]} = {parts[1]}"),
    st.tuples(names, expressions).map(lambda parts: f"    {parts[0]} += {parts[1]}"),
    expressions.map(lambda text: f"    if {text}:\n        total = 1\n    else:\n        total = 2"),
    expressions.map(lambda text: f"    for b in range(len({text})):\n        break\n    return total"),
)
functions = st.lists(statements, min_size=1, max_size=5).map(
    lambda lines: "# é\ndef f(a, b, é=0):\n    total = 0\n" + "\n".join(lines) + "\n    return total\n"
)


@steady
@given(functions)
def test_mutants_compile_differ_in_meaning_and_occur_once(text: str) -> None:
    programs = [ast.dump(ast.parse(text))]
    for mutant in mutants(text):
        compile(mutant.text, "mutant.py", "exec")
        programs.append(ast.dump(ast.parse(mutant.text)))
    assert len(set(programs)) == len(programs)


@steady
@given(functions)
def test_a_mutant_differs_in_one_stretch_at_the_line_it_names(text: str) -> None:
    before = text.split("\n")
    for mutant in mutants(text):
        after = mutant.text.split("\n")
        same = 0
        while same < min(len(before), len(after)) and before[same] == after[same]:
            same += 1
        assert mutant.line - 1 <= same
        assert before[: mutant.line - 1] == after[: mutant.line - 1]
        rest = 0
        while rest < min(len(before), len(after)) - same and before[-1 - rest] == after[-1 - rest]:
            rest += 1
        assert len(before) - same - rest <= 2


@steady
@given(functions, st.integers(1, 30), st.integers(0, 5))
def test_a_sample_is_drawn_from_all_mutants_and_is_the_same_for_the_same_seed(text: str, count: int, seed: int) -> None:
    drawn = sampled_mutants(text, count, random.Random(seed))
    assert drawn == sampled_mutants(text, count, random.Random(seed))
    everything = {ast.dump(ast.parse(mutant.text)) for mutant in mutants(text)}
    assert {ast.dump(ast.parse(mutant.text)) for mutant in drawn} <= everything
    assert len(drawn) == min(count, len(everything))


def test_a_sample_gives_every_operator_its_turn_first() -> None:
    text = "def f(a, b):\n    if a < b and b > 1:\n        a = a + b\n    return min(a, b)\n"
    operators = {mutant.operator for mutant in mutants(text)}
    drawn = sampled_mutants(text, len(operators), random.Random(3))
    assert len({mutant.operator for mutant in drawn}) >= len(operators) - 1  # two operators may write the same program
