"""Functions of real libraries taken out, to be written back from their description until the library's tests pass."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from code_repair_rl.sandbox import Sandbox
from code_repair_rl.synthesis.bugs import Unusable
from code_repair_rl.synthesis.duplicates import open_copies
from code_repair_rl.synthesis.library import Library
from code_repair_rl.synthesis.masking import Function, Masked, MaskKind, Unmaskable, functions_in, mask
from code_repair_rl.synthesis.quality import code_fault, docstring_fault, file_fault
from code_repair_rl.synthesis.stack import description
from code_repair_rl.synthesis.suites import Report, Run, Suite, suite_of
from code_repair_rl.tasks import (
    Hints,
    Kind,
    Origin,
    RepositoryTests,
    StoredTree,
    Task,
    exact_lines,
    split_of,
    store_tree,
)

SMALL_SET = 20
"""Tasks that one library serves for, before a second is fetched for a set with a limit."""

_MOST_TESTS = 30
_MOST_FUNCTIONS = 60
"""Of one library."""


@dataclass(frozen=True, slots=True)
class _Masked:
    path: str
    function: Function
    kind: MaskKind
    masked: Masked
    tests: tuple[str, ...]


def library_functions(
    libraries: Sequence[Library],
    sandbox: Sandbox,
    *,
    seed: int,
    limit: int | None,
    workers: int,
    progress: Report = lambda *_: None,
) -> tuple[list[Task], list[Unusable]]:
    """Implement tasks: a function whose docstring specifies it and that tests execute, masked whole and body only.

    The first tasks of a library are one of each function. With a limit, no more libraries are taken than it needs.

    Raises:
        MachineryFailed: a library cannot be fetched, or the sandbox could not run a job to its end.
    """
    chosen = libraries if limit is None else libraries[: max(1, -(-limit // SMALL_SET))]
    tasks: list[Task] = []
    left_out: list[Unusable] = []
    for place, library in enumerate(chosen):
        share = None if limit is None else -(-(limit - len(tasks)) // (len(chosen) - place))
        suite = suite_of(library, sandbox, workers=workers, report=progress)
        tasks += _functions_of(suite, seed, share, left_out)
    return tasks[:limit], left_out


def _functions_of(suite: Suite, seed: int, wanted: int | None, left_out: list[Unusable]) -> list[Task]:
    masks = _masks(suite, seed, left_out)
    if wanted is not None:
        masks = masks[: 2 * wanted]
    runs = [Run(files={one.path: one.masked.before}, tests=one.tests) for one in masks]
    tasks: list[Task] = []
    for one, found in zip(masks, suite.run(runs, f"{suite.library.name}: running masked functions"), strict=True):
        # Where the masked file cannot be imported its tests do not even run; that is a failure, too.
        failing = tuple(test for test in one.tests if found.statuses.get(test, "failed") == "failed")
        passing = tuple(test for test in one.tests if found.passed(test))
        if not found.ended or len(failing) + len(passing) < len(one.tests):
            left_out.append(Unusable(_problem(suite, one), "without it the tests do not come to their end"))
        elif not failing:
            left_out.append(Unusable(_problem(suite, one), "without it the tests pass"))
        else:
            tasks.append(_task(suite, one, failing, passing, seed))
    return tasks[:wanted]


def _masks(suite: Suite, seed: int, left_out: list[Unusable]) -> list[_Masked]:
    """Functions worth writing back, each masked both ways; one way of each before the other of any."""
    found: list[tuple[str, Function, tuple[str, ...]]] = []
    copies: dict[Function, str] = {}
    for path, executed in suite.executed.items():
        text = suite.files[path]
        fault = file_fault(text)
        if fault is not None:
            left_out.append(Unusable(f"{suite.library.name}/{path}", fault))
            continue
        functions = functions_in(text)
        copies |= open_copies(functions, text)
        for function in functions:
            lines = sorted(executed & set(range(function.def_line + 1, function.last_line + 1)))
            tests = suite.tests_of(path, lines, _MOST_TESTS)
            reason = code_fault(function, text) or docstring_fault(function) or (None if tests else "no test runs it")
            if reason is None:
                found.append((path, function, tests))
            else:
                left_out.append(Unusable(f"{suite.library.name}/{path}::{function.qualified_name}", reason))
    rng = random.Random(f"{seed}:{suite.library.name}:implement")
    rng.shuffle(found)
    rows: list[list[_Masked]] = [[], []]
    for number, (path, function, tests) in enumerate(found[:_MOST_FUNCTIONS]):
        kinds = (MaskKind.BODY, MaskKind.WHOLE) if number % 2 == 0 else (MaskKind.WHOLE, MaskKind.BODY)
        for row, kind in zip(rows, kinds, strict=True):
            try:
                if function in copies:
                    raise Unmaskable(copies[function])
                row.append(_Masked(path, function, kind, mask(suite.files[path], function, kind), tests))
            except Unmaskable as error:
                left_out.append(Unusable(f"{suite.library.name}/{path}::{function.qualified_name}/{kind}", str(error)))
    return rows[0] + rows[1]


def _problem(suite: Suite, one: _Masked) -> str:
    return f"{suite.library.name}/{one.path}::{one.function.qualified_name}"


def _task(suite: Suite, one: _Masked, failing: tuple[str, ...], passing: tuple[str, ...], seed: int) -> Task:
    library, function = suite.library, one.function
    before, after = {one.path: one.masked.before}, {one.path: one.masked.after}
    problem = _problem(suite, one)
    return Task(
        task_id=f"libraries-implement/{problem}:{function.first_line}/{one.kind}",
        kind=Kind.IMPLEMENT,
        files=StoredTree(store_tree(suite.files), before),
        description=description(function, one.masked, one.kind),
        hints=Hints(exact_lines=exact_lines(before, after)),
        oracle=after,
        tests=RepositoryTests(fail_to_pass=failing, pass_to_pass=passing, source_roots=library.source_roots),
        split=split_of(problem),
        problem=problem,
        origin=Origin(
            source=library.name,
            version=library.version,
            detail={
                "function": function.qualified_name,
                "mask": one.kind.value,
                "first_line": function.first_line,
                "last_line": function.last_line,
                "seed": seed,
            },
        ),
        licence=library.licence,
    )
