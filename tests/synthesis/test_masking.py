"""Masking takes exactly one function out of a file, and writing it back gives the file again."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from code_repair_rl.edits import diff, parse
from code_repair_rl.synthesis.masking import Masked, MaskKind, Unmaskable, functions_in, mask

CLASS = '''import typing


class Queue:
    """A queue."""

    @typing.overload
    def push(self, item: int) -> int: ...
    @logged(
        level=1,
    )
    async def push(self, item,
        # the place
        place=(1,),  # from the front
    ) -> int:  # noqa
        """Put it in.

        # not a comment
        """
        # how it is done
        text = """
def fake(): pass
"""
        def inner(): return 1

        # at the end

    # of the next one
    def pop(self): "Take it out."; return 1  # quick


def last(): return 1; pass'''


def _masked(text: str, name: str, kind: MaskKind) -> Masked:
    found = [one for one in functions_in(text) if one.qualified_name == name and not one.is_stub]
    return mask(text, found[0], kind)


def test_a_method_gives_way_to_a_comment_with_its_decorators_and_trailing_comments() -> None:
    before = _masked(CLASS, "Queue.push", MaskKind.WHOLE).before
    assert before.splitlines()[6:13] == [
        "    @typing.overload",
        "    def push(self, item: int) -> int: ...",
        "    # MASKED: push function (lines 9-24)",
        "",
        "    # of the next one",
        '    def pop(self): "Take it out."; return 1  # quick',
        "",
    ]


def test_signature_and_docstring_stay_when_the_body_goes() -> None:
    masked = _masked(CLASS, "Queue.push", MaskKind.BODY)
    kept = CLASS[: CLASS.index("        # how it is done")]
    assert masked.before.startswith(kept + '        raise NotImplementedError("push is to be written")\n\n    # of the')
    assert masked.removed.startswith("        # how it is done") and masked.removed.endswith("# at the end")


def test_bodies_on_the_line_of_the_signature_are_found() -> None:
    assert '    def pop(self): "Take it out."; raise NotImplementedError("pop is' in (
        _masked(CLASS, "Queue.pop", MaskKind.BODY).before
    )
    assert _masked(CLASS, "last", MaskKind.BODY).before.endswith(
        'def last(): raise NotImplementedError("last is to be written")'
    )
    assert 'def inner(): raise NotImplementedError("inner is' in (
        _masked(CLASS, "Queue.push.<locals>.inner", MaskKind.BODY).before
    )


def test_overloads_abstract_methods_and_empty_bodies_are_stubs() -> None:
    text = (
        "import abc, typing\n@typing.overload\ndef f(a: int) -> int:\n    return a\n"
        "class A:\n    @abc.abstractmethod\n    def g(self):\n        return 1\n"
        "    def h(self):\n        'Says nothing.'\n        pass\n    def i(self):\n        return 2\n"
    )
    assert [one.name for one in functions_in(text) if not one.is_stub] == ["i"]


def test_names_follow_classes_and_functions() -> None:
    text = "class A:\n class B:\n  def f(self):\n   async def g():\n    return 1\n   return g\n"
    assert [one.qualified_name for one in functions_in(text)] == ["A.B.f", "A.B.f.<locals>.g"]
    assert [one.is_nested for one in functions_in(text)] == [False, True]


def test_the_only_function_of_a_class_cannot_be_masked_whole() -> None:
    text = "class A:\n    def f(self):\n        return 1\n"
    with pytest.raises(Unmaskable, match="does not parse"):
        mask(text, functions_in(text)[0], MaskKind.WHOLE)
    assert "raise" in mask(text, functions_in(text)[0], MaskKind.BODY).before


def test_a_placeholder_that_is_in_the_file_already_is_refused() -> None:
    text = "# MASKED: f function (lines 2-3)\ndef f():\n    return 1\n"
    with pytest.raises(Unmaskable, match="already"):
        mask(text, functions_in(text)[0], MaskKind.WHOLE)


def test_a_function_of_only_a_docstring_has_no_body() -> None:
    text = "def f():\n    'Only this.'\n"
    with pytest.raises(Unmaskable, match="no body"):
        mask(text, functions_in(text)[0], MaskKind.BODY)


def test_characters_that_only_str_splitlines_takes_for_line_ends_do_not_shift_lines() -> None:
    text = (
        "x = 'a\x0bb\x1c\u2028c'\n\x0cdef f(a):\n    y = 'é\u2029'; z = 2  # é\n    return a\ndef g():\n    return 2\n"
    )
    before = _masked(text, "f", MaskKind.BODY).before
    assert before == text[: text.index("    y =")] + (
        '    raise NotImplementedError("f is to be written")\ndef g():\n    return 2\n'
    )


_names = st.sampled_from(["f", "g", "push", "größe"])
_statements = st.sampled_from(
    [
        ["return 1"],
        ["x = [", "    1,", "]", "return x"],
        ["# how", "", "y = 2  # two"],
        ['t = """', "  def no(): pass", '"""'],
        ["if True:", "    return 2", "# end"],
        ["@staticmethod", "def inner{number}(a): return a", "", "return 1"],
    ]
)
_docstrings = st.sampled_from([[], ['"""One line."""'], ['"""Two.', "", "    # no comment", '"""'], ["'a'  # b", ""]])
_decorators = st.sampled_from([[], ["@one"], ["@two(", "    # within", "    1,", ")", "@three"]])
_signatures = st.sampled_from(["{name}(a):", "{name}(", "{name}(a) -> (", "{name}(a):  # why: so"])


@st.composite
def _functions(draw: st.DrawFn, number: int) -> list[str]:
    """The lines of one function, with a name of its own."""
    name, signature = f"{draw(_names)}{number}", draw(_signatures)
    head = [("async def " if draw(st.booleans()) else "def ") + signature.format(name=name)]
    if signature.endswith("("):
        head += ["    # inside", "    int" if "->" in signature else "    a,", "):"]
    body = draw(_docstrings) + [line.replace("{number}", str(number)) for line in draw(_statements)]
    return draw(_decorators) + head + [("    " + line).rstrip() for line in body]


@st.composite
def _modules(draw: st.DrawFn) -> str:
    """Functions at the top, in classes, conditions and functions; with tabs, CRLF or without a last newline."""
    lines: list[str] = ["import os"]
    for number in range(draw(st.integers(1, 4))):
        function = draw(_functions(number))
        around = draw(st.sampled_from([[], [f"class A{number}:"], ["if os:"], [f"def o{number}():", "    class B:"]]))
        lines += around + [("    " * len(around) + line).rstrip() for line in function]
        lines += draw(st.sampled_from([[], [""], ["# between", ""]]))
    text = "\n".join(line.replace("    ", "\t") for line in lines) if draw(st.booleans()) else "\n".join(lines)
    text += draw(st.sampled_from(["", "\n", "\n\n"]))
    return text.replace("\n", "\r\n") if draw(st.booleans()) else text


@seed(5)
@settings(max_examples=120)
@given(_modules(), st.sampled_from(MaskKind))
def test_putting_back_what_was_removed_gives_the_file_again(text: str, kind: MaskKind) -> None:
    for function in functions_in(text):
        try:
            masked = mask(text, function, kind)
        except Unmaskable:
            continue
        place = masked.before.index(masked.placeholder)
        removed = masked.removed[len(masked.removed) - len(masked.removed.lstrip(" \t")) :]
        assert masked.before[:place] + removed + masked.before[place + len(masked.placeholder) :] == text
        assert masked.after == text


@seed(6)
@settings(max_examples=80)
@given(_modules())
def test_a_mask_takes_the_function_alone(text: str) -> None:
    for function in functions_in(text):
        inner = [one for one in functions_in(text) if one.qualified_name.startswith(function.qualified_name + ".")]
        others = [_shape(one.node) for one in functions_in(text) if one != function and one not in inner]
        for kind in MaskKind:
            try:
                masked = mask(text, function, kind)
            except Unmaskable:
                continue
            left = functions_in(masked.before)
            if kind is MaskKind.BODY:
                same = next(one for one in left if one.start == function.start)
                assert (same.signature, same.docstring, same.decorators) == (
                    function.signature,
                    function.docstring,
                    function.decorators,
                )
                left.remove(same)
            around = {
                one.qualified_name for one in left if function.qualified_name.startswith(one.qualified_name + ".")
            }
            kept = [_shape(one.node) for one in left if one.qualified_name not in around]
            assert [shape for shape in others if shape in kept] == kept


@seed(7)
@settings(max_examples=40)
@given(_modules(), st.sampled_from(MaskKind))
def test_the_oracle_edit_of_a_mask_applies_to_the_byte(text: str, kind: MaskKind) -> None:
    for function in functions_in(text)[:2]:
        try:
            masked = mask(text, function, kind)
        except Unmaskable:
            continue
        answer = diff({"m.py": masked.before}, {"m.py": masked.after}).text(paths=True)
        assert parse(answer).apply({"m.py": masked.before}) == {"m.py": text}


def _shape(node: ast.AST) -> str:
    return ast.dump(node)
