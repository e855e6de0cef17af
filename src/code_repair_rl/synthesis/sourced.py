"""Task sets that are made of something the user names: `crrl tasks build NAME --from SOURCE`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from code_repair_rl.errors import BadInput
from code_repair_rl.home import locked, write_atomically
from code_repair_rl.synthesis.bugs import Unusable
from code_repair_rl.synthesis.duplicates import without_near_duplicates
from code_repair_rl.synthesis.sets import BUILDER_VERSION, BuildReport, Progress, quarantine_of
from code_repair_rl.synthesis.validation import Quarantined, validate, write_quarantine
from code_repair_rl.tasks import Environment, Task, built_set, write_tasks


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How a set is made of its source. A maker that has no use for an option passes over it."""

    seed: int = 0
    limit: int | None = None
    mask: str = "whole"
    """`whole` or `body`: what of a function is taken out."""
    licence: str | None = None
    """SPDX identifier where the source does not say."""
    repositories: str | None = None
    """Folder or URL prefix of mirrors that instances name their repository in."""
    hold_out: float = 0.0
    """Share of instances that the test split gets by their hash; 0 leaves the usual shares."""
    environment: str = "image"
    """`image`: instances are tested in the image they name; `here`: in the environment that grades; a lock file: in
    that one with what the file pins."""
    test_command: str | None = None
    """What runs the tests in an image, as a shell reads it; pytest where absent."""
    language: str | None = None
    """Only functions in this language: `python`, `c` or `cpp`."""
    backend: str = "auto"
    workers: int = 2
    progress: Progress = lambda *_: None


@dataclass(frozen=True, slots=True)
class Made:
    """What a maker made of a source."""

    tasks: Sequence[Task]
    """Checked already: nobody looks at them again."""
    unusable: Sequence[Unusable] = ()
    quarantined: Sequence[Quarantined] = ()
    is_apart: bool = False
    """Whether near-copies across splits were looked for already."""


class SourcedMaker(Protocol):
    """Makes the tasks of one source."""

    def __call__(self, source: str, options: SourceOptions) -> Made:
        """The tasks in the order in which they are written, at most `options.limit`."""
        ...


@dataclass(frozen=True, slots=True)
class SourcedSet:
    """A set that `crrl tasks build NAME --from SOURCE` knows."""

    name: str
    summary: str
    sources: str
    """What may be named, in words."""
    make: SourcedMaker


def _stack(source: str, options: SourceOptions) -> Made:
    from code_repair_rl.synthesis.stack import stack_tasks

    options.progress("reading and masking functions", 0, 1)
    tasks, left_out = stack_tasks(source, kind=options.mask, licence=options.licence, seed=options.seed)
    options.progress("reading and masking functions", 1, 1)
    return Made(tasks, left_out)


def _instances(collection: str) -> SourcedMaker:
    def make(source: str, options: SourceOptions) -> Made:
        from code_repair_rl.tasks.swe import instance_task, instances

        if options.repositories is None:
            raise BadInput(
                "instances name repositories, which have to be somewhere",
                where="--repositories",
                mend="name a folder of clones (owner/name), or a URL prefix to clone from",
            )
        tasks: list[Task] = []
        unusable: list[Unusable] = []
        step = "reading instances and their repositories"
        found = list(instances(collection, source))
        for done, instance in enumerate(found):
            options.progress(step, done, len(found))
            if options.limit is not None and len(tasks) >= options.limit:
                break
            try:
                tasks.append(
                    instance_task(
                        instance,
                        collection,
                        options.repositories,
                        hold_out=options.hold_out,
                        licence=options.licence,
                        environment=_environment(options, instance.image),
                    )
                )
            except BadInput as error:
                unusable.append(Unusable(instance.instance_id, f"{error.where}: {error.what}"))
        options.progress(step, len(found), len(found))
        return Made(tasks, unusable)

    return make


def _environment(options: SourceOptions, image: str | None) -> Environment:
    """What an instance's tests need, by the options; a lock file's packages are installed."""
    if options.environment == "here":
        return Environment()
    if options.environment == "image":
        return Environment(image=image, command=options.test_command) if image else Environment()
    from code_repair_rl.grading.environments import install_locked

    path = Path(options.environment).expanduser()
    try:
        lock = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the lock file cannot be read ({error})", where=str(path)) from error
    install_locked(lock)
    return Environment(lock=lock)


def _commits(source: str, options: SourceOptions) -> Made:
    from code_repair_rl.grading import Grader
    from code_repair_rl.sandbox import select_backend
    from code_repair_rl.synthesis.commits import commit_tasks

    found, unusable = commit_tasks(
        Path(source).expanduser(),
        select_backend(options.backend),
        limit=options.limit,
        licence=options.licence,
        workers=options.workers,
        progress=options.progress,
    )
    done = 0

    def on_done(more: int) -> None:
        nonlocal done
        done += more
        options.progress("validating", done, len(found))

    with Grader(backend=options.backend, workers=options.workers) as grader:
        kept, bad = validate(found, grader, workers=options.workers, on_done=on_done)
    return Made(kept, unusable, bad)


_ROWS = "JSON Lines, Parquet, a folder of them, hub:OWNER/NAME"


def _labelled(name: str) -> SourcedMaker:
    def make(source: str, options: SourceOptions) -> Made:
        from code_repair_rl.synthesis.vulnerabilities import classification_tasks, read_files
        from code_repair_rl.tasks.cwe import fetch_cwe_tree

        options.progress("reading labelled functions", 0, 1)
        reading = read_files(name, Path(source).expanduser())
        made = classification_tasks(reading, name, tree=fetch_cwe_tree(), language=options.language)
        options.progress("reading labelled functions", 1, 1)
        return Made(made.tasks, made.unusable, made.quarantined)

    return make


def _vulnerability_repairs(name: str) -> SourcedMaker:
    def make(source: str, options: SourceOptions) -> Made:
        from code_repair_rl.synthesis.vulnerabilities import read_files
        from code_repair_rl.synthesis.vulnerability_repairs import repair_tasks
        from code_repair_rl.tasks.cwe import fetch_cwe_tree

        step = "reading pairs of functions"
        options.progress(step, 0, 1)
        reading = read_files(name, Path(source).expanduser())
        tasks, unusable, copies = repair_tasks(
            reading, f"{name}-repairs", tree=fetch_cwe_tree(), language=options.language
        )
        options.progress(step, 1, 1)
        return Made(tasks, unusable, copies, is_apart=True)

    return make


SOURCED: Mapping[str, SourcedSet] = {
    one.name: one
    for one in (
        SourcedSet(
            "stack",
            "functions of real files, masked, to be written back from their description",
            "a folder, file, archive or installed package; rows of the-stack-smol or stack-smol-docstrings",
            _stack,
        ),
        SourcedSet(
            "swe-bench",
            "real issues of repositories, for judging only: SWE-bench, Lite, Verified, Multilingual",
            f"{_ROWS}, or full, lite, verified, multilingual",
            _instances("swe-bench"),
        ),
        SourcedSet("swe-gym", "real issues of repositories: SWE-Gym", f"{_ROWS}, or full, lite", _instances("swe-gym")),
        SourcedSet(
            "swe-smith", "bugs written into repositories: SWE-smith", f"{_ROWS}, or full", _instances("swe-smith")
        ),
        SourcedSet(
            "r2e-gym",
            "commits of repositories with their tests: R2E-Gym",
            f"{_ROWS}, or subset, lite",
            _instances("r2e-gym"),
        ),
        SourcedSet(
            "commits",
            "fixes mined from the commits of a git repository, with the tests that came with them",
            "the folder of a git repository",
            _commits,
        ),
        SourcedSet(
            "sven",
            "vulnerable or not: functions before and after real fixes, in 9 CWEs (Python, C, C++)",
            "SVEN's JSON Lines or Parquet, a file or a folder of them",
            _labelled("sven"),
        ),
        SourcedSet(
            "primevul",
            "vulnerable or not: C and C++ functions of real projects, paired or not",
            "PrimeVul's files (train, valid and test in their names give the splits), a file or a folder of them",
            _labelled("primevul"),
        ),
        SourcedSet(
            "primevul-repairs",
            "vulnerable functions of real projects, to be fixed: the pairs of PrimeVul",
            "PrimeVul's files, a file or a folder of them",
            _vulnerability_repairs("primevul"),
        ),
        SourcedSet(
            "sven-repairs",
            "vulnerable functions in 9 CWEs, to be fixed: the pairs of SVEN",
            "SVEN's JSON Lines or Parquet, a file or a folder of them",
            _vulnerability_repairs("sven"),
        ),
        SourcedSet(
            "labelled",
            "vulnerable or not: functions that you labelled",
            "JSON Lines of `code` and `label`; see docs/classification.md",
            _labelled("labelled"),
        ),
    )
}


def build_from(name: str, source: str, options: SourceOptions, *, out: Path | None = None) -> BuildReport:
    """Build a set of something the user names, and put it where `load_tasks(name)` finds it.

    It is made anew every time: what is named may have changed.

    Args:
        name: one of `SOURCED`.
        source: what to make it of.
        options: how.
        out: write here instead.

    Raises:
        BadInput: no such set, or the source is not what the set needs; nothing is written.
        MachineryFailed: the hub or the sandbox does not work.
    """
    if name not in SOURCED:
        raise BadInput(f"no task set called {name!r} is made --from something", mend=f"use one of {', '.join(SOURCED)}")
    if options.limit is not None and options.limit < 1:
        raise BadInput(f"a set of {options.limit} tasks is no set", where="limit", mend="give a limit of at least 1")
    if out is not None:
        return _built(SOURCED[name], source, options, out)
    with locked(f"tasks/{name}"):
        report = _built(SOURCED[name], source, options, built_set(name))
        record = {
            **{"builder_version": BUILDER_VERSION, "seed": options.seed, "limit": options.limit, "from": source},
            **{**asdict(report), "path": str(report.path)},
        }
        write_atomically(report.path.with_name(f"{name}.build.json"), json.dumps(record, indent=1))
        return report


def _built(info: SourcedSet, source: str, options: SourceOptions, path: Path) -> BuildReport:
    begun = time.monotonic()
    made = info.make(source, options)
    kept, alike = (list(made.tasks), []) if made.is_apart else without_near_duplicates(made.tasks)
    kept = kept[: options.limit]
    if not kept:
        all_reasons = {one.reason for one in made.unusable} | {one.reason for one in made.quarantined}
        reasons = ", ".join(sorted(all_reasons)[:3])
        raise BadInput(f"no task could be made ({reasons or 'there is nothing to make it of'})", where=source)
    quarantined = [*made.quarantined, *alike]
    write_quarantine(quarantine_of(path), quarantined)
    write_tasks(path, kept)
    return BuildReport(
        name=info.name,
        path=path,
        tasks=len(kept),
        quarantined=_counted(quarantined),
        unusable={one.problem: one.reason for one in made.unusable},
        wall_seconds=round(time.monotonic() - begun, 1),
    )


def _counted(quarantined: Sequence[Quarantined]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in quarantined:
        reason = one.reason.partition(" (")[0].partition(" as ")[0]
        counts[reason] = counts.get(reason, 0) + 1
    return counts
