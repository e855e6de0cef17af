"""Bugs in real libraries, with fail-to-pass and pass-to-pass tests from their own suites.

A library is fetched as a source distribution, pinned by version and sha256. Its suite runs once watched, so that it
is known which test executes which line; a mutant then needs only the tests that execute its line. Two bugs in
different files that were kept one by one make a combined task: each of them alone fails some of its tests.
"""

from __future__ import annotations

import ast
import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from code_repair_rl.edits.lines import lines_of
from code_repair_rl.sandbox import Sandbox
from code_repair_rl.synthesis.bugs import Unusable
from code_repair_rl.synthesis.duplicates import without_near_duplicates
from code_repair_rl.synthesis.library import Library
from code_repair_rl.synthesis.localisation import ranked_lines
from code_repair_rl.synthesis.mutation import Mutant, sampled_mutants
from code_repair_rl.synthesis.mutation.source import Source
from code_repair_rl.synthesis.outer_functions import outer_functions
from code_repair_rl.synthesis.suites import Found, Report, Run, Suite, suite_of
from code_repair_rl.tasks import (
    Hints,
    Kind,
    Line,
    Origin,
    RepositoryTests,
    Split,
    StoredTree,
    Task,
    exact_lines,
    split_of,
    store_tree,
)

SMALL_SET = 40
"""Tasks that one library serves for, before a second is fetched for a set with a limit."""

_MOST_SINGLES = 180
"""Bugs kept of one library."""
_MOST_COMBINED = 40
_BUGS_PER_FUNCTION = 3
_CANDIDATES_PER_FUNCTION = 5
_MOST_TESTS = 30
"""Tests run for one bug: those that execute its line, the ones that execute least first."""
_TURN = 80
"""Candidates run before it is looked whether there are enough; the same for any number of workers."""
_WHOLE_SUITE_SHARE = 0.05
_WHOLE_SUITE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class WholeSuite:
    """What running whole suites on a sample of the bugs found beyond the tests selected for them."""

    bugs: int = 0
    """Of the sample, those whose suite came to its end."""
    bugs_with_more: int = 0
    """Those that fail a test that was not selected."""
    failing: int = 0
    """Tests that fail on them, over all."""
    missed: int = 0
    """Those of them that were not selected, over all."""


@dataclass(frozen=True, slots=True)
class LibraryBugs:
    """What `library_bugs` made."""

    tasks: list[Task]
    unusable: list[Unusable]
    whole_suite: WholeSuite


@dataclass(frozen=True, slots=True)
class _Candidate:
    path: str
    function: str
    mutant: Mutant
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Bug:
    """A bug that some tests caught."""

    candidate: _Candidate
    problem: str
    failing: tuple[str, ...]
    passing: tuple[str, ...]


def library_bugs(
    libraries: Sequence[Library],
    sandbox: Sandbox,
    *,
    seed: int,
    limit: int | None,
    workers: int,
    progress: Report = lambda *_: None,
) -> LibraryBugs:
    """Repair tasks with a bug in a library's function, or two in two files, that its own tests catch.

    The first tasks of a library cover as many functions as possible; combined ones come last. With a limit, no more
    libraries are taken than it needs, and share it evenly.

    Raises:
        MachineryFailed: a library cannot be fetched, or the sandbox could not run a job to its end.
    """
    libraries, shares = _shared(libraries, limit)
    suites = {library.name: suite_of(library, sandbox, workers=workers, report=progress) for library in libraries}
    bugs: dict[str, list[_Bug]] = {}
    unusable: list[Unusable] = []
    for name, suite in suites.items():
        bugs[name], refused = _bugs_of(suite, seed, shares[name])
        unusable += refused
    singles = {name: [_single(suites[name], bug, seed) for bug in found] for name, found in bugs.items()}
    # Before bugs are combined: no combination is to carry a function over from one split to another.
    kept, alike = without_near_duplicates([task for tasks in singles.values() for task in tasks])
    unusable += [Unusable(item.task.problem, item.reason) for item in alike]
    problems = {task.problem for task in kept}
    tasks: list[Task] = []
    for name, suite in suites.items():
        left = [bug for bug in bugs[name] if bug.problem in problems]
        made = [task for task in singles[name] if task.problem in problems]
        combined = _combined(suite, left, seed, min(_MOST_COMBINED, len(left) // 4))
        share = shares[name]
        tasks += made if share is None else made[: max(1, share - len(combined))]
        tasks += combined
    sample = {name: _sample(suites[name], found, seed) for name, found in bugs.items()} if limit is None else {}
    return LibraryBugs(tasks, unusable, _joined(sample.values()))


def _shared(libraries: Sequence[Library], limit: int | None) -> tuple[Sequence[Library], dict[str, int | None]]:
    """The libraries that are needed for so many tasks, and how many each gives."""
    if limit is None:
        return libraries, {library.name: None for library in libraries}
    count = min(len(libraries), max(1, -(-limit // SMALL_SET)))
    shares = [limit // count + (place < limit % count) for place in range(count)]
    return libraries[:count], {library.name: share for library, share in zip(libraries, shares, strict=False)}


def _bugs_of(suite: Suite, seed: int, wanted: int | None) -> tuple[list[_Bug], list[Unusable]]:
    """Bugs that the suite catches, at most three of a function; and the functions in which it catches none."""
    most = _MOST_SINGLES if wanted is None else min(_MOST_SINGLES, wanted)
    bugs: list[_Bug] = []
    per_function: dict[str, int] = {}
    seen: set[str] = set()
    candidates = _candidates(suite, seed, most)
    for start in range(0, len(candidates), _TURN):
        turn = candidates[start : start + _TURN]
        runs = [Run(files={one.path: one.mutant.text}, tests=one.tests) for one in turn]
        step = f"{suite.library.name}: running bugs {start + 1} to {start + len(turn)}"
        for candidate, found in zip(turn, suite.run(runs, step), strict=True):
            problem = f"{suite.library.name}/{candidate.path}::{candidate.function}"
            seen.add(problem)
            failing, passing = _ends(candidate.tests, found)
            if not failing or len(failing) + len(passing) < len(candidate.tests):
                continue
            if per_function.get(problem, 0) < _BUGS_PER_FUNCTION:
                per_function[problem] = per_function.get(problem, 0) + 1
                bugs.append(_Bug(candidate, problem, failing, passing))
        if len(bugs) >= most:
            break
    return bugs[:most], [Unusable(name, "the tests catch no mutant") for name in sorted(seen - per_function.keys())]


def _ends(tests: Sequence[str], found: Found) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tests that failed, and those that passed."""
    if not found.ended:
        return (), ()
    failing = tuple(test for test in tests if found.statuses.get(test) == "failed")
    return failing, tuple(test for test in tests if found.passed(test))


def _candidates(suite: Suite, seed: int, most: int) -> list[_Candidate]:
    """Mutants of functions that some test executes, one of each function before the second of any."""
    rows = suite.remembered(("candidates", seed, most), lambda: [_row(suite, one) for one in _drawn(suite, seed, most)])
    found = []
    for path, function, operator, line, start, end, written in rows:
        text = suite.files[path]
        mutant = Mutant(operator, line, text[:start] + written + text[end:])
        tests = tuple(suite.tests_by_line[path, line][:_MOST_TESTS])
        found.append(_Candidate(path, function, mutant, tests))
    return found


def _row(suite: Suite, candidate: _Candidate) -> tuple[str, str, str, int, int, int, str]:
    """A candidate as plain data: of its text only what differs from the library's."""
    whole, text = suite.files[candidate.path], candidate.mutant.text
    start = _common(whole, text)
    most = min(len(whole), len(text)) - start
    same = min(most, _common(whole[::-1], text[::-1]))
    written = text[start : len(text) - same]
    mutant = candidate.mutant
    return candidate.path, candidate.function, mutant.operator, mutant.line, start, len(whole) - same, written


def _common(one: str, two: str) -> int:
    """How many characters both begin with; by halves, for the texts are long and nearly the same."""
    low, high = 0, min(len(one), len(two))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == two[:middle] else (low, middle - 1)
    return low


def _drawn(suite: Suite, seed: int, most: int) -> list[_Candidate]:
    functions = [
        (path, *function)
        for path, lines in suite.executed.items()
        for function in _functions(suite.files[path])
        # The line of `def` is executed at import, whatever the tests do.
        if lines & set(range(function[1] + 1, function[2] + 1))
    ]
    random.Random(f"{seed}:{suite.library.name}").shuffle(functions)
    functions = functions[: 2 * most + 4]
    each = min(_CANDIDATES_PER_FUNCTION, -(-2 * most // max(1, len(functions))) + 1)
    sources = {path: Source(suite.files[path]) for path in sorted({function[0] for function in functions})}
    rows: list[list[_Candidate]] = []
    for done, (path, name, first, last) in enumerate(functions):
        suite.report(f"{suite.library.name}: writing bugs", done + 1, len(functions))
        rng = random.Random(f"{seed}:{suite.library.name}:{path}:{name}")
        lines = suite.executed[path] & set(range(first + 1, last + 1))
        drawn = sampled_mutants(sources[path], each, rng, lines=lines)
        found = [(mutant, tuple(suite.tests_by_line.get((path, mutant.line), ())[:_MOST_TESTS])) for mutant in drawn]
        rows.append([_Candidate(path, name, mutant, needed) for mutant, needed in found if needed])
    return [candidate for turn in zip_longest(*rows) for candidate in turn if candidate is not None]


def _functions(text: str) -> list[tuple[str, int, int]]:
    """Qualified name, line of `def` and last line of the module's functions and its classes' methods."""
    return [(name, one.lineno, one.end_lineno or one.lineno) for name, one in outer_functions(ast.parse(text))]


def _combined(suite: Suite, bugs: Sequence[_Bug], seed: int, most: int) -> list[Task]:
    """Tasks with two kept bugs in two files, each of which alone fails a test that fails with both.

    Both problems are of one split. What is left when one bug is mended is a tree that was run already, and fails.
    """
    pairs = _pairs(bugs, random.Random(f"{seed}:{suite.library.name}:combined"), 2 * most)
    runs = [Run(files=_texts(pair), tests=_tests_of_both(pair)) for pair in pairs]
    tasks: list[Task] = []
    for pair, run, found in zip(pairs, runs, suite.run(runs, f"{suite.library.name}: combining bugs"), strict=True):
        assert run.tests is not None
        failing, passing = _ends(run.tests, found)
        if len(failing) + len(passing) == len(run.tests) and all(set(failing) & set(bug.failing) for bug in pair):
            tasks.append(_task(suite, pair, failing, passing, seed))
    return tasks[:most]


def _pairs(bugs: Sequence[_Bug], rng: random.Random, most: int) -> list[tuple[_Bug, _Bug]]:
    """Pairs of bugs in two files of one split; every bug is in one pair at most."""
    pairs: list[tuple[_Bug, _Bug]] = []
    for split in Split:
        waiting = [bug for bug in bugs if split_of(bug.problem) is split]
        rng.shuffle(waiting)
        while waiting:
            one = waiting.pop()
            other = next((bug for bug in waiting if bug.candidate.path != one.candidate.path), None)
            if other is not None:
                waiting.remove(other)
                first, second = sorted((one, other), key=lambda bug: bug.candidate.path)
                pairs.append((first, second))
    rng.shuffle(pairs)
    return pairs[:most]


def _tests_of_both(pair: Sequence[_Bug]) -> tuple[str, ...]:
    """Tests of both bugs, the failing ones first, in turns, as many as one bug has."""
    turns = [test for row in zip_longest(*(bug.failing for bug in pair)) for test in row if test is not None]
    turns += [test for row in zip_longest(*(bug.passing for bug in pair)) for test in row if test is not None]
    return tuple(dict.fromkeys(turns))[:_MOST_TESTS]


def _texts(bugs: Sequence[_Bug]) -> dict[str, str | None]:
    return {bug.candidate.path: bug.candidate.mutant.text for bug in bugs}


def _sample(suite: Suite, bugs: Sequence[_Bug], seed: int) -> WholeSuite:
    """The whole suite on one bug in twenty: what the selection of tests misses."""
    if not bugs:
        return WholeSuite()
    rng = random.Random(f"{seed}:{suite.library.name}:whole")
    chosen = rng.sample(list(bugs), max(1, round(len(bugs) * _WHOLE_SUITE_SHARE)))
    runs = [Run(files=_texts([bug]), cpu_seconds=_WHOLE_SUITE_SECONDS) for bug in chosen]
    count = more = failing = missed = 0
    for bug, found in zip(chosen, suite.run(runs, f"{suite.library.name}: whole suites on a sample"), strict=True):
        if found.ended:
            failed = {test for test in suite.lines if not found.passed(test)}
            beyond = failed - set(bug.candidate.tests)
            count, more = count + 1, more + bool(beyond)
            failing, missed = failing + len(failed), missed + len(beyond)
    return WholeSuite(count, more, failing, missed)


def _joined(parts: Iterable[WholeSuite]) -> WholeSuite:
    found = list(parts)
    return WholeSuite(
        sum(part.bugs for part in found),
        sum(part.bugs_with_more for part in found),
        sum(part.failing for part in found),
        sum(part.missed for part in found),
    )


def _single(suite: Suite, bug: _Bug, seed: int) -> Task:
    return _task(suite, (bug,), bug.failing, bug.passing, seed)


def _task(suite: Suite, bugs: Sequence[_Bug], failing: tuple[str, ...], passing: tuple[str, ...], seed: int) -> Task:
    library = suite.library
    before = {bug.candidate.path: bug.candidate.mutant.text for bug in bugs}
    after = {path: suite.files[path] for path in before}
    problem = "+".join(bug.problem for bug in bugs)
    operators = "+".join(bug.candidate.mutant.operator for bug in bugs)
    return Task(
        task_id=f"libraries-bugs/{problem}/{operators}/{_short_digest(*before.values())}",
        kind=Kind.REPAIR,
        files=StoredTree(store_tree(suite.files), before),
        description=f"These tests of {library.name} fail:\n{names_of(failing)}",
        hints=Hints(
            suspicious_lines=_suspicious(suite, before, bugs, failing),
            exact_lines=exact_lines(before, after),
        ),
        oracle=after,
        tests=RepositoryTests(fail_to_pass=failing, pass_to_pass=passing, source_roots=library.source_roots),
        split=split_of(bugs[0].problem),
        problem=problem,
        origin=Origin(
            source=library.name,
            version=library.version,
            detail={
                "operator": operators,
                "line": [bug.candidate.mutant.line for bug in bugs] if len(bugs) > 1 else bugs[0].candidate.mutant.line,
                "seed": seed,
            },
        ),
        licence=library.licence,
    )


def names_of(tests: Sequence[str]) -> str:
    """The first three tests, as a description lists them."""
    return "\n".join(f"- {test}" for test in tests[:3]) + ("\n- ..." if len(tests) > 3 else "")


def _suspicious(
    suite: Suite, before: Mapping[str, str], bugs: Sequence[_Bug], failing: Sequence[str]
) -> tuple[Line, ...]:
    """By Ochiai over what all tests execute in the correct library: the bug itself may lead them elsewhere.

    Tests that were not selected count as passing: they do not execute the bug's line, or were too many. Lines are told
    by their numbers in the faulty file, which has the same lines but where one was dropped.
    """
    counts: dict[tuple[str, int], int] = {}
    for test in failing:
        for path, numbers in suite.lines[test].items():
            for number in numbers:
                counts[path, number] = counts.get((path, number), 0) + 1
    places = sorted(counts)
    spectrum = [
        (number, counts[line], len(suite.tests_by_line[line]) - counts[line]) for number, line in enumerate(places)
    ]
    ranked = ranked_lines(spectrum, len(failing))
    faults = {bug.candidate.path: bug.candidate.mutant.line for bug in bugs}
    found: list[Line] = []
    for path, number in (places[index] for index in ranked[:3]):
        lines = lines_of(before.get(path, suite.files[path]))
        shift = len(lines) - len(lines_of(suite.files[path]))
        moved = number + shift if path in faults and number > faults[path] else number
        if 1 <= moved <= len(lines):
            found.append(Line(path=path, number=moved, text=lines[moved - 1]))
    return tuple(found)


def _short_digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:8]
