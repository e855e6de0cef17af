"""Repair tasks out of problems: write bugs, keep those that tests catch, say where they are and how they show."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from code_repair_rl.sandbox import Sandbox
from code_repair_rl.synthesis.localisation import ranked_lines
from code_repair_rl.synthesis.mutation import Mutant, sampled_mutants
from code_repair_rl.synthesis.observe import PASSED, WRONG, Observation, ObservedMutant, observe
from code_repair_rl.synthesis.problems import SOLUTION_PATH, Problem
from code_repair_rl.tasks import (
    Example,
    FunctionTests,
    Hints,
    Kind,
    Line,
    Origin,
    Task,
    faulty_lines,
    split_of,
)

_SUSPICIOUS_LINES = 3
"""As many as a prompt can show without showing most of a short function."""

_FAILING_CALL_LENGTH = 200
"""Longest sentence, in characters, that is of use as a hint."""

_SECONDS_PER_LINE = 1e-6
"""A generous price of one executed line (CPython takes some 50 to 200 ns), to turn the reference's lines into a time
that is the same on every machine."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How bugs are made of problems."""

    seed: int = 0
    bugs_per_problem: int = 10
    """At most."""
    candidates_per_problem: int = 14
    """Mutants that are run to find them."""
    new_examples: int = 24
    """New calls that are tried to tell mutants from the reference."""
    hidden_examples: int = 8
    """Of those, at most that many become hidden tests."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the problems come from, as tasks carry it."""

    name: str
    version: str
    licence: str
    task_prefix: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """A problem of which no task was made, and why."""

    problem: str
    reason: str


def bugs_in(
    problems: Sequence[Problem],
    source: Source,
    sandbox: Sandbox,
    recipe: Recipe = Recipe(),
    *,
    workers: int | None = None,
    on_done: Callable[[int], None] = lambda _: None,
) -> tuple[list[Task], list[Unusable]]:
    """Repair tasks with one bug each, at most `recipe.bugs_per_problem` of a problem.

    The first tasks cover as many problems as possible: the first of every problem come before the second of any.
    The same problems and recipe give the same tasks.

    Args:
        problems: what the bugs are written into.
        source: what the tasks say of their origin.
        sandbox: where references and mutants run.
        recipe: how many, and the seed.
        workers: jobs at once; as many as processors by default.
        on_done: told how many more problems are done.

    Raises:
        MachineryFailed: the sandbox could not run a job to its end.
    """
    candidates = [_candidates(problem, recipe) for problem in problems]
    observations = observe(
        [(problem, [mutant.text for mutant in drawn]) for problem, drawn in zip(problems, candidates, strict=True)],
        sandbox,
        seed=recipe.seed,
        new_examples=recipe.new_examples,
        workers=workers or os.cpu_count() or 1,
        on_done=on_done,
    )
    tasks: list[list[Task]] = []
    unusable: list[Unusable] = []
    for observation, drawn in zip(observations, candidates, strict=True):
        made = [] if observation.error else _tasks_of(observation, drawn, source, recipe)
        tasks.append(made)
        if not made:
            unusable.append(Unusable(observation.problem.name, observation.error or "the tests catch no mutant"))
    return [task for row in zip_longest(*tasks) for task in row if task is not None], unusable


def _candidates(problem: Problem, recipe: Recipe) -> list[Mutant]:
    rng = random.Random(f"{recipe.seed}:{problem.name}")
    return sampled_mutants(problem.solution, recipe.candidates_per_problem, rng)


def _tasks_of(observation: Observation, drawn: Sequence[Mutant], source: Source, recipe: Recipe) -> list[Task]:
    caught = [
        (mutant, observed)
        for mutant, observed in zip(drawn, observation.mutants, strict=True)
        # What only a visible example catches could be passed by writing the expected value into the answer.
        if observed is not None and _fails(observed.check + observed.hidden)
    ]
    # Bugs that give a wrong result first: what only raises is mostly easier to find, and rarer in code that was run.
    caught.sort(key=lambda pair: WRONG not in pair[1].letters)
    kept = caught[: recipe.bugs_per_problem]
    hidden = _chosen(observation.hidden, [observed for _, observed in kept], recipe.hidden_examples)
    tests = FunctionTests(
        path=SOLUTION_PATH,
        entry_point=observation.problem.entry_point,
        check=observation.problem.check,
        visible=observation.visible,
        hidden=tuple(observation.hidden[place] for place in hidden),
        seed=recipe.seed,
        reference_seconds=round(observation.executed_lines * _SECONDS_PER_LINE, 6),
    )
    still_caught = [
        (mutant, observed)
        for mutant, observed in kept
        if _fails(observed.check + "".join(observed.hidden[place] for place in hidden))
    ]
    return [_task(observation, mutant, observed, tests, source, recipe) for mutant, observed in still_caught]


def _fails(letters: str) -> bool:
    return any(letter != PASSED for letter in letters)


def _chosen(examples: Sequence[Example], mutants: Sequence[ObservedMutant], most: int) -> list[int]:
    """Places of the examples that become hidden tests: first those that catch what no other test catches.

    Greedy: always the example that catches most of the mutants caught least so far.
    """
    times_caught = [0 for _ in mutants]
    left = list(range(len(examples)))
    chosen: list[int] = []
    while left and len(chosen) < most:

        def worth(place: int) -> float:
            catches = (place_in.hidden[place] != PASSED for place_in in mutants)
            return sum(0.5**times for caught, times in zip(catches, times_caught, strict=True) if caught)

        best = max(left, key=lambda place: (worth(place), -place))
        left.remove(best)
        chosen.append(best)
        for number, mutant in enumerate(mutants):
            times_caught[number] += mutant.hidden[best] != PASSED
    return sorted(chosen)


def _task(
    observation: Observation,
    mutant: Mutant,
    observed: ObservedMutant,
    tests: FunctionTests,
    source: Source,
    recipe: Recipe,
) -> Task:
    problem = observation.problem
    digest = hashlib.sha256(mutant.text.encode()).hexdigest()[:8]
    return Task(
        task_id=f"{source.task_prefix}/{problem.name.rpartition('/')[2]}/{mutant.operator}/{digest}",
        kind=Kind.REPAIR,
        files={SOLUTION_PATH: mutant.text},
        description=problem.description,
        hints=_hints(observation, mutant, observed),
        oracle={SOLUTION_PATH: problem.solution},
        tests=tests,
        split=split_of(problem.name),
        problem=problem.name,
        origin=Origin(
            source=source.name,
            version=source.version,
            detail={
                "operator": mutant.operator,
                "line": mutant.line,
                "seed": recipe.seed,
                "raises_only": WRONG not in observed.letters,
            },
        ),
        licence=source.licence,
    )


def _hints(observation: Observation, mutant: Mutant, observed: ObservedMutant) -> Hints:
    texts = mutant.text.split("\n")
    failing = sum(letter != PASSED for letter in observed.letters)
    suspicious = ranked_lines(observed.spectrum, failing)[:_SUSPICIOUS_LINES]
    exact = faulty_lines(mutant.text, observation.problem.solution)

    def line(number: int) -> Line:
        return Line(path=SOLUTION_PATH, number=number, text=texts[number - 1])

    return Hints(
        failing_call=_failing_call(observation.visible, observed),
        suspicious_lines=tuple(line(number) for number in suspicious),
        exact_lines=tuple(line(number) for number in exact),
    )


def _failing_call(visible: Sequence[Example], observed: ObservedMutant) -> str | None:
    for example, letter, got in zip(visible, observed.visible, observed.got, strict=True):
        text = f"{example.call} {got}, expected {example.expected}"
        if letter != PASSED and len(text) <= _FAILING_CALL_LENGTH and "\n" not in text:
            return text
    return None
