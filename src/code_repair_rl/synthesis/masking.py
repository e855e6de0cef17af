"""Functions taken out of a file, to be written back: the whole function behind a placeholder comment, or the body only.

Only the function's own stretch of the text changes; all else stays to the byte, line endings, tabs and a missing last
newline included. Decorators and comments inside the function go with it, comments before it stay. A mask that would
leave a file that does not parse (the only function of a class, say) is refused, as is one whose placeholder is in the
file twice.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from code_repair_rl.synthesis.outer_functions import first_line_of


class MaskKind(StrEnum):
    """How much of a function is taken out."""

    WHOLE = "whole"
    """Decorators, signature, docstring and body: a comment stands in their place, as in stack-smol-docstrings."""
    BODY = "body"
    """What follows signature and docstring: a statement that raises stands in its place."""


@dataclass(frozen=True, slots=True)
class Function:
    """One function of a file and its place in the text."""

    name: str
    qualified_name: str
    """As `__qualname__` has it: `Queue.push`, `outer.<locals>.inner`."""
    first_line: int
    """1-based, the first decorator's where there are some."""
    def_line: int
    """1-based line of `def` or `async def`."""
    last_line: int
    """1-based line on which the last statement ends."""
    start: int
    """Offset of the first line's indentation in the text."""
    end: int
    """Offset of the end of the function's last line, without its line ending; trailing comments of its own included."""
    body_start: int
    """Offset of what follows signature and docstring."""
    indent: str
    """White space before `def`."""
    body_indent: str
    """White space before the body's statements; empty where the body stands on the signature's line."""
    signature: str
    """The text from `def` to the colon, on one line."""
    docstring: str | None
    """Cleaned as `inspect.cleandoc` does."""
    node: ast.FunctionDef | ast.AsyncFunctionDef
    """Its syntax tree, for filters."""

    @property
    def is_nested(self) -> bool:
        """Whether it stands inside another function."""
        return "<locals>" in self.qualified_name

    @property
    def decorators(self) -> tuple[str, ...]:
        """Source of the decorators, without `@` and arguments."""
        return tuple(ast.unparse(one.func if isinstance(one, ast.Call) else one) for one in self.node.decorator_list)

    @property
    def is_stub(self) -> bool:
        """Whether nothing but `...` and `pass` follows the docstring, or it is an overload: nothing to write back."""
        if any(name.rpartition(".")[2] in ("overload", "abstractmethod") for name in self.decorators):
            return True
        return all(_says_nothing(statement) for statement in self.node.body)


@dataclass(frozen=True, slots=True)
class Masked:
    """A file without one function."""

    before: str
    """The text with the mask."""
    after: str
    """The text as it was: the known-good answer."""
    placeholder: str
    """The text that stands in the function's place; it is in `before` exactly once."""
    removed: str
    """What was taken out, as it stood."""


class Unmaskable(Exception):  # noqa: N818 - says what is the matter with the function
    """A function that cannot be taken out well; the message says why."""


def functions_in(text: str) -> list[Function]:
    """Every function and method of a file in the order of the text, nested ones included, stubs too.

    Raises:
        SyntaxError: the text is no Python (of this interpreter's version).
    """
    try:
        tree = ast.parse(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(str(error)) from error
    starts = _line_starts(text)
    return sorted((_located(text, starts, *found) for found in _walk(tree, "")), key=lambda one: one.start)


def mask(text: str, function: Function, kind: MaskKind | str = MaskKind.WHOLE) -> Masked:
    """The text without `function` (one of `functions_in(text)`).

    Raises:
        Unmaskable: there is no body to take out, what is left would not parse, or the placeholder would not be unique.
    """
    if MaskKind(kind) is MaskKind.BODY and len(function.node.body) == 1 and function.docstring is not None:
        raise Unmaskable("it has no body besides its docstring")
    start = function.start if MaskKind(kind) is MaskKind.WHOLE else function.body_start
    placeholder = _placeholder(function, MaskKind(kind))
    before = text[:start] + placeholder + text[function.end :]
    shown = placeholder.strip()
    if before.count(shown) != 1:
        raise Unmaskable("the placeholder is in the file already")
    try:
        ast.parse(before)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Unmaskable("without it the file does not parse") from None
    return Masked(before, text, shown, text[start : function.end])


def _placeholder(function: Function, kind: MaskKind) -> str:
    if kind is MaskKind.WHOLE:
        lines = f"(lines {function.first_line}-{function.last_line})"
        return f"{function.indent}# MASKED: {function.name} function {lines}"
    return f'{function.body_indent}raise NotImplementedError("{function.name} is to be written")'


def _walk(node: ast.AST, prefix: str) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child, prefix + child.name
            yield from _walk(child, f"{prefix}{child.name}.<locals>.")
        elif isinstance(child, ast.ClassDef):
            yield from _walk(child, f"{prefix}{child.name}.")
        else:
            yield from _walk(child, prefix)


def _located(
    text: str, starts: Sequence[int], node: ast.FunctionDef | ast.AsyncFunctionDef, qualified_name: str
) -> Function:
    first_line = first_line_of(node)
    last_line = node.end_lineno or node.lineno
    indent = _indent(_line(text, starts, node.lineno))
    body_start, body_indent = _body(text, starts, node)
    return Function(
        name=node.name,
        qualified_name=qualified_name,
        first_line=first_line,
        def_line=node.lineno,
        last_line=last_line,
        start=starts[first_line - 1],
        end=_end(text, starts, last_line, indent),
        body_start=body_start,
        indent=indent,
        body_indent=body_indent,
        signature=_signature(node),
        docstring=_docstring(node),
        node=node,
    )


def _body(text: str, starts: Sequence[int], node: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[int, str]:
    """Where the body without docstring begins, and its indentation where it has lines of its own.

    Comments between signature or docstring and the first statement belong to the body: they tell how it is done.
    """
    statements = node.body[1:] if _docstring(node) is not None else node.body
    if not statements:  # a docstring and no more; `mask` refuses to take it for a body
        last = node.end_lineno or node.lineno
        return starts[last - 1] + len(_line(text, starts, last)), ""
    first = statements[0]
    first_line = first_line_of(first)
    line = _line(text, starts, first_line)
    column = len(line.encode()[: first.col_offset].decode()) if first_line == first.lineno else len(_indent(line))
    if line[:column].strip():  # something stands before it on its line: the signature, or the docstring
        return starts[first_line - 1] + column, ""
    floor = node.body[0].end_lineno or 0 if statements is not node.body else node.lineno
    begins = first_line
    while begins - 1 > floor and _is_remark(_line(text, starts, begins - 1)):
        begins -= 1
    while not _line(text, starts, begins).strip():  # blank lines after the docstring stay with it
        begins += 1
    return starts[begins - 1], _indent(line)


def _end(text: str, starts: Sequence[int], last_line: int, indent: str) -> int:
    """The end of the function's text: of its last statement's line, or of deeper indented comments after it."""
    last = last_line
    for number in range(last_line + 1, len(starts) + 1):
        line = _line(text, starts, number)
        if not _is_remark(line):
            break
        if line.strip() and line.startswith(indent) and line[len(indent) : len(indent) + 1].isspace():
            last = number
    return starts[last - 1] + len(_line(text, starts, last))


def _is_remark(line: str) -> bool:
    """Whether a line is blank or only a comment."""
    return not line.strip() or line.lstrip().startswith("#")


def _says_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _docstring(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return inspect.cleandoc(first.value.value)
    return None


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"{word} {node.name}({ast.unparse(node.args)}){returns}:"


def _line_starts(text: str) -> list[int]:
    """Offsets at which lines begin, as Python's own tokenizer counts them: after LF, CR and CRLF, nothing else."""
    return [0, *(found.end() for found in re.finditer(r"\r\n?|\n", text))]


def _line(text: str, starts: Sequence[int], number: int) -> str:
    """The 1-based line without its ending."""
    end = starts[number] if number < len(starts) else len(text)
    return text[starts[number - 1] : end].rstrip("\r\n")


def _indent(line: str) -> str:
    found = re.match(r"[ \t\f]*", line)
    return found.group() if found else ""
