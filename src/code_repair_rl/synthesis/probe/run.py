"""The program inside the sandbox: problems in, what every test said about every mutant out, as JSON.

For each problem, a forked child observes the reference solution: it runs the check with a recorder for arguments,
makes new inputs from them and notes what the reference returns. Then one forked child per mutant runs all tests.
"""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .children import Send, in_child
from .inputs import is_plain, is_short, variations
from .spectra import SOLUTION, LineCounter

PASSED, WRONG, RAISED, RAN_AWAY = "pwrt"
"""How one test ended, one letter each: passed, wrong result, exception, used up its lines or its time."""

_LINES_FLOOR = 20_000
_LINES_FACTOR = 5
"""A mutant may execute this many times the reference's lines, and never less than the floor."""

_REFERENCE_LINES = 300_000
"""A problem whose tests take more would make every grading of an answer slow."""

_CPU_SECONDS = 4.0
_WALL_SECONDS = 20.0
"""Backstops for what the line count cannot see: long single calls into C, and sleeping."""


def main() -> None:
    """Read `problems.json`, write `findings.json`, both in the working folder."""
    with open("problems.json", encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs start-up time in the jail
        problems = json.load(file)
    findings = [observed(problem) for problem in problems]
    with open("findings.json", "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump(findings, file)


def observed(problem: dict[str, Any]) -> dict[str, Any]:
    """What was found out about one problem.

    Args:
        problem: `reference`, `mutants` (sources), `entry_point`, `check` (source), `visible` (pairs of arguments and
            expected value, both as source), `seed`, `inputs` (how many new ones to make), `watched` (whether mutants'
            lines are counted).

    Returns:
        `error` where the reference does not do what its check wants; else `units` (number of tests in the check),
        `lines` (executed by the reference over all tests), `visible` and `hidden` (pairs as above that the reference
        fulfils), and `mutants`: for each the letters of its tests (check, visible, hidden, in this order), `spectrum`
        (line to number of failing and of passing tests that execute it), and `got` (what it gave for each visible
        example, as text).
    """
    reference = _in_child(partial(_reference, problem))
    if "error" in reference or not reference:
        return {"error": reference.get("error", "the reference solution did not end in time")}
    tests = {**problem, "visible": reference["visible"], "hidden": reference["hidden"]}
    most = _LINES_FLOOR + _LINES_FACTOR * reference["lines"]
    again = _in_child(partial(_mutant, tests, problem["reference"], most))
    count = reference["units"] + len(reference["visible"]) + len(reference["hidden"])
    if again.get("letters") != PASSED * count:
        return {"error": "the reference solution does not pass its own tests twice"}
    mutants = [_in_child(partial(_mutant, tests, text, most)) for text in problem["mutants"]]
    return {**reference, "mutants": mutants}


def _in_child(work: Callable[[Send], None]) -> dict[str, Any]:
    return in_child(work, cpu_seconds=_CPU_SECONDS, wall_seconds=_WALL_SECONDS)


def _reference(problem: dict[str, Any], send: Send) -> None:
    counter = LineCounter(_REFERENCE_LINES, lambda: send({"error": "the reference solution runs too long"}))
    try:
        function = _loaded(problem["reference"], problem["entry_point"])
        seen: list[tuple[Any, ...]] = []
        units = _units(problem["check"], problem["seed"])
        recorder = _recording(function, seen)
        for unit in units:
            counter.call(partial(unit, recorder))
    except BaseException as error:
        send({"error": f"the reference solution fails its check: {type(error).__name__}: {error}"})
        return
    visible = [pair for pair in problem["visible"] if _gives(function, pair, counter)]
    hidden = _new_examples(problem, function, seen, counter)
    send({"units": len(units), "lines": counter.executed, "visible": visible, "hidden": hidden})


def _new_examples(
    problem: dict[str, Any], function: Callable[..., Any], seen: list[tuple[Any, ...]], counter: LineCounter
) -> list[tuple[str, str]]:
    """New calls with what the reference gives for them: plain, short, no exception, twice the same."""
    rng = random.Random(problem["seed"])
    found = []
    usable = [arguments for arguments in seen if is_plain(arguments) and is_short(arguments)]
    for arguments in variations(usable[:60], rng, problem["inputs"]):
        source = repr(arguments)
        before = counter.executed
        try:
            results = [_called(function, source, counter) for _ in range(2)]
        except Exception:
            continue
        if not all(is_plain(result) and is_short(result) for result in results) or counter.executed - before > 50_000:
            continue
        if repr(results[0]) == repr(results[1]):
            found.append((source, repr(results[0])))
    return found


def _called(function: Callable[..., Any], arguments: str, counter: LineCounter) -> Any:
    values = ast.literal_eval(arguments)
    return counter.call(lambda: function(*values))


def _mutant(tests: dict[str, Any], text: str, most: int, send: Send) -> None:
    letters: list[str] = []
    got: list[str] = []
    covered: list[set[int]] = []

    def report(end: str = "") -> None:
        send({"letters": "".join(letters) + end, "spectrum": _spectrum(letters, covered), "got": got})

    counter = LineCounter(most, lambda: report(RAN_AWAY), watching=tests["watched"])
    try:
        function = _loaded(text, tests["entry_point"])
        units = _units(tests["check"], tests["seed"])
    except Exception:
        report(RAISED)
        return
    # Sent before anything runs, and read if the process is killed later: what was killed ran away.
    send({"letters": RAN_AWAY, "spectrum": {}, "got": []})
    for unit in units:
        counter.lines = set()
        letters.append(_letter(partial(counter.call, partial(unit, function)))[0])
        covered.append(counter.lines)
    for kind in ("visible", "hidden"):
        for arguments, expected in tests[kind]:
            counter.lines = set()
            letter, text = _example(function, arguments, expected, counter)
            letters.append(letter)
            covered.append(counter.lines)
            if kind == "visible":
                got.append(text)
    report()


def _letter(test: Callable[[], Any]) -> tuple[str, str]:
    try:
        test()
    except AssertionError:
        return WRONG, ""
    except Exception as error:
        return RAISED, _without_addresses(f"raises {type(error).__name__}: {error}")
    except BaseException as error:
        return RAISED, f"raises {type(error).__name__}"
    return PASSED, ""


def _without_addresses(text: str) -> str:
    """`<reversed object>` for `<reversed object at 0x7f5a41d03a00>`: an address differs every time."""
    return re.sub(r" (?:at|@) 0x[0-9a-f]+", "", text)


def _example(function: Callable[..., Any], arguments: str, expected: str, counter: LineCounter) -> tuple[str, str]:
    results: list[Any] = []
    _, text = _letter(lambda: results.append(_called(function, arguments, counter)))
    if not results:
        return RAISED, text
    try:
        same = bool(results[0] == ast.literal_eval(expected))
        return (PASSED if same else WRONG), _without_addresses(f"returns {results[0]!r}")
    except Exception as error:
        return WRONG, f"returns something that cannot be compared ({type(error).__name__})"


def _gives(function: Callable[..., Any], pair: Sequence[str], counter: LineCounter) -> bool:
    return _example(function, pair[0], pair[1], counter)[0] == PASSED


def _spectrum(letters: Sequence[str], covered: Sequence[set[int]]) -> dict[int, tuple[int, int]]:
    lines = sorted(set().union(*covered)) if covered else []
    tests = list(zip(letters, covered, strict=False))
    return {
        line: (
            sum(line in executed for letter, executed in tests if letter != PASSED),
            sum(line in executed for letter, executed in tests if letter == PASSED),
        )
        for line in lines
    }


def _loaded(text: str, entry_point: str) -> Callable[..., Any]:
    names: dict[str, Any] = {"__name__": "solution"}
    exec(compile(text, SOLUTION, "exec", dont_inherit=True), names)
    function: Callable[..., Any] = names[entry_point]
    return function


def _recording(function: Callable[..., Any], seen: list[tuple[Any, ...]]) -> Callable[..., Any]:
    def recorder(*arguments: Any, **named: Any) -> Any:
        if not named and is_plain(arguments):
            seen.append(ast.literal_eval(repr(arguments)))  # a copy: the function may change its arguments
        return function(*arguments, **named)

    return recorder


def _units(check: str, seed: int) -> list[Callable[[Callable[..., Any]], None]]:
    """The check cut into tests: each top-level assertion or loop of `check` is one; what is between is set-up.

    All run in one name space, in order, so that a later one finds the names that the set-up made.
    """
    tree = ast.parse(check)
    body = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check")
    names: dict[str, Any] = {"__name__": "check"}
    rest = [node for node in tree.body if node is not body]
    exec(compile(ast.Module(rest, type_ignores=[]), "<check>", "exec"), names)
    parameter = body.args.args[0].arg
    units: list[Callable[[Callable[..., Any]], None]] = []
    waiting: list[ast.stmt] = []

    def unit(statements: list[ast.stmt], first: bool) -> Callable[[Callable[..., Any]], None]:
        code = compile(ast.Module(statements, type_ignores=[]), "<check>", "exec")

        def run(candidate: Callable[..., Any]) -> None:
            if first:
                random.seed(seed)
            names[parameter] = candidate
            exec(code, names)

        return run

    for statement in body.body:
        waiting.append(statement)
        if isinstance(statement, ast.Assert | ast.For | ast.While):
            constant = isinstance(statement, ast.Assert) and isinstance(statement.test, ast.Constant)
            if not constant:
                units.append(unit(waiting, first=not units))
                waiting = []
    return units
