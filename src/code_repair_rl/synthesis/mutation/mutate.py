"""Every bug that the operators can write into a source text, in a fixed order."""

from __future__ import annotations

import ast
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from itertools import islice, zip_longest

import libcst as cst

from code_repair_rl.synthesis.mutation import expressions, statements
from code_repair_rl.synthesis.mutation.source import Edit, Source

Operator = Callable[[Source, cst.CSTNode], Iterator[Edit]]
"""Yields the edits that one kind of mistake can make at one node. Its docstring says what the mistake is."""

OPERATORS: tuple[Operator, ...] = (
    expressions.comparison,
    expressions.arithmetic,
    expressions.swapped_operands,
    expressions.boolean,
    expressions.dropped_condition,
    expressions.negated_condition,
    expressions.boundary_constant,
    expressions.wrong_index,
    expressions.slice_bounds,
    expressions.range_bounds,
    expressions.wrong_variable,
    expressions.swapped_arguments,
    expressions.dropped_argument,
    expressions.wrong_method,
    expressions.wrong_function,
    expressions.dropped_call,
    expressions.wrong_constant,
    expressions.swapped_branches,
    expressions.dropped_filter,
    statements.augmented_assignment,
    statements.default_value,
    statements.dropped_statement,
    statements.wrong_return,
    statements.loop_control,
    statements.early_return,
    statements.broken_chain,
    statements.dropped_else,
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A source text with one bug in it."""

    operator: str
    """The kind of mistake (`wrong-variable`)."""
    line: int
    """Where the operator was applied: 1-based line of the original text."""
    text: str
    """The whole source text with the bug."""


def name_of(operator: Operator) -> str:
    """The operator's name as tasks carry it: `wrong-variable`."""
    return operator.__name__.replace("_", "-")


def mutants(text: str, *, only: Callable[[Source, cst.CSTNode], bool] | None = None) -> list[Mutant]:
    """Every single-place bug the operators can write into `text`, in the order of the text; no duplicates.

    What does not compile, or compiles to the same program, is left out. Imports, decorators, annotations, docstrings
    and the names of definitions stay as they are.

    Args:
        text: a Python module.
        only: which nodes may be changed; all by default.

    Raises:
        libcst.ParserSyntaxError: `text` is not Python.
    """
    source = Source(text)
    nodes = [node for node in source.nodes if only is None or only(source, node)]
    return list(_distinct(source, _edits(source, nodes)))


def sampled_mutants(
    text: str | Source, count: int, rng: random.Random, *, lines: Set[int] | None = None
) -> list[Mutant]:
    """Up to `count` of `mutants(text)`, drawn so that every operator that applies has its turn before one has two.

    Cheaper than all of them where `text` is long: only what is drawn is compiled. A `Source` saves reading the same
    text again.

    Args:
        text: a Python module.
        count: at most so many.
        rng: draws.
        lines: only what begins on one of these lines is changed; all by default.
    """
    source = text if isinstance(text, Source) else Source(text)
    by_operator: dict[str, list[tuple[str, Edit]]] = {}
    nodes = source.nodes if lines is None else [node for line in sorted(lines) for node in source.nodes_on(line)]
    for name, edit in _edits(source, nodes):
        by_operator.setdefault(name, []).append((name, edit))
    for edits in by_operator.values():
        rng.shuffle(edits)
    names = sorted(by_operator)
    rng.shuffle(names)
    turns = zip_longest(*(by_operator[name] for name in names))
    drawn = (edit for turn in turns for edit in turn if edit is not None)
    return list(islice(_distinct(source, drawn), count))


def _edits(source: Source, nodes: Iterable[cst.CSTNode]) -> Iterator[tuple[str, Edit]]:
    for node in nodes:
        if _may_change(source, node):
            for operator in OPERATORS:
                for edit in operator(source, node):
                    yield name_of(operator), edit


def _distinct(source: Source, edits: Iterable[tuple[str, Edit]]) -> Iterator[Mutant]:
    seen: set[tuple[int, str]] = set()
    stretches: set[int] = set()
    for name, edit in edits:
        # Only the statement of the module that is changed is compiled: long modules are compiled thousands of times.
        start, whole, changed = source.statement_after(edit)
        if start not in stretches:
            stretches.add(start)
            seen.add((start, _program(whole) or ""))
        program = _program(changed)
        if program is not None and (start, program) not in seen:
            seen.add((start, program))
            yield Mutant(name, source.line_at(edit.start), source.after(edit))


def _may_change(source: Source, node: cst.CSTNode) -> bool:
    if isinstance(node, cst.Import | cst.ImportFrom | cst.Decorator | cst.Annotation):
        return False
    kept = (cst.Import, cst.ImportFrom, cst.Decorator, cst.Annotation)
    return not any(isinstance(above, kept) for above in source.ancestors(node))


def _program(text: str) -> str | None:
    """What the text means, whatever its layout; None where it does not compile."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(text)
            compile(tree, "mutant.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
    return ast.dump(tree)
