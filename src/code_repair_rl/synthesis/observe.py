"""Run problems and their mutants in the sandbox and read what was observed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from code_repair_rl.errors import MachineryFailed
from code_repair_rl.sandbox import GIB, MIB, Cause, Job, Limits, Sandbox
from code_repair_rl.synthesis.examples import arguments_of
from code_repair_rl.synthesis.problems import Problem
from code_repair_rl.tasks import Example

LIMITS = Limits(
    wall_seconds=300.0,
    cpu_seconds=120,
    memory_bytes=2 * GIB,
    processes=24,
    disk_bytes=64 * MIB,
    file_bytes=32 * MIB,
    output_bytes=MIB,
)
"""Of one job with a handful of problems. Each mutant has much closer limits of its own inside."""

PASSED, WRONG, RAISED, RAN_AWAY = "pwrt"
"""The letters of `probe.run`."""

_HASH_SEEDS = ("0", "1")
"""What depends on the order of sets is found by running under two hash seeds."""

_START = "import sys; sys.path.insert(0, ''); from probe.run import main; main()"
_PROBE_FILES = ("__init__.py", "children.py", "inputs.py", "run.py", "spectra.py", "suite.py")


@dataclass(frozen=True, slots=True)
class ObservedMutant:
    """What the tests said about one mutant."""

    check: str
    """One letter for each test of the check."""
    visible: str
    hidden: str
    """One letter for each example of `Observation.hidden`."""
    got: tuple[str, ...]
    """What it gave for each visible example: `returns 3`, `raises ValueError: ...`."""
    spectrum: tuple[tuple[int, int, int], ...]
    """For each executed line: its number, how many failing and how many passing tests execute it."""

    @property
    def letters(self) -> str:
        """All tests' letters."""
        return self.check + self.visible + self.hidden


@dataclass(frozen=True, slots=True)
class Observation:
    """What was found out about one problem."""

    problem: Problem
    error: str | None = None
    """Why the problem cannot be used; everything else is empty then."""
    visible: tuple[Example, ...] = ()
    """The examples of the description that the reference fulfils."""
    hidden: tuple[Example, ...] = ()
    """New examples made by running the reference."""
    executed_lines: int = 0
    """Lines that the reference executes over all tests."""
    mutants: tuple[ObservedMutant | None, ...] = ()
    """In the order of the sources given; None for one that no test fails, that never got as far as a test, that
    runs away in one of them, or whose result depends on the order of a set."""


def observe(
    work: Sequence[tuple[Problem, Sequence[str]]],
    sandbox: Sandbox,
    *,
    seed: int,
    new_examples: int,
    workers: int,
    batch: int = 4,
    on_done: Callable[[int], None] = lambda _: None,
) -> list[Observation]:
    """Run every problem with its mutants' sources; in the order of `work`.

    Args:
        work: problems, each with the sources of its mutants.
        sandbox: where it runs.
        seed: for the new examples, and for `random` in the checks.
        new_examples: how many new examples to try to make for each problem.
        workers: jobs at once.
        batch: problems in one job.
        on_done: told how many problems a finished job had.

    Raises:
        MachineryFailed: the sandbox could not run a job to its end.
    """
    jobs = [[_as_json(*item, seed=seed, inputs=new_examples) for item in part] for part in _parts(work, batch)]
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(_findings, sandbox, problems) for problems in jobs]
        for done in _as_completed(futures):
            on_done(len(done.result()))
    found = [finding for future in futures for finding in future.result()]
    return [_observation(problem, *twice) for (problem, _), twice in zip(work, found, strict=True)]


def _as_completed(futures: Iterable[Future[Any]]) -> Iterator[Future[Any]]:
    """Futures as they end; the first that failed ends all others that have not begun."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            if future.exception() is not None:
                for other in waiting:
                    other.cancel()
            yield future


def _parts(work: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [work[start : start + size] for start in range(0, len(work), size)]


def _as_json(problem: Problem, sources: Sequence[str], *, seed: int, inputs: int) -> dict[str, Any]:
    claimed = [(arguments_of(example.call), example.expected) for example in problem.visible]
    return {
        "reference": problem.solution,
        "mutants": list(sources),
        "entry_point": problem.entry_point,
        "check": problem.check,
        "visible": [(repr(arguments), expected) for arguments, expected in claimed if arguments is not None],
        "seed": seed,
        "inputs": inputs,
        "watched": True,
    }


def _findings(sandbox: Sandbox, problems: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """For each problem what was found under the one and the other hash seed."""
    first = _run(sandbox, problems, _HASH_SEEDS[0])
    ended = [[_ended(mutant) for mutant in found.get("mutants", [])] for found in first]
    again = [
        # What ended the first time is run once more, unwatched: it is fast, and there is nothing to stop.
        {
            **problem,
            "mutants": [text for text, keep in zip(problem["mutants"], kept, strict=False) if keep],
            "watched": False,
        }
        for problem, kept in zip(problems, ended, strict=True)
    ]
    second = _run(sandbox, again, _HASH_SEEDS[1])
    for found, kept in zip(second, ended, strict=True):
        if "mutants" in found:
            rest = iter(found["mutants"])
            found["mutants"] = [next(rest) if keep else {} for keep in kept]
    return list(zip(first, second, strict=True))


def _ended(mutant: dict[str, Any]) -> bool:
    """Whether a mutant came to the end of all tests, and failed one."""
    letters = mutant.get("letters", "")
    return RAN_AWAY not in letters and bool(set(letters) - {PASSED})


def _run(sandbox: Sandbox, problems: list[dict[str, Any]], hash_seed: str) -> list[dict[str, Any]]:
    job = Job(
        argv=("python", "-c", _START),
        files={**probe_files(), "problems.json": json.dumps(problems)},
        environment={"PYTHONHASHSEED": hash_seed, "PYTHONDONTWRITEBYTECODE": "1"},
        collect=("findings.json",),
        limits=LIMITS,
    )
    result = sandbox.run(job)
    content = result.files.get("findings.json")
    if not result.ok or content is None:
        detail = result.error if result.cause is Cause.INFRASTRUCTURE else result.stderr.decode(errors="replace")[-500:]
        raise MachineryFailed(
            f"a job that runs problems with their mutants ended with {result.cause}: {detail.strip()}",
            mend="run the same command again; if it stays, see what `crrl doctor` says about the sandbox",
        )
    findings: list[dict[str, Any]] = json.loads(content)
    return findings


@cache
def probe_files() -> dict[str, str]:
    """The programs that run inside, as files of a job."""
    folder = resources.files("code_repair_rl.synthesis") / "probe"
    return {f"probe/{name}": (folder / name).read_text() for name in _PROBE_FILES}


def _observation(problem: Problem, one: dict[str, Any], two: dict[str, Any]) -> Observation:
    """Join both runs: only what they agree on counts."""
    error = one.get("error") or two.get("error")
    if error:
        return Observation(problem, error=error)
    visible, from_visible = _agreed(one["visible"], two["visible"])
    hidden, from_hidden = _agreed(one["hidden"], two["hidden"])
    counts = (one["units"], len(one["visible"]), len(two["visible"]))
    mutants = tuple(
        _agreed_mutant(first, second, counts, from_visible, from_hidden)
        for first, second in zip(one["mutants"], two["mutants"], strict=True)
    )
    return Observation(
        problem,
        visible=tuple(_example(problem, pair) for pair in visible),
        hidden=tuple(_example(problem, pair) for pair in hidden),
        executed_lines=one["lines"],
        mutants=mutants,
    )


def _agreed(one: list[list[str]], two: list[list[str]]) -> tuple[list[list[str]], list[tuple[int, int]]]:
    """The examples found in both runs, and where each stands in the one and in the other."""
    places = {tuple(pair): place for place, pair in enumerate(two)}
    both = [(place, places[tuple(pair)]) for place, pair in enumerate(one) if tuple(pair) in places]
    return [one[first] for first, _ in both], both


def _agreed_mutant(
    one: dict[str, Any],
    two: dict[str, Any],
    counts: tuple[int, int, int],
    from_visible: list[tuple[int, int]],
    from_hidden: list[tuple[int, int]],
) -> ObservedMutant | None:
    first, second = one.get("letters", ""), two.get("letters", "")
    units, visible_one, visible_two = counts
    if min(len(first), len(second)) <= units or RAN_AWAY in first + second:
        # Nothing to tell, or a mutant that runs away somewhere: it would cost its time-out in every grading.
        return None
    check = first[:units]
    visible = [(first[units + a], second[units + b]) for a, b in from_visible]
    hidden = [(first[units + visible_one + a], second[units + visible_two + b]) for a, b in from_hidden]
    if check != second[:units] or any(a != b for a, b in visible + hidden):
        return None
    return ObservedMutant(
        check=check,
        visible="".join(a for a, _ in visible),
        hidden="".join(a for a, _ in hidden),
        got=tuple(one["got"][a] for a, _ in from_visible),
        spectrum=tuple((int(line), failed, passed) for line, (failed, passed) in one["spectrum"].items()),
    )


def _example(problem: Problem, pair: list[str]) -> Example:
    arguments, expected = pair
    # `(1,)` and `(1, 2)` are how a tuple of arguments writes itself; a call has no comma at the end.
    inside = arguments[1:-1].removesuffix(",")
    return Example(call=f"{problem.entry_point}({inside})", expected=expected)
