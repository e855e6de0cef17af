"""The task sets that can be built by name, and the building: made, checked, written whole."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.home import home, locked, write_atomically
from code_repair_rl.synthesis.bugs import Recipe, Source, Unusable, bugs_in
from code_repair_rl.synthesis.duplicates import without_near_duplicates
from code_repair_rl.synthesis.humaneval import LICENCE, PACKAGE, VERSION, humaneval_problems
from code_repair_rl.synthesis.journal import Journal, digest_of
from code_repair_rl.synthesis.validation import Quarantined, validate, write_quarantine
from code_repair_rl.tasks import Task, built_set, read_tasks, write_tasks

BUILDER_VERSION = "1"
"""Raise it whenever the same seed would give other tasks: sets built before are then built again."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a maker made, before it is validated."""

    tasks: list[Task]
    unusable: list[Unusable]
    """What could not be used, with its reason."""
    measures: Mapping[str, object] = field(default_factory=dict)
    """What was measured on the way, for the build's record."""


class Maker(Protocol):
    """Makes the tasks of one set, before they are validated."""

    def __call__(self, *, backend: str, seed: int, limit: int | None, workers: int, progress: Progress) -> Candidates:
        """The tasks in the order in which they are written."""
        ...


@dataclass(frozen=True, slots=True)
class SetInfo:
    """A set that `crrl tasks build` knows."""

    name: str
    summary: str
    licence: str
    make: Maker
    default_limit: int | None = None
    """Tasks that are built where no limit is given; None builds all there are."""
    version: str = "1"
    """Raise it whenever the same seed would give other tasks of this set alone."""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build came to."""

    name: str
    path: Path
    tasks: int
    quarantined: Mapping[str, int] = field(default_factory=dict)
    """Reason to number of tasks."""
    unusable: Mapping[str, str] = field(default_factory=dict)
    """Problem to reason."""
    measures: Mapping[str, object] = field(default_factory=dict)
    """What was measured on the way."""
    wall_seconds: float = 0.0
    was_there: bool = False
    """Whether the very same set had been built before, and nothing was done."""


def _humaneval_bugs(*, backend: str, seed: int, limit: int | None, workers: int, progress: Progress) -> Candidates:
    from code_repair_rl.sandbox import select_backend

    problems = humaneval_problems()
    recipe = Recipe(seed=seed)
    if limit is not None:
        # The first tasks of the set are one of each problem: more problems than tasks are never needed.
        problems = problems[: limit + limit // 8 + 1]
        bugs = min(recipe.bugs_per_problem, limit // len(problems) + 1)
        recipe = replace(recipe, bugs_per_problem=bugs, candidates_per_problem=bugs + 4)
    done = 0

    def on_done(more: int) -> None:
        nonlocal done
        done += more
        progress("writing bugs and running them", done, len(problems))

    progress("writing bugs and running them", 0, len(problems))
    source = Source(PACKAGE, VERSION, LICENCE, "humaneval-bugs")
    return Candidates(*bugs_in(problems, source, select_backend(backend), recipe, workers=workers, on_done=on_done))


def _libraries_bugs(*, backend: str, seed: int, limit: int | None, workers: int, progress: Progress) -> Candidates:
    from code_repair_rl.sandbox import select_backend
    from code_repair_rl.synthesis.libraries import library_bugs
    from code_repair_rl.synthesis.library import LIBRARIES

    made = library_bugs(LIBRARIES, select_backend(backend), seed=seed, limit=limit, workers=workers, progress=progress)
    measures = {"whole_suite": asdict(made.whole_suite)} if limit is None else {}
    return Candidates(made.tasks, made.unusable, measures=measures)


def _libraries_implement(*, backend: str, seed: int, limit: int | None, workers: int, progress: Progress) -> Candidates:
    from code_repair_rl.sandbox import select_backend
    from code_repair_rl.synthesis.implement import library_functions
    from code_repair_rl.synthesis.library import LIBRARIES

    made = library_functions(
        LIBRARIES, select_backend(backend), seed=seed, limit=limit, workers=workers, progress=progress
    )
    return Candidates(*made)


def _releases(*, backend: str, seed: int, limit: int | None, workers: int, progress: Progress) -> Candidates:
    from code_repair_rl.sandbox import select_backend
    from code_repair_rl.synthesis.release_pins import CHAINS
    from code_repair_rl.synthesis.releases import release_tasks

    return Candidates(*release_tasks(CHAINS, select_backend(backend), limit=limit, workers=workers, progress=progress))


def _bandit(*, backend: str, seed: int, limit: int | None, workers: int, progress: Progress) -> Candidates:
    from code_repair_rl.synthesis.bandit import LABELS_BY, bandit_reading
    from code_repair_rl.synthesis.vulnerabilities import classification_tasks
    from code_repair_rl.tasks.cwe import fetch_cwe_tree

    tree = fetch_cwe_tree()
    made = classification_tasks(bandit_reading(seed, progress), "bandit", tree=tree, labels_by=LABELS_BY)
    copies = [Unusable(one.task.task_id, one.reason) for one in made.quarantined]
    return Candidates(list(made.tasks), [*made.unusable, *copies])


SETS: Mapping[str, SetInfo] = {
    info.name: info
    for info in (
        SetInfo(
            "humaneval-bugs",
            "one-place bugs in the HumanEval reference solutions, with visible and hidden tests",
            LICENCE,
            _humaneval_bugs,
        ),
        SetInfo(
            "libraries-bugs",
            "bugs in real libraries, one or two in a task, with fail-to-pass and pass-to-pass tests of their own",
            "BSD-3-Clause, MIT",
            _libraries_bugs,
            default_limit=40,
            version="3",
        ),
        SetInfo(
            "libraries-implement",
            "functions of real libraries to be written back from their docstrings, with the library's own tests",
            "BSD-3-Clause, MIT",
            _libraries_implement,
            default_limit=20,
            version="3",
        ),
        SetInfo(
            "releases",
            "fixes of consecutive releases taken back one by one, judged by the tests that came with them",
            "BSD-3-Clause, MIT",
            _releases,
        ),
        SetInfo(
            "bandit",
            "vulnerable or not: pieces of bandit's examples and their mended twins, by bandit's own opinion",
            "Apache-2.0",
            _bandit,
        ),
    )
}


def build_set(
    name: str,
    *,
    seed: int = 0,
    limit: int | None = None,
    everything: bool = False,
    out: Path | None = None,
    fresh: bool = False,
    backend: str = "auto",
    workers: int = 2,
    progress: Progress = lambda *_: None,
) -> BuildReport:
    """Build a task set, validate every task of it, and put it where `load_tasks(name)` finds it.

    A set that was built with the same seed and limit is left as it is. Of two processes that build the same set, one
    waits for the other and finds it done.

    Args:
        name: one of `SETS`.
        seed: the same seed gives the same file, byte for byte.
        limit: only the first so many tasks; the set's own default where absent.
        everything: no limit, also where the set has one by default.
        out: write here instead; nothing is looked up or kept in the cache folder then.
        fresh: build although it is there.
        backend: the sandbox's name.
        workers: jobs at once.
        progress: told how far it is.

    Raises:
        BadInput: no such set, a limit below one, or a limit for everything.
        MachineryFailed: a source cannot be fetched, or the sandbox does not work.
    """
    info = _known(name)
    if limit is not None and limit < 1:
        raise BadInput(f"a set of {limit} tasks is no set", where="limit", mend="give a limit of at least 1")
    if everything and limit is not None:
        raise BadInput("everything, and no more than a limit?", where="limit", mend="give --all or --limit, not both")
    limit = limit if limit is not None or everything else info.default_limit
    if out is not None:
        return _built(info, seed, limit, out, backend, workers, progress)
    with locked(f"tasks/{name}"):
        recorded = _recorded(info, seed, limit)
        if recorded is not None and not fresh:
            return recorded
        report = _built(info, seed, limit, built_set(name), backend, workers, progress)
        record = {**_recipe(info, seed, limit), **asdict(report), "path": str(report.path)}
        write_atomically(_record(name), json.dumps(record, indent=1))
        return report


def build_info(name: str) -> Mapping[str, object] | None:
    """What was recorded when the set was built (seed, limit, yields, seconds); None if it was not."""
    try:
        recorded: Mapping[str, object] = json.loads(_record(name).read_text())
    except (OSError, ValueError):
        return None
    return recorded if built_set(name).is_file() else None


def quarantine_of(path: Path) -> Path:
    """Where the tasks lie that were refused while `path` was made."""
    return path.with_name(path.name.removesuffix(".jsonl") + ".quarantine.jsonl")


def _known(name: str) -> SetInfo:
    if name in SETS:
        return SETS[name]
    raise BadInput(f"no task set is called {name!r}", mend=f"use one of {', '.join(SETS)}")


def _built(
    info: SetInfo,
    seed: int,
    limit: int | None,
    path: Path,
    backend: str,
    workers: int,
    progress: Progress,
) -> BuildReport:
    from code_repair_rl.grading import Grader

    begun = time.monotonic()
    made = info.make(backend=backend, seed=seed, limit=limit, workers=workers, progress=progress)
    apart, alike = without_near_duplicates(made.tasks)
    apart = apart[:limit]
    done = 0

    def on_done(more: int) -> None:
        nonlocal done
        done += more
        progress("validating", done, len(apart))

    journal = Journal(home() / "validation" / f"{info.name}-{digest_of(info.version, seed, limit)[:16]}.jsonl")
    with Grader(backend=backend, workers=workers) as grader:
        kept, bad = validate(apart, grader, workers=workers, journal=journal, on_done=on_done)
    if len(bad) > len(kept):
        # Candidates were run before: if most fail now, it is not the tasks. Nothing is written, an older set stays.
        raise MachineryFailed(
            f"{len(bad)} of {len(apart)} tasks do not hold, the first: {bad[0].reason}",
            where=bad[0].task.task_id,
            mend="see what `crrl doctor` says about the sandbox, and run the same command again",
        )
    bad = [*alike, *bad]
    write_quarantine(quarantine_of(path), bad)
    write_tasks(path, kept)
    journal.forget()
    return BuildReport(
        name=info.name,
        path=path,
        tasks=len(kept),
        quarantined=_counted(bad),
        unusable={item.problem: item.reason for item in made.unusable},
        measures=made.measures,
        wall_seconds=round(time.monotonic() - begun, 1),
    )


def _counted(bad: Iterable[Quarantined]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in bad:
        reason = item.reason.partition(" (")[0]
        counts[reason] = counts.get(reason, 0) + 1
    return counts


def _recipe(info: SetInfo, seed: int, limit: int | None) -> dict[str, object]:
    version = BUILDER_VERSION if info.version == "1" else f"{BUILDER_VERSION}.{info.version}"
    return {"builder_version": version, "seed": seed, "limit": limit}


def _record(name: str) -> Path:
    return home() / "tasks" / f"{name}.build.json"


def _recorded(info: SetInfo, seed: int, limit: int | None) -> BuildReport | None:
    """The report of an earlier build with the same recipe, if its file is still whole."""
    name = info.name
    record = build_info(name)
    if record is None or any(record.get(key) != value for key, value in _recipe(info, seed, limit).items()):
        return None
    path = built_set(name)
    try:
        count = sum(1 for _ in read_tasks(path))
    except BadInput:
        return None
    if count != record.get("tasks"):
        return None
    quarantined, unusable = record.get("quarantined"), record.get("unusable")
    assert isinstance(quarantined, dict)
    assert isinstance(unusable, dict)
    measures = record.get("measures")
    return BuildReport(
        name,
        path,
        count,
        quarantined,
        unusable,
        measures=measures if isinstance(measures, dict) else {},
        was_there=True,
    )
