"""Calls with their expected values, as people write them into docstrings."""

from __future__ import annotations

import ast
import re

from code_repair_rl.tasks import Example

_ARROW = re.compile(
    r"\s*(?:#\s*)?(?:➞|=+>|-+>|==?|(?:should |will |would )?returns?|the output should be|:)\s*", re.IGNORECASE
)
_WORDS = {"true": "True", "false": "False", "null": "None", "none": "None"}
"""How other languages write them, found in many docstrings."""

_MOST_LINES = 4
"""An expected value may go on over this many lines."""


def examples_in(text: str, function: str) -> tuple[Example, ...]:
    """Calls of `function` with literal arguments whose expected value follows: `f(1) ➞ 2`, `f(1) == 2`, or doctest.

    What cannot be read is passed over; nothing found here is more than a claim until it was run.
    """
    found: dict[str, Example] = {}
    for match in re.finditer(rf"(?<![\w.]){re.escape(function)}\(", text):
        call = _call(text, match.start())
        if call is None or _is_wrapped(text, match.start()):
            continue
        expected = _expected(text[match.start() + len(call) :])
        if expected is not None:
            example = Example(call=ast.unparse(ast.parse(call, mode="eval")), expected=expected)
            found.setdefault(example.call, example)
    return tuple(found.values())


def arguments_of(call: str) -> tuple[object, ...] | None:
    """The literal positional arguments of a call's source; None where they are not literals."""
    try:
        tree = ast.parse(call.strip(), mode="eval").body
        if not isinstance(tree, ast.Call) or tree.keywords:
            return None
        return tuple(ast.literal_eval(argument) for argument in tree.args)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None


def _call(text: str, start: int) -> str | None:
    """The shortest stretch from `start` that is a call with literal arguments."""
    for match in re.finditer(r"\)", text[start : start + 600]):
        call = text[start : start + match.end()]
        if arguments_of(call) is not None:
            return call
    return None


def _is_wrapped(text: str, start: int) -> bool:
    """Whether the call stands inside another expression, so that the value that follows is not its own."""
    line = text[text.rfind("\n", 0, start) + 1 : start]
    return line.count("(") > line.count(")") or line.rstrip().endswith(("not", "+", "-", "*"))


def _expected(rest: str) -> str | None:
    """The literal that follows a call: after an arrow on the same line, or on the next line of a doctest."""
    line, _, following = rest.partition("\n")
    arrow = _ARROW.match(line)
    if line.strip() and arrow and arrow.end():
        tail, more = line[arrow.end() :], following
    elif not line.strip() or line.strip().startswith("#"):
        tail, more = "", following
    else:
        return None
    lines = [tail, *more.split("\n")[:_MOST_LINES]]
    for count in range(1, len(lines) + 1):
        value = _literal(" ".join(part.strip() for part in lines[:count]))
        if value is not None:
            return value
        if count == 1 and tail and not tail.lstrip().startswith(("[", "(", "{")):
            return None  # a value that is no collection does not go on
    return None


def _literal(text: str) -> str | None:
    """The canonical source of a literal at the beginning of a text; what may follow it is a comment or a full stop."""
    text = re.sub(r"(?<=\d)\.$", "", text.strip())  # `7.` ends a sentence more often than it is a float
    for candidate in (text, text.split("#")[0].strip(), text.rstrip(".,;"), text.split(" ")[0].rstrip(".,;")):
        try:
            return repr(ast.literal_eval(_WORDS.get(candidate, candidate)))
        except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
            continue
    return None
