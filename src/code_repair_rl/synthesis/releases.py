"""Repair tasks mined from consecutive releases: one fix taken back out of the newer code, judged by its own new tests.

Tests that pass on a release and fail on the code of the release before it show what was fixed. The changes between the
two are grouped by function, and each group is taken back alone: where exactly such tests fail then, and nothing else,
the group is one fix. What cannot be taken back alone is taken back together, and made as small as it goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from code_repair_rl.packages import PackageKind, fetch_package
from code_repair_rl.sandbox import Sandbox
from code_repair_rl.synthesis.bugs import Unusable
from code_repair_rl.synthesis.changelog import about, changelog_of, entries, is_changelog
from code_repair_rl.synthesis.hunks import Hunk, hunks, reverted
from code_repair_rl.synthesis.journal import digest_of
from code_repair_rl.synthesis.libraries import names_of
from code_repair_rl.synthesis.library import Library, files_in
from code_repair_rl.synthesis.suites import SLOW_SECONDS, STEADY_RUNS, Found, Report, Run, Suite
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

_MOST_FAIL_TO_PASS = 40
_MOST_PASS_TO_PASS = 30
_MOST_CHANGED_LINES = 120
"""Of one task, old and new ones together."""
_MOST_TRIED = 60
"""Groups of one release."""
_MOST_REDUCED = 14
"""Groups that are taken back together before they are made fewer one by one."""
_SUITE_SECONDS = 240.0
_MODULE_SECONDS = 15.0
_RUN_SECONDS = 6.0


@dataclass(frozen=True, slots=True)
class Group:
    """Changes that are taken back together: those of one function, or of a few."""

    hunks: tuple[tuple[str, Hunk], ...]
    """Path and hunk."""

    @property
    def units(self) -> tuple[str, ...]:
        """`path::function`, each once."""
        return tuple(dict.fromkeys(f"{path}::{hunk.unit}" for path, hunk in self.hunks))

    @property
    def changed_lines(self) -> int:
        """Old and new ones."""
        return sum(one.old[1] - one.old[0] + one.new[1] - one.new[0] for _, one in self.hunks)


@dataclass(frozen=True, slots=True)
class _Fix:
    """A group whose taking back fails tests that failed before the release, and no others."""

    group: Group
    failing: tuple[str, ...]
    passing: tuple[str, ...]


class Pair:
    """Two consecutive releases: the newer one's tree, and what its tests say of the older one's code.

    Args:
        old: the older release.
        new: the newer one.
        sandbox: where it runs.
        workers: jobs at once.
        report: told of the progress.

    Raises:
        MachineryFailed: a release cannot be fetched.
    """

    def __init__(self, old: Library, new: Library, sandbox: Sandbox, *, workers: int, report: Report) -> None:
        self.old, self.new = old, new
        self.name = f"{new.name} {old.version} to {new.version}"
        report(f"{self.name}: fetching", 0, 1)
        archives = [fetch_package(one.name, one.version, one.sha256, PackageKind.SDIST) for one in (old, new)]
        report(f"{self.name}: fetching", 1, 1)
        before, after = (files_in(archive) for archive in archives)
        self.entries = entries(changelog_of(archives[1]), new.version)
        # A change log tells what was fixed: it is not part of the tree.
        self.files = {path: text for path, text in after.items() if not is_changelog(path)}
        self.before = {path: text for path, text in before.items() if new.is_source(path)}
        self.suite = Suite(new, self.files, sandbox, workers=workers, report=report)

    @cached_property
    def changed(self) -> list[str]:
        """Source files that are in both releases and differ."""
        return [path for path in self.before if self.files.get(path, self.before[path]) != self.before[path]]

    @cached_property
    def groups(self) -> list[Group]:
        """The changes by function, in the order of the text."""
        found: dict[tuple[str, str], list[tuple[str, Hunk]]] = {}
        for path in self.changed:
            for hunk in hunks(self.before[path], self.files[path]):
                found.setdefault((path, hunk.unit), []).append((path, hunk))
        return [Group(tuple(group)) for group in found.values()]

    def without(self, group: Group) -> dict[str, str | None]:
        """The files that differ from the newer tree when a group is taken back."""
        paths = dict.fromkeys(path for path, _ in group.hunks)
        return {
            path: reverted(self.before[path], self.files[path], [one for place, one in group.hunks if place == path])
            for path in paths
        }

    @cached_property
    def baseline(self) -> Found:
        """The watched run of the newer release."""
        return self.suite.run([Run(watch=(self.new.source,), cpu_seconds=_SUITE_SECONDS)], f"{self.name}: its tests")[0]

    @cached_property
    def fixed(self) -> tuple[str, ...]:
        """Tests that pass on the newer release, and fail or cannot run on the older code.

        A module at a time: one in which a test never ends on the older code says nothing.
        """
        older: dict[str, str | None] = {path: text for path, text in self.before.items() if path in self.files}
        older |= {path: None for path in self.files if self.new.is_source(path) and path not in self.before}
        modules: dict[str, list[str]] = {}
        for test in self.steady:
            modules.setdefault(test.partition("::")[0], []).append(test)
        runs = [Run(files=older, tests=tuple(tests), cpu_seconds=_MODULE_SECONDS) for tests in modules.values()]
        found = self.suite.run(runs, f"{self.name}: its tests on the code before")
        return tuple(
            test
            for tests, one in zip(modules.values(), found, strict=True)
            for test in tests
            if one.ended and not one.passed(test)
        )

    @cached_property
    def steady(self) -> tuple[str, ...]:
        """Tests of the newer release that pass every time, in shuffled order, too."""
        runs = [Run(shuffle=seed, cpu_seconds=_SUITE_SECONDS) for seed in range(1, STEADY_RUNS)]
        again = self.suite.run(runs, f"{self.name}: its tests, {STEADY_RUNS - 1} times shuffled")
        if not self.baseline.ended or not all(one.ended for one in again):
            return ()
        return tuple(
            test
            for test in sorted(self.baseline.statuses)
            if all(one.passed(test) for one in (self.baseline, *again))
            and min(one.seconds.get(test, 0.0) for one in again) <= SLOW_SECONDS
        )

    def tests_for(self, group: Group) -> tuple[str, ...]:
        """The tests to run when a group is taken back: what was fixed, and the most specific ones of its files."""
        paths = {path for path, _ in group.hunks}
        units = {path: [hunk.new for place, hunk in group.hunks if place == path] for path in paths}
        lines = self.baseline.lines

        def distance(test: str) -> tuple[bool, int]:
            own = lines.get(test, {})
            near = any(
                start - 10 <= number <= end + 10
                for path, stretches in units.items()
                for start, end in stretches
                for number in own.get(path, ())
            )
            return not near, sum(map(len, own.values()))

        touching = [test for test in self.steady if any(path in lines.get(test, {}) for path in paths)]
        others = [test for test in touching if test not in self._fixed_set]
        fixed = [test for test in self.fixed if test in set(touching)]
        return (*fixed, *sorted(others, key=lambda test: (*distance(test), test))[:_MOST_PASS_TO_PASS])

    @cached_property
    def _fixed_set(self) -> frozenset[str]:
        return frozenset(self.fixed)

    def fixes(self, groups: Sequence[Group], step: str) -> list[_Fix | None]:
        """For each group whether it is a fix; None where nothing fails without it, or too much."""
        tests = [self.tests_for(group) for group in groups]
        runs = [
            Run(files=self.without(group), tests=wanted, cpu_seconds=_RUN_SECONDS)
            for group, wanted in zip(groups, tests, strict=True)
        ]
        found = self.suite.run(runs, f"{self.name}: {step}")
        return [self._fix(*one) for one in zip(groups, tests, found, strict=True)]

    def _fix(self, group: Group, tests: Sequence[str], found: Found) -> _Fix | None:
        failing = tuple(test for test in tests if found.statuses.get(test) == "failed")
        passing = tuple(test for test in tests if found.passed(test))
        whole = found.ended and len(failing) + len(passing) == len(tests)
        return _Fix(group, failing, passing) if whole and failing and set(failing) <= self._fixed_set else None


def release_tasks(
    chains: Sequence[Sequence[Library]],
    sandbox: Sandbox,
    *,
    limit: int | None,
    workers: int,
    progress: Report = lambda *_: None,
) -> tuple[list[Task], list[Unusable]]:
    """Tasks with one fix of a release taken back.

    Args:
        chains: releases of one library each, oldest first.
        sandbox: where it runs.
        limit: no more pairs of releases are looked at once there are so many tasks.
        workers: jobs at once.
        progress: told how far it is.

    Raises:
        MachineryFailed: a release cannot be fetched, or the sandbox could not run a job to its end.
    """
    tasks: dict[str, Task] = {}
    unusable: list[Unusable] = []
    for old, new in _turns(chains):
        if limit is not None and len(tasks) >= limit:
            break
        pair = Pair(old, new, sandbox, workers=workers, report=progress)
        if not pair.fixed or not pair.changed:
            unusable.append(Unusable(pair.name, "no test tells the two releases apart"))
            continue
        made = [_task(pair, fix) for fix in _fixes(pair)]
        if not made:
            unusable.append(Unusable(pair.name, "no change can be taken back without breaking other tests"))
        tasks |= {task.task_id: task for task in made}
    return with_common_problems(list(tasks.values())[:limit]), unusable


def with_common_problems(tasks: Sequence[Task]) -> list[Task]:
    """The tasks, those that have a changed function in common under one problem, and so in one split.

    A function may be mended in several releases: what one task has to find stands in the other's code already.
    """
    leader: dict[str, str] = {}

    def first_of(unit: str) -> str:
        while leader.setdefault(unit, unit) != unit:
            unit = leader[unit]
        return unit

    units = [[f"{task.origin.source}/{unit}" for unit in task.origin.detail["units"]] for task in tasks]
    for names in units:
        for name in names:
            leader[first_of(name)] = first_of(names[0])
    names_it: dict[str, Task] = {}
    for task, names in sorted(zip(tasks, units, strict=True), key=lambda one: one[0].problem):
        names_it.setdefault(first_of(names[0]), task)
    return [
        task.model_copy(update={"problem": one.problem, "split": one.split})
        for task, names in zip(tasks, units, strict=True)
        for one in [names_it[first_of(names[0])]]
    ]


def _turns(chains: Sequence[Sequence[Library]]) -> Iterator[tuple[Library, Library]]:
    """Pairs of consecutive releases, the newest of every library before the second of any."""
    pairs = [list(pairwise(chain))[::-1] for chain in chains]
    for turn in range(max(map(len, pairs), default=0)):
        yield from (found[turn] for found in pairs if turn < len(found))


def _fixes(pair: Pair) -> list[_Fix]:
    """The fixes of a release: groups alone, then what is left of each file, then what is left of all."""
    groups = [group for group in pair.groups if group.changed_lines <= _MOST_CHANGED_LINES][:_MOST_TRIED]
    alone = [fix for fix in pair.fixes(groups, "taking changes back one by one") if fix is not None]
    found = _merged(pair, alone)
    used = {fix.group for fix in alone}
    left = [group for group in groups if group not in used]
    by_file: dict[str, list[Group]] = {}
    for group in left:
        by_file.setdefault(group.hunks[0][0], []).append(group)
    together = [*by_file.values(), left] if len(by_file) > 1 else list(by_file.values())
    for several in together:
        explained = {test for fix in found for test in fix.failing}
        if 1 < len(several) <= _MOST_REDUCED and explained < set(pair.fixed):
            fix = _reduced(pair, several, explained)
            found += [fix] if fix is not None else []
    return found


def _merged(pair: Pair, alone: Sequence[_Fix]) -> list[_Fix]:
    """Fixes without which the very same tests fail are parts of one: a function and the call of it, say."""
    by_tests: dict[frozenset[str], list[_Fix]] = {}
    for fix in alone:
        by_tests.setdefault(frozenset(fix.failing), []).append(fix)
    several = [parts for parts in by_tests.values() if len(parts) > 1]
    wholes = pair.fixes([_joined([part.group for part in parts]) for parts in several], "taking parts back together")
    found = [parts[0] for parts in by_tests.values() if len(parts) == 1]
    for parts, whole in zip(several, wholes, strict=True):
        fits = whole is not None and whole.group.changed_lines <= _MOST_CHANGED_LINES
        found += [whole] if whole is not None and fits else parts
    return found


def _reduced(pair: Pair, groups: Sequence[Group], explained: set[str]) -> _Fix | None:
    """The smallest part of `groups` that fails what nothing else explains; None where they are no fix."""
    (fix,) = pair.fixes([_joined(groups)], "taking changes back together")
    if fix is None or set(fix.failing) <= explained:
        return None
    kept = list(groups)
    for group in groups:
        rest = [one for one in kept if one is not group]
        if not rest:
            break
        (smaller,) = pair.fixes([_joined(rest)], "taking fewer changes back")
        if smaller is not None and set(smaller.failing) - explained == set(fix.failing) - explained:
            kept, fix = rest, smaller
    return fix if fix.group.changed_lines <= _MOST_CHANGED_LINES else None


def _joined(groups: Sequence[Group]) -> Group:
    return Group(tuple(hunk for group in groups for hunk in group.hunks))


def _task(pair: Pair, fix: _Fix) -> Task:
    library = pair.new
    before = {path: text for path, text in pair.without(fix.group).items() if text is not None}
    after: Mapping[str, str | None] = {path: pair.files[path] for path in before}
    units = [unit for unit in fix.group.units if not unit.partition("::")[2].startswith("line ")] or fix.group.units
    problem = "+".join(f"{library.name}/{unit}" for unit in units)
    failing = fix.failing[:_MOST_FAIL_TO_PASS]
    return Task(
        task_id=f"releases/{library.name}-{library.version}/{'+'.join(units)}/{digest_of(before)[:8]}",
        kind=Kind.REPAIR,
        files=StoredTree(store_tree(pair.files), before),
        description=_description(pair, units, failing),
        hints=Hints(exact_lines=exact_lines(before, after)),
        oracle=after,
        tests=RepositoryTests(
            fail_to_pass=failing,
            pass_to_pass=fix.passing[:_MOST_PASS_TO_PASS],
            source_roots=library.source_roots,
        ),
        split=split_of(f"{library.name}/{units[0]}"),
        problem=problem,
        origin=Origin(
            source=library.name,
            version=library.version,
            detail={
                "from_version": pair.old.version,
                "units": list(fix.group.units),
                "hunks": len(fix.group.hunks),
                "changed_lines": fix.group.changed_lines,
            },
        ),
        licence=library.licence,
    )


def _description(pair: Pair, units: Sequence[str], failing: Sequence[str]) -> str:
    """What the change log says of it, where it names the function, and the tests that fail."""
    functions = [unit.partition("::")[2] for unit in units]
    said = about(pair.entries, [part for name in functions if not name.startswith("line ") for part in name.split(".")])
    told = [f"From the change log of {pair.new.name}: {entry}" for entry in said]
    return "\n\n".join([*told, f"These tests of {pair.new.name} fail:\n{names_of(failing)}"])


def chain(template: Library, releases: Sequence[tuple[str, str]]) -> tuple[Library, ...]:
    """Releases of one library from (version, sha256), oldest first; all else as in `template`."""
    return tuple(replace(template, version=version, sha256=sha256) for version, sha256 in releases)
