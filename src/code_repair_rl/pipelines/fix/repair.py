"""The search for a repair: sample answers with one suspicious place after the other, test each distinct result."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

from code_repair_rl.edits import EditError, Tolerance, parse
from code_repair_rl.pipelines.fix.regions import Region, region_around
from code_repair_rl.pipelines.fix.suspects import Suspect
from code_repair_rl.rollouts import Engine, Sampling
from code_repair_rl.sandbox import Cause, JobResult
from code_repair_rl.tasks import HintLevel, Hints, Kind, Line, Origin, Split, Task
from code_repair_rl.tasks.prompts import messages

_BATCH = 32
"""Completions sampled at once: small enough to stop early, large enough to keep a processor busy."""
_MOST_PER_PLACE = 8
"""Completions for one place before the next one has its turn; after the last the first comes again."""
_LEAST_SECONDS = 10.0
"""Every test run gets this and five times what the failing one took: a busy machine must not lose a repair."""
_UNTOLD = "Make the failing tests pass."


class Runs(Protocol):
    """What runs the deciding command for changed files: `Project`."""

    def run(self, changed: Mapping[str, str], *, wall_seconds: float) -> JobResult:
        """Run it with `changed` (path to text) laid over the project."""
        ...


@dataclass(frozen=True, slots=True)
class Search:
    """How to look for a repair."""

    samples: int = 96
    """Completions in all."""
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.8))
    description: str = ""
    """What the code should do. Where it is empty, a function's docstring says it."""
    wall_seconds: float = 60.0
    """Limit for one run of the tests."""


@dataclass(slots=True)
class Tally:
    """What became of the answers, counted."""

    sampled: int = 0
    unreadable: int = 0
    """No edit in it, or not one that fits the code."""
    unchanged: int = 0
    """An edit that changes nothing."""
    invalid: int = 0
    """The edited file is no longer Python."""
    repeated: int = 0
    """The same result as an earlier answer."""
    tested: int = 0
    timed_out: int = 0
    """Of those tested, how many the time limit ended."""


@dataclass(frozen=True, slots=True)
class Found:
    """A repair that passed the tests, twice."""

    path: str
    before: str
    after: str
    suspect: Suspect
    test_seconds: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer, applied."""

    suspect: Suspect
    after: str


def repair(
    project: Runs,
    engine: Engine,
    sources: Mapping[str, str],
    suspects: Sequence[Suspect],
    search: Search,
    *,
    failing_seconds: float,
    tell: Callable[[Tally], None] = lambda tally: None,
) -> tuple[Found | None, Tally]:
    """Look for an edit of one place with which the project's command succeeds.

    Args:
        project: where the command runs.
        engine: samples the answers.
        sources: path to text (lines ending with a line feed) of the files that may be repaired.
        suspects: places to try in turn, best first; not empty.
        search: how long and how wide to look.
        failing_seconds: how long the command took on the untouched project; limits are relative to it.
        tell: told the running tally after every batch and every test run.

    Returns:
        The first repair that passed, or None; and the tally.

    Raises:
        MachineryFailed: the sandbox failed.
    """
    tally = Tally()
    seen: set[tuple[str, str]] = set()
    limit = min(search.wall_seconds, _LEAST_SECONDS + 5.0 * failing_seconds)
    for number, batch in enumerate(_batches(suspects, search.samples)):
        sampling = replace(search.sampling, seed=search.sampling.seed + number)
        candidates = []
        for suspect, text in _answers(engine, sources, batch, search.description, sampling):
            tally.sampled += 1
            if candidate := _applied(sources, suspect, text, seen, tally):
                candidates.append(candidate)
        tell(tally)
        if found := _first_passing(project, sources, candidates, limit, tally, tell):
            return found, tally
    return None, tally


def _batches(suspects: Sequence[Suspect], samples: int) -> Iterator[list[tuple[Suspect, int]]]:
    """Places with how many completions each gets, a batch at a time, round and round until all samples are spent."""
    each = max(1, min(_MOST_PER_PLACE, samples // len(suspects)))
    left = samples
    turn = _round_and_round(suspects)
    while left > 0:
        each = min(each, left)
        batch = [(suspect, each) for suspect in islice(turn, max(1, min(_BATCH, left) // each))]
        left -= each * len(batch)
        yield batch


def _round_and_round(suspects: Sequence[Suspect]) -> Iterator[Suspect]:
    while True:
        yield from suspects


def _answers(
    engine: Engine, sources: Mapping[str, str], batch: list[tuple[Suspect, int]], description: str, sampling: Sampling
) -> Iterator[tuple[Suspect, str]]:
    each = batch[0][1]
    prompts = [engine.encode(messages(question(sources, s, description), HintLevel.SUSPICIOUS_LINES)) for s, _ in batch]
    groups = engine.generate(prompts, completions_per_prompt=each, sampling=sampling)
    for (suspect, _), group in zip(batch, groups, strict=True):
        for completion in group:
            yield suspect, completion.text


def question(sources: Mapping[str, str], suspect: Suspect, description: str = "") -> Task:
    """What a model is asked about one place: the function around it, in the form that models are trained on here.

    The function's docstring becomes the description, and leaves the code, unless a description is given.
    """
    region = _region(sources, suspect)
    lines = tuple(
        Line(path=suspect.path, number=number, text=region.line(number))
        for number in suspect.numbers
        if region.first <= number <= region.last
    )
    return Task(
        task_id=f"fix/{suspect.path}:{suspect.numbers[0]}",
        kind=Kind.REPAIR,
        files={suspect.path: region.shown(with_docstring=bool(description))},
        description=description or region.docstring or _UNTOLD,
        hints=Hints(suspicious_lines=lines, exact_lines=lines),
        oracle={},
        split=Split.TEST,
        problem=suspect.path,
        origin=Origin(source="crrl fix"),
        licence="NOASSERTION",
    )


def _region(sources: Mapping[str, str], suspect: Suspect) -> Region:
    return region_around(suspect.path, sources[suspect.path], suspect.numbers[0])


def _applied(
    sources: Mapping[str, str], suspect: Suspect, text: str, seen: set[tuple[str, str]], tally: Tally
) -> Candidate | None:
    """The answer applied to the whole file, or None where there is nothing new to test."""
    source, region = sources[suspect.path], _region(sources, suspect)
    try:
        edited = parse(text).apply({suspect.path: region.text}, tolerance=Tolerance.INDENTATION)
        after = region.put_back(source, edited[suspect.path])
    except (EditError, KeyError):  # KeyError: the answer deletes or renames the file
        tally.unreadable += 1
        return None
    if set(edited) != {suspect.path}:
        tally.unreadable += 1
    elif after == source:
        tally.unchanged += 1
    elif (suspect.path, after) in seen:
        tally.repeated += 1
    elif not _is_valid(suspect.path, after):
        seen.add((suspect.path, after))
        tally.invalid += 1
    else:
        seen.add((suspect.path, after))
        return Candidate(suspect, after)
    return None


def _is_valid(path: str, text: str) -> bool:
    """Whether it parses, so that no test run is spent on what cannot work. Parsing executes nothing."""
    if not path.endswith(".py"):
        return True
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _first_passing(
    project: Runs,
    sources: Mapping[str, str],
    candidates: list[Candidate],
    limit: float,
    tally: Tally,
    tell: Callable[[Tally], None],
) -> Found | None:
    """Test candidates as wide as the machine is, in their order, until one passes; a pass has to repeat itself."""
    width = max(1, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(width) as pool:
        for start in range(0, len(candidates), width):
            some = candidates[start : start + width]
            results = list(pool.map(lambda one: project.run({one.suspect.path: one.after}, wall_seconds=limit), some))
            tally.tested += len(some)
            tally.timed_out += sum(result.cause is Cause.TIMEOUT for result in results)
            tell(tally)
            for candidate, result in zip(some, results, strict=True):
                path = candidate.suspect.path
                if result.ok and project.run({path: candidate.after}, wall_seconds=limit).ok:
                    return Found(path, sources[path], candidate.after, candidate.suspect, result.wall_seconds)
    return None
