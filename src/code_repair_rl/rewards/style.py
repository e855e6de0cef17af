"""Does what was written look like what stands around it: naming, typing and the form of docstrings.

For code without tests, where it is all that can be said besides nearness to the known-good answer. Only habits of the
surroundings count, never a taste of ours: a file in camel case without annotations wants more of the same.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_SNAKE = re.compile(r"_*[a-z0-9]+(_[a-z0-9]+)+_*")
_CAMEL = re.compile(r"_*[a-z0-9]+([A-Z][A-Za-z0-9]*)+")
_SECTIONS = (
    ("numpy", re.compile(r"^[ \t]*(Parameters|Returns|Yields|Raises|Examples)[ \t]*\r?\n[ \t]*-{3,}", re.MULTILINE)),
    ("sphinx", re.compile(r"^[ \t]*:(param|returns?|rtype|raises|type)\b.*:", re.MULTILINE)),
    ("google", re.compile(r"^[ \t]*(Args|Arguments|Returns|Yields|Raises|Examples?):[ \t]*$", re.MULTILINE)),
)
_Def = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Habits:
    """How functions are written, counted over some of them."""

    names: Counter[str] = field(default_factory=Counter)
    """`snake` and `camel`: names of more than one word of functions, parameters and variables."""
    annotated: int = 0
    slots: int = 0
    """Parameters (without `self` and `cls`) and return values; `annotated` counts those with an annotation."""
    docstrings: Counter[str] = field(default_factory=Counter)
    """`yes` and `no`: functions with and without one."""
    forms: Mapping[str, Counter[str]] = field(default_factory=dict)
    """`quotes`, `opening` (text on the first line or the next) and `sections` (google, numpy, sphinx, none)."""


def style_conformity(before: Mapping[str, str], after: Mapping[str, str]) -> float:
    """How far the functions that an edit writes or changes keep to the habits of the rest of their files, in [0, 1].

    The mean of up to three parts, each left out where the surroundings or the edit give nothing to compare:

    - naming: of the edit's names of several words (functions, parameters, variables), how common their form (snake
      case, camel case) is in the surroundings, relative to the most common one;
    - typing: 1 less the difference between the shares of annotated parameters and return values;
    - docstrings: whether there is one, and for those there are, quotes, opening and sections, each by how common that
      is in the surroundings, relative to the most common.

    1 where nothing can be compared; 0 where an edited Python file does not parse. Only Python files are looked at.
    """
    parts: list[float] = []
    for path in sorted(after):
        if not path.endswith((".py", ".pyi")) or after[path] == before.get(path):
            continue
        written, around = _written_and_around(before.get(path, ""), after[path])
        if written is None:
            return 0.0
        if written:
            parts += _agreements(habits_of(written, after[path]), habits_of(around, after[path]))
    return sum(parts) / len(parts) if parts else 1.0


def habits_of(functions: Iterable[_Def], text: str) -> Habits:
    """Count the habits of functions of a file.

    Args:
        functions: syntax trees of the text's functions; functions inside them are counted with them.
        text: the file.
    """
    names: Counter[str] = Counter()
    docstrings: Counter[str] = Counter()
    forms: dict[str, Counter[str]] = {"quotes": Counter(), "opening": Counter(), "sections": Counter()}
    annotated = slots = 0
    for function in functions:
        names.update(form for form in map(_form_of_name, _names(function)) if form is not None)
        for has_annotation in _slots(function):
            slots += 1
            annotated += has_annotation
        docstring = _docstring(function)
        docstrings["no" if docstring is None else "yes"] += 1
        if docstring is not None:
            for aspect, found in _forms_of_docstring(docstring, text):
                forms[aspect][found] += 1
    return Habits(names, annotated, slots, docstrings, forms)


def _agreements(written: Habits, around: Habits) -> list[float]:
    """The parts that can be compared."""
    parts: list[float] = []
    if written.names and around.names:
        parts.append(_commonness(written.names, around.names))
    if written.slots and around.slots:
        parts.append(1.0 - abs(written.annotated / written.slots - around.annotated / around.slots))
    if written.docstrings and around.docstrings:
        aspects = [_commonness(written.docstrings, around.docstrings)]
        aspects += [
            _commonness(counts, around.forms[aspect])
            for aspect, counts in written.forms.items()
            if counts and around.forms[aspect]
        ]
        parts.append(sum(aspects) / len(aspects))
    return parts


def _commonness(mine: Counter[str], theirs: Counter[str]) -> float:
    """How common in `theirs` is what `mine` counts, relative to the most common there; the mean over `mine`."""
    most = max(theirs.values())
    return sum(count * theirs[found] / most for found, count in mine.items()) / mine.total()


def _written_and_around(before: str, after: str) -> tuple[list[_Def] | None, list[_Def]]:
    """The functions that an edit wrote or changed, and the others; None where the text does not parse."""
    functions = _functions(after)
    if functions is None:
        return None, []
    there = Counter(ast.dump(function) for function in _functions(before) or [])
    written: list[_Def] = []
    around: list[_Def] = []
    for function in functions:
        shape = ast.dump(function)
        if there[shape]:
            there[shape] -= 1
            around.append(function)
        else:
            written.append(function)
    return written, around


def _functions(text: str) -> list[_Def] | None:
    """Functions and methods, those inside other functions left out; None where the text does not parse."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return list(_outermost(tree))


def _outermost(node: ast.AST) -> Iterator[_Def]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Def):
            yield child
        else:
            yield from _outermost(child)


def _names(function: _Def) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, _Def):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _form_of_name(name: str) -> str | None:
    """None for names of one word, and for what is neither: they fit anywhere."""
    if name.startswith("__"):
        return None
    if _SNAKE.fullmatch(name):
        return "snake"
    return "camel" if _CAMEL.fullmatch(name) else None


def _slots(function: _Def) -> Iterator[bool]:
    """Whether each parameter, and the return value, is annotated."""
    for node in ast.walk(function):
        if isinstance(node, _Def):
            arguments = node.args
            positional = [*arguments.posonlyargs, *arguments.args]
            if positional and positional[0].arg in ("self", "cls"):
                positional = positional[1:]
            several = [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
            for one in [*positional, *arguments.kwonlyargs, *several]:
                yield one.annotation is not None
            yield node.returns is not None


def _docstring(function: _Def) -> ast.Constant | None:
    first = function.body[0]
    value = first.value if isinstance(first, ast.Expr) else None
    return value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def _forms_of_docstring(docstring: ast.Constant, text: str) -> Sequence[tuple[str, str]]:
    source = ast.get_source_segment(text, docstring) or ""
    opened = re.match(r"[A-Za-z]*(\"\"\"|'''|\"|')", source)
    inside = str(docstring.value)
    sections = next((name for name, pattern in _SECTIONS if pattern.search(inside)), "none")
    opening = "next line" if inside.lstrip(" \t").startswith(("\n", "\r")) else "first line"
    return (("quotes", opened.group(1) if opened else ""), ("opening", opening), ("sections", sections))
