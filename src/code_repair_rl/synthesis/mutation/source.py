"""Python source seen by the operators: a concrete syntax tree whose nodes know their place, scope and text."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import libcst as cst
from libcst.metadata import (
    ByteSpanPositionProvider,
    ExpressionContext,
    ExpressionContextProvider,
    MetadataWrapper,
    ParentNodeProvider,
    PositionProvider,
)


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace one stretch of the source, in bytes of its UTF-8 form."""

    start: int
    length: int
    text: str


class Source:
    """One module's text with its tree; edits are made in the text, so that all else stays to the byte."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._bytes = text.encode()
        wrapper = MetadataWrapper(cst.parse_module(text), unsafe_skip_copy=True)
        self.module = wrapper.module
        self._spans = wrapper.resolve(ByteSpanPositionProvider)
        self._positions = wrapper.resolve(PositionProvider)
        self._contexts = wrapper.resolve(ExpressionContextProvider)
        self._parents = wrapper.resolve(ParentNodeProvider)

    @cached_property
    def nodes(self) -> Sequence[cst.CSTNode]:
        """Every node, parents before children, in the order of the text."""
        return tuple(_walk(self.module))

    @cached_property
    def _by_line(self) -> dict[int, list[cst.CSTNode]]:
        found: dict[int, list[cst.CSTNode]] = {}
        for node in self.nodes:
            found.setdefault(self.line(node), []).append(node)
        return found

    def nodes_on(self, line: int) -> Sequence[cst.CSTNode]:
        """The nodes that begin on a 1-based line, parents before children."""
        return self._by_line.get(line, ())

    @cached_property
    def _statement_spans(self) -> list[tuple[int, int]]:
        """Where the module's statements begin and end, whole lines, in bytes."""
        lines = self._bytes.splitlines(keepends=True)
        offsets = [0, *accumulate(map(len, lines))]
        spans = []
        for node in self.module.body:
            first, last = self.line(node), self.last_line(node)
            if isinstance(node, cst.FunctionDef | cst.ClassDef) and node.decorators:
                first = min(first, *(self.line(decorator) for decorator in node.decorators))
            spans.append((offsets[first - 1], offsets[min(last, len(lines))]))
        return spans

    def statement_after(self, edit: Edit) -> tuple[int, str, str]:
        """Of the module's statement that an edit lies in: its offset, its text and its text after the edit.

        Of the whole module, where the edit lies in no single statement.
        """
        place = bisect_right(self._statement_spans, (edit.start, len(self._bytes) + 1)) - 1
        start, end = self._statement_spans[place] if place >= 0 else (0, -1)
        if edit.start + edit.length > end:
            return -1, self.text, self.after(edit)
        changed = self._bytes[start : edit.start] + edit.text.encode() + self._bytes[edit.start + edit.length : end]
        return start, self._bytes[start:end].decode(), changed.decode()

    def code(self, node: cst.CSTNode) -> str:
        """The node's text with its own parentheses."""
        return self.module.code_for_node(node)

    def line(self, node: cst.CSTNode) -> int:
        """The 1-based line on which the node begins; 0 for one that has no place of its own (white space)."""
        position = self._positions.get(node)
        return int(position.start.line) if position is not None else 0

    def line_at(self, offset: int) -> int:
        """The 1-based line that holds a byte of the text."""
        return self._bytes.count(b"\n", 0, offset) + 1

    def last_line(self, node: cst.CSTNode) -> int:
        """The 1-based line on which the node ends."""
        return int(self._positions[node].end.line)

    def parent(self, node: cst.CSTNode) -> cst.CSTNode | None:
        """The node around it; None for the module."""
        return self._parents.get(node)

    def ancestors(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """The nodes around it, from the inside out."""
        above = self.parent(node)
        while above is not None:
            yield above
            above = self.parent(above)

    def function(self, node: cst.CSTNode) -> cst.FunctionDef | None:
        """The innermost function around the node."""
        return next((above for above in self.ancestors(node) if isinstance(above, cst.FunctionDef)), None)

    def replaced(self, node: cst.CSTNode, new: str | cst.CSTNode) -> Edit:
        """The edit that writes `new` where `node` stands (inside its parentheses, where it has some)."""
        span = self._spans[node]
        return Edit(span.start, span.length, new if isinstance(new, str) else self.code(new))

    def span_replaced(self, first: cst.CSTNode, last: cst.CSTNode, text: str) -> Edit:
        """The edit that writes `text` from the beginning of `first` to the end of `last`."""
        start = self._spans[first].start
        end = self._spans[last]
        return Edit(start, end.start + end.length - start, text)

    def lines_replaced(self, first: int, last: int, lines: Sequence[str]) -> Edit:
        """The edit that writes `lines` (without newlines) in place of the 1-based lines `first` to `last`."""
        all_lines = self._bytes.splitlines(keepends=True)
        start = sum(len(line) for line in all_lines[: first - 1])
        length = sum(len(line) for line in all_lines[first - 1 : last])
        return Edit(start, length, "".join(line + "\n" for line in lines))

    def line_text(self, number: int) -> str:
        """The text of a 1-based line, without its newline."""
        return self.text.split("\n")[number - 1]

    def after(self, edit: Edit) -> str:
        """The whole text after the edit."""
        end = edit.start + edit.length
        return (self._bytes[: edit.start] + edit.text.encode() + self._bytes[end:]).decode()

    @cached_property
    def _variables(self) -> dict[cst.FunctionDef, tuple[str, ...]]:
        return {node: tuple(dict.fromkeys(_bound(node))) for node in self.nodes if isinstance(node, cst.FunctionDef)}

    def variables(self, node: cst.CSTNode) -> tuple[str, ...]:
        """Parameters and local names of the function around `node`, in order of appearance."""
        function = self.function(node)
        return self._variables[function] if function is not None else ()

    def is_read(self, name: cst.Name) -> bool:
        """Whether the name is a variable that is read here: no target, attribute, keyword, annotation or definition."""
        if self._contexts.get(name) is not ExpressionContext.LOAD or self.in_annotation(name):
            return False
        parent = self.parent(name)
        if isinstance(parent, cst.Attribute | cst.Arg):
            return parent.value is name
        return not isinstance(parent, cst.Call | cst.Param | cst.FunctionDef | cst.ImportAlias | cst.NameItem)

    def is_docstring(self, node: cst.CSTNode) -> bool:
        """Whether the node is (part of) an expression statement that is only a string."""
        return any(isinstance(above, cst.Expr) and _is_text(above.value) for above in (node, *self.ancestors(node)))

    def in_annotation(self, node: cst.CSTNode) -> bool:
        """Whether the node is part of a type annotation."""
        return any(isinstance(above, cst.Annotation) for above in (node, *self.ancestors(node)))


def _walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _is_text(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.SimpleString | cst.ConcatenatedString | cst.FormattedString)


def _bound(function: cst.FunctionDef) -> Iterator[str]:
    """Names that the function binds: parameters, assignment and loop targets."""
    for node in _walk(function):
        if isinstance(node, cst.Param):
            yield node.name.value
        elif isinstance(node, cst.AssignTarget | cst.For | cst.CompFor | cst.NamedExpr):
            yield from _names(node.target)


def _names(target: cst.CSTNode) -> Iterator[str]:
    if isinstance(target, cst.Name):
        yield target.value
    elif isinstance(target, cst.Tuple | cst.List):
        for element in target.elements:
            yield from _names(element.value)
