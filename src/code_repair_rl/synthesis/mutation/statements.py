"""Operators that write, leave out or place one statement wrongly, as people do."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from code_repair_rl.synthesis.mutation.source import Edit, Source

_AUGMENTED: dict[type[cst.BaseAugOp], tuple[str, ...]] = {
    cst.AddAssign: ("-=", "="),
    cst.SubtractAssign: ("+=", "="),
    cst.MultiplyAssign: ("+=",),
    cst.DivideAssign: ("*=", "//="),
    cst.FloorDivideAssign: ("%=", "-="),
    cst.ModuloAssign: ("//=",),
}


def augmented_assignment(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Updates a variable the wrong way: `-=` for `+=`, `=` for `+=`."""
    if isinstance(node, cst.AugAssign):
        for token in _AUGMENTED.get(type(node.operator), ()):
            yield source.replaced(node.operator, token)


def default_value(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Begins with the wrong value: `total = 1` for `total = 0`, `found = True` for `found = False`."""
    if isinstance(node, cst.Assign | cst.AnnAssign) and node.value is not None:
        value = node.value
    elif isinstance(node, cst.Param) and node.default is not None:
        value = node.default
    elif isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value == "get":
        if len(node.args) != 2:
            return
        value = node.args[1].value
    else:
        return
    text = source.code(value)
    wrong = {"0": "1", "1": "0", "True": "False", "False": "True", "None": "0", "''": "' '", '""': '" "'}.get(text)
    if wrong is None and isinstance(value, cst.Integer):
        wrong = str(int(value.value, 0) - 1)
    if wrong is not None:
        yield source.replaced(value, wrong)
    elif isinstance(value, cst.UnaryOperation) and isinstance(value.expression, cst.Integer | cst.Call):
        yield source.replaced(value, source.code(value.expression))
    elif text in ("float('-inf')", 'float("-inf")', "float('inf')", 'float("inf")'):
        yield source.replaced(value, "0")


def dropped_statement(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Forgets a line: an assignment, an update or a call for its effect. Where it was the only one, `pass` stays."""
    if not isinstance(node, cst.SimpleStatementLine) or len(node.body) != 1:
        return
    statement = node.body[0]
    if not isinstance(statement, cst.Assign | cst.AugAssign | cst.Expr) or source.is_docstring(statement):
        return
    block = source.parent(node)
    if not isinstance(block, cst.IndentedBlock):
        return
    first, last = source.line(node), source.last_line(node)
    others = [line for line in block.body if line is not node]
    indent = source.line_text(first)[: -len(source.line_text(first).lstrip())]
    yield source.lines_replaced(first, last, [] if others else [f"{indent}pass"])


def wrong_return(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Returns the wrong thing: the opposite, another variable, one operand only, the negative, or nothing."""
    if not isinstance(node, cst.Return) or node.value is None:
        return
    value, text = node.value, source.code(node.value)
    opposite = {"True": "False", "False": "True", "None": "0", "[]": "None", "0": "None"}.get(text)
    if opposite is not None:
        yield source.replaced(value, opposite)
    elif isinstance(value, cst.Name):
        for other in source.variables(node):
            if other not in (value.value, "_"):
                yield source.replaced(value, other)
                break
    elif isinstance(value, cst.BinaryOperation):
        yield source.replaced(value, source.code(value.left))
        yield source.replaced(value, source.code(value.right))
    elif isinstance(value, cst.Comparison):
        yield source.replaced(value, f"not {text}" if len(value.comparisons) == 1 else "True")
    elif isinstance(value, cst.Tuple) and len(value.elements) == 2:
        one, two = (source.code(element.value) for element in value.elements)
        if one != two:
            yield source.replaced(value, f"{two}, {one}")
    elif isinstance(value, cst.Call | cst.Subscript):
        yield source.replaced(value, "None")


def loop_control(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Leaves a loop instead of going on, goes on instead of leaving, or does neither."""
    if isinstance(node, cst.Break):
        yield source.replaced(node, "continue")
        yield source.replaced(node, "pass")
    elif isinstance(node, cst.Continue):
        yield source.replaced(node, "break")
        yield source.replaced(node, "pass")


def early_return(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Returns inside the loop what belongs behind it: the `return` after a loop, indented one step too far."""
    if not isinstance(node, cst.IndentedBlock):
        return
    for loop, after in zip(node.body, node.body[1:], strict=False):
        if not isinstance(loop, cst.For | cst.While) or loop.orelse is not None or not _is_return(after):
            continue
        if not isinstance(loop.body, cst.IndentedBlock):
            continue
        inner = source.line_text(source.line(loop.body.body[0]))
        outer = source.line_text(source.line(after))
        indent = inner[: len(inner) - len(inner.lstrip())]
        if source.line(after) == source.last_line(after):
            yield source.lines_replaced(source.line(after), source.line(after), [indent + outer.lstrip()])


def broken_chain(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Asks every time instead of only when the question before was answered with no: `if` for `elif`."""
    if isinstance(node, cst.If) and isinstance(source.parent(node), cst.If):
        line = source.line(node)
        text = source.line_text(line)
        if text.lstrip().startswith("elif "):
            yield source.lines_replaced(line, line, [text.replace("elif ", "if ", 1)])


def dropped_else(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Does in every case what belongs into the `else`: a one-line branch without its `else`."""
    if not isinstance(node, cst.Else) or not isinstance(source.parent(node), cst.If):
        return
    if not isinstance(node.body, cst.IndentedBlock) or len(node.body.body) != 1:
        return
    first, last = source.line(node), source.last_line(node.body.body[0])
    header = source.line_text(first)
    if last != first + 1 or header.strip() != "else:":
        return
    indent = header[: len(header) - len(header.lstrip())]
    yield source.lines_replaced(first, last, [indent + source.line_text(last).lstrip()])


def _is_return(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.SimpleStatementLine) and isinstance(node.body[-1], cst.Return)
