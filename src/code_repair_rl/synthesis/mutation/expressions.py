"""Operators that write one wrong expression, as people do: each yields the edits it can make at one node."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from code_repair_rl.synthesis.mutation.source import Edit, Source

_COMPARISONS: dict[type[cst.BaseCompOp], tuple[str, ...]] = {
    cst.LessThan: ("<=", ">"),
    cst.LessThanEqual: ("<", ">="),
    cst.GreaterThan: (">=", "<"),
    cst.GreaterThanEqual: (">", "<="),
    cst.Equal: ("!=", "<="),
    cst.NotEqual: ("==",),
    cst.In: ("not in",),
    cst.NotIn: ("in",),
    cst.Is: ("is not",),
    cst.IsNot: ("is",),
}

_ARITHMETIC: dict[type[cst.BaseBinaryOp], tuple[str, ...]] = {
    cst.Add: ("-",),
    cst.Subtract: ("+",),
    cst.Multiply: ("+", "//"),
    cst.Divide: ("//", "*"),
    cst.FloorDivide: ("/", "%"),
    cst.Modulo: ("//",),
    cst.Power: ("*",),
    cst.BitAnd: ("|",),
    cst.BitOr: ("&",),
    cst.BitXor: ("|",),
    cst.LeftShift: (">>",),
    cst.RightShift: ("<<",),
}

_NON_COMMUTATIVE = (cst.Subtract, cst.Divide, cst.FloorDivide, cst.Modulo, cst.Power)

_CONFUSED_METHODS: dict[str, tuple[str, ...]] = {
    "append": ("extend",),
    "extend": ("append",),
    "add": ("discard",),
    "lower": ("upper",),
    "upper": ("lower",),
    "islower": ("isupper",),
    "isupper": ("islower",),
    "isalpha": ("isalnum",),
    "isdigit": ("isalnum",),
    "isalnum": ("isalpha",),
    "startswith": ("endswith",),
    "endswith": ("startswith",),
    "strip": ("lstrip",),
    "lstrip": ("rstrip",),
    "rstrip": ("lstrip",),
    "find": ("rfind",),
    "rfind": ("find",),
    "index": ("count",),
    "count": ("find",),
    "split": ("rsplit",),
    "keys": ("values",),
    "values": ("keys",),
    "items": ("keys",),
    "union": ("intersection",),
    "intersection": ("union",),
    "difference": ("symmetric_difference",),
    "floor": ("ceil",),
    "ceil": ("floor",),
    "swapcase": ("lower",),
}

_CONFUSED_FUNCTIONS: dict[str, tuple[str, ...]] = {
    "min": ("max",),
    "max": ("min",),
    "any": ("all",),
    "all": ("any",),
    "sum": ("len",),
    "len": ("sum",),
    "int": ("round",),
    "round": ("int",),
    "sorted": ("reversed",),
    "ord": ("int",),
    "str": ("repr",),
    "list": ("set",),
    "set": ("list",),
    "filter": ("map",),
}

_WRAPPERS = ("abs", "int", "sorted", "set", "list", "round", "str", "float", "reversed")


def comparison(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Compares the wrong way: `<` for `<=`, `==` for `!=`, `in` for `not in`."""
    if isinstance(node, cst.ComparisonTarget):
        for token in _COMPARISONS.get(type(node.operator), ()):
            yield source.replaced(node.operator, token)


def arithmetic(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Calculates with the wrong operator: `+` for `-`, `//` for `/`, `*` for `**`."""
    if isinstance(node, cst.BinaryOperation) and not _formats_text(node):
        for token in _ARITHMETIC.get(type(node.operator), ()):
            yield source.replaced(node.operator, token)


def swapped_operands(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Takes the operands in the wrong order where order matters: `b - a` for `a - b`."""
    if (
        isinstance(node, cst.BinaryOperation)
        and isinstance(node.operator, _NON_COMMUTATIVE)
        and not _formats_text(node)
    ):
        left, right = source.code(node.left), source.code(node.right)
        if left != right:
            yield source.replaced(
                node, f"{_closed(node.right, right)}{source.code(node.operator)}{_closed(node.left, left)}"
            )


def boolean(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Joins conditions with the wrong word: `and` for `or`."""
    if isinstance(node, cst.BooleanOperation):
        yield source.replaced(node.operator, "or" if isinstance(node.operator, cst.And) else "and")


def dropped_condition(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Forgets one half of a condition: `a` for `a and b`."""
    if isinstance(node, cst.BooleanOperation):
        yield source.replaced(node, source.code(node.left))
        yield source.replaced(node, source.code(node.right))


def negated_condition(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Asks for the opposite: `not x` for `x` in a condition, or the other way round."""
    if isinstance(node, cst.UnaryOperation) and isinstance(node.operator, cst.Not):
        yield source.replaced(node, source.code(node.expression))
    if isinstance(node, cst.If | cst.While | cst.IfExp | cst.CompIf):
        test = node.test
        if isinstance(test, cst.UnaryOperation) and isinstance(test.operator, cst.Not):
            return
        text = source.code(test)
        simple = isinstance(test, cst.Name | cst.Call | cst.Attribute | cst.Subscript) or bool(test.lpar)
        yield source.replaced(test, f"not {text}" if simple else f"not ({text})")


def boundary_constant(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Uses a number that is one off: `1` for `0`, `9` for `10`, `0.4` for `0.5`."""
    if source.in_annotation(node) or _inside(source, node, cst.Subscript) or _is_initial_value(source, node):
        return
    if isinstance(node, cst.Integer):
        value = int(node.value, 0)
        for wrong in (value + 1, value - 1):
            if wrong >= 0:
                yield source.replaced(node, str(wrong))
    elif isinstance(node, cst.Float):
        yield source.replaced(node, repr(round(float(node.value) + 0.1, 10)))


def wrong_index(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Looks at the neighbouring element: `x[i + 1]` for `x[i]`, `x[-1]` for `x[0]`."""
    if not isinstance(node, cst.Index) or source.in_annotation(node):
        return
    value, text = node.value, source.code(node.value)
    if isinstance(value, cst.Integer):
        number = int(value.value, 0)
        yield source.replaced(value, "-1" if number == 0 else str(number - 1))
        yield source.replaced(value, str(number + 1))
    elif isinstance(value, cst.Name):
        yield source.replaced(value, f"{text} - 1")
        yield source.replaced(value, f"{text} + 1")
    elif isinstance(value, cst.BinaryOperation) and isinstance(value.operator, cst.Add | cst.Subtract):
        yield source.replaced(value, source.code(value.left))


def slice_bounds(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Cuts a sequence at the wrong place: `x[:n - 1]` for `x[:n]`, `x[::2]` for `x[1::2]`, `x` read forwards."""
    if not isinstance(node, cst.Slice):
        return
    if node.lower is not None:
        yield source.replaced(node.lower, _moved(source, node.lower, "+"))
        yield source.replaced(node.lower, "")
    if node.upper is not None:
        yield source.replaced(node.upper, _moved(source, node.upper, "-"))
        yield source.replaced(node.upper, _moved(source, node.upper, "+"))
    if node.step is not None:
        negative = isinstance(node.step, cst.UnaryOperation)
        yield source.replaced(node.step, "1" if negative else f"-{source.code(node.step)}")


def range_bounds(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Counts one too few or too many: `range(n - 1)` for `range(n)`, `range(1, n)` for `range(0, n)`."""
    if not _calls(node, "range"):
        return
    assert isinstance(node, cst.Call)
    values = [argument.value for argument in node.args]
    end = values[0] if len(values) == 1 else values[1]
    yield source.replaced(end, _moved(source, end, "-"))
    yield source.replaced(end, _moved(source, end, "+"))
    if len(values) == 1:
        yield source.replaced(end, f"1, {source.code(end)}")
    else:
        yield source.replaced(values[0], _moved(source, values[0], "+"))
    if len(values) == 3:
        yield source.replaced(values[2], "1" if source.code(values[2]) != "1" else "2")


def wrong_variable(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Reads another variable of the same function: `distance < elem` for `distance < threshold`."""
    if isinstance(node, cst.Name) and source.is_read(node):
        names = source.variables(node)
        if node.value not in names:
            return
        # The next two in order of appearance, so that the pairs differ from place to place without a dice.
        place = names.index(node.value)
        for other in dict.fromkeys(names[(place + step) % len(names)] for step in (1, len(names) - 1)):
            if other not in (node.value, "_"):
                yield source.replaced(node, other)


def swapped_arguments(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Gives two neighbouring arguments in the wrong order: `pow(b, a)` for `pow(a, b)`."""
    if not isinstance(node, cst.Call):
        return
    for one, two in zip(node.args, node.args[1:], strict=False):
        if one.keyword is None and two.keyword is None and not one.star and not two.star:
            left, right = source.code(one.value), source.code(two.value)
            if left != right:
                yield source.span_replaced(one.value, two.value, f"{right}, {left}")


def dropped_argument(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Forgets an optional argument, or says its opposite: `sorted(xs)` for `sorted(xs, key=len)`."""
    if not isinstance(node, cst.Call):
        return
    for before, argument in zip(node.args, node.args[1:], strict=False):
        if argument.keyword is not None:
            yield source.span_replaced(before.value, argument.value, source.code(before.value))
    for argument in node.args:
        if argument.keyword is not None and isinstance(argument.value, cst.Name):
            opposite = {"True": "False", "False": "True"}.get(argument.value.value)
            if opposite:
                yield source.replaced(argument.value, opposite)


def wrong_method(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Calls the method next to the right one: `upper()` for `lower()`, `extend` for `append`, `ceil` for `floor`."""
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
        for other in _CONFUSED_METHODS.get(node.func.attr.value, ()):
            yield source.replaced(node.func.attr, other)


def wrong_function(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Calls the built-in next to the right one: `max` for `min`, `all` for `any`, `len` for `sum`."""
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Name):
        for other in _CONFUSED_FUNCTIONS.get(node.func.value, ()):
            yield source.replaced(node.func, other)


def dropped_call(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Forgets to convert, sort or take the absolute value: `x` for `abs(x)`, `text` for `text.lower()`."""
    if not isinstance(node, cst.Call):
        return
    if isinstance(node.func, cst.Name) and node.func.value in _WRAPPERS and node.args:
        yield source.replaced(node, _closed(node.args[0].value, source.code(node.args[0].value)))
    elif isinstance(node.func, cst.Attribute) and not node.args and not _is_statement(source, node):
        yield source.replaced(node, source.code(node.func.value))


def wrong_constant(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Writes a wrong text: another text of the same function, the other case, or a space too many or too few."""
    if not isinstance(node, cst.SimpleString) or source.is_docstring(node) or source.in_annotation(node):
        return
    if node.prefix or node.quote not in ("'", '"') or "\\" in node.value:
        return
    quote, text = node.quote, node.raw_value
    swapped = text.swapcase()
    if swapped != text:
        yield source.replaced(node, f"{quote}{swapped}{quote}")
    yield source.replaced(node, f"{quote}{' ' if text == '' else '' if text.isspace() else text[:-1]}{quote}")


def swapped_branches(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Takes the wrong side of a conditional expression: `b if c else a` for `a if c else b`."""
    if isinstance(node, cst.IfExp):
        test, body, orelse = source.code(node.test), source.code(node.body), source.code(node.orelse)
        if body != orelse:
            yield source.replaced(node, f"{orelse} if {test} else {body}")


def dropped_filter(source: Source, node: cst.CSTNode) -> Iterator[Edit]:
    """Forgets the condition of a comprehension: `[x for x in xs]` for `[x for x in xs if x > 0]`."""
    if isinstance(node, cst.CompFor) and node.ifs:
        last = node.ifs[-1]
        text = source.code(node.iter)
        if len(node.ifs) == 1:
            yield source.span_replaced(node.iter, last, text)


def _closed(node: cst.BaseExpression, text: str) -> str:
    """The expression's text, in parentheses where it would otherwise fall apart."""
    loose = isinstance(
        node, cst.BinaryOperation | cst.BooleanOperation | cst.IfExp | cst.Comparison | cst.UnaryOperation
    )
    return f"({text})" if loose and not node.lpar else text


def _moved(source: Source, node: cst.BaseExpression, sign: str) -> str:
    """One more or one less, written as a person would: `3` for `2`, `n` for `n - 1`, `n + 1` for `n`."""
    step = 1 if sign == "+" else -1
    if isinstance(node, cst.Integer):
        return str(int(node.value, 0) + step)
    if _adds_integer(node):
        assert isinstance(node, cst.BinaryOperation)
        assert isinstance(node.right, cst.Integer)
        number = int(node.right.value, 0) * (1 if isinstance(node.operator, cst.Add) else -1) + step
        left = source.code(node.left)
        return left if number == 0 else f"{left} {'+' if number > 0 else '-'} {abs(number)}"
    return f"{_closed(node, source.code(node)) if isinstance(node, cst.IfExp) else source.code(node)} {sign} 1"


def _adds_integer(node: cst.BaseExpression) -> bool:
    """Whether it reads `... + 3` or `... - 3` without parentheses around."""
    if not isinstance(node, cst.BinaryOperation) or node.lpar:
        return False
    return isinstance(node.operator, cst.Add | cst.Subtract) and isinstance(node.right, cst.Integer)


def _calls(node: cst.CSTNode, name: str) -> bool:
    if not isinstance(node, cst.Call) or not isinstance(node.func, cst.Name) or not node.args:
        return False
    return node.func.value == name and not any(argument.star or argument.keyword for argument in node.args)


def _inside(source: Source, node: cst.CSTNode, kind: type[cst.CSTNode]) -> bool:
    """Whether `kind` is found above the node before any call begins: `x[1]` yes, `x[f(1)]` no."""
    for above in source.ancestors(node):
        if isinstance(above, cst.Call):
            return False
        if isinstance(above, kind):
            return True
    return False


def _is_initial_value(source: Source, node: cst.CSTNode) -> bool:
    """Whether the number alone is what a variable begins with (`total = 0`): the operator `default_value` has those."""
    return isinstance(source.parent(node), cst.Assign | cst.AnnAssign | cst.Param)


def _is_statement(source: Source, node: cst.CSTNode) -> bool:
    return isinstance(source.parent(node), cst.Expr)


def _formats_text(node: cst.BinaryOperation) -> bool:
    """`"..." % x` and `"..." * n`: what other operators make of them only raises."""
    return isinstance(node.left, cst.SimpleString | cst.ConcatenatedString)
