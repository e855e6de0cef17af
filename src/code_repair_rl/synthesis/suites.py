"""Running a library's own suite in the sandbox: on the correct tree, and on variants of it.

What a run found is kept in a journal in the cache folder, by content: a build that was killed goes on where it was,
and two sets that are made of one library share its watched run.
"""

from __future__ import annotations

import json
import platform
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import Any

from code_repair_rl.errors import MachineryFailed
from code_repair_rl.home import home
from code_repair_rl.packages import PackageKind, fetch_package
from code_repair_rl.sandbox import GIB, MIB, Cause, Job, Limits, Sandbox
from code_repair_rl.synthesis.journal import Journal, digest_of
from code_repair_rl.synthesis.library import Library, files_in
from code_repair_rl.synthesis.observe import probe_files

Report = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

STEADY_RUNS = 5
"""How often the correct tree's whole suite is run, four times of them shuffled: what fails once is not used."""

SLOW_SECONDS = 1.0
"""Processor time beyond which a test is not used: every answer to a task would have to wait for it."""

_WHOLE_SUITE_SECONDS = 240.0
_SELECTED_SECONDS = 4.0
"""Processor time of the tests selected for one variant: what takes longer runs on."""
_WALL_PER_CPU = 12.0
"""The clock's limit is wide: only what sleeps is ended by it, however busy the machine."""
_BATCH = 40
"""Variants in one job: it compiles the tree once for all of them."""
_ARGV = ("python", "-s", "-S", "-c", "import sys; sys.path.insert(0, ''); from probe.suite import main; main()")
"""Without what the interpreter below a virtual environment has installed: answers are graded without it, too."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the suite, or of some of its tests, on a variant of the tree."""

    files: Mapping[str, str | None] = field(default_factory=dict)
    """What differs from the tree; None for a file that goes."""
    tests: tuple[str, ...] | None = None
    """Test ids; None for the whole suite."""
    watch: tuple[str, ...] = ()
    """Prefixes of the files whose executed lines are noted."""
    shuffle: int | None = None
    """Seed of the tests' order; None leaves it."""
    cpu_seconds: float = _SELECTED_SECONDS


@dataclass(frozen=True, slots=True)
class Found:
    """What one run found."""

    ended: bool
    """Whether the run came to its end in time."""
    statuses: Mapping[str, str]
    """Test to `passed`, `failed` or `skipped`; what is missing did not run."""
    lines: Mapping[str, Mapping[str, Sequence[int]]]
    """Test to path to lines, where it was watched."""
    seconds: Mapping[str, float]
    """Test to processor time."""
    with_processes: frozenset[str] = frozenset()
    """Tests that started a process."""

    def passed(self, test: str) -> bool:
        """Whether the test passed."""
        return self.statuses.get(test) == "passed"


class Suite:
    """A library's tree, its tests, and what is known about them.

    Args:
        library: which one.
        files: the tree.
        sandbox: where it runs.
        workers: jobs at once.
        report: told of the progress.

    Raises:
        MachineryFailed: the suite did not come to its end.
    """

    def __init__(
        self,
        library: Library,
        files: Mapping[str, str],
        sandbox: Sandbox,
        *,
        workers: int = 2,
        report: Report = lambda *_: None,
    ) -> None:
        self.library = library
        self.files = files
        self._sandbox = sandbox
        self._workers = workers
        self.report = report
        self._journal = Journal(home() / "suites" / f"{library.name}-{library.version}-{self._digest()[:16]}.jsonl")

    @cached_property
    def lines(self) -> Mapping[str, Mapping[str, frozenset[int]]]:
        """Test to path to the source lines that it executes, of every test that may be used: those that passed every
        one of `STEADY_RUNS` runs, once watched, the others in shuffled order, are not slow, and start no process (the
        limits of a busy machine decide how those end)."""
        watched = Run(watch=(self.library.source,), cpu_seconds=2 * _WHOLE_SUITE_SECONDS)
        shuffled = [Run(shuffle=seed, cpu_seconds=_WHOLE_SUITE_SECONDS) for seed in range(1, STEADY_RUNS)]
        found = self.run([watched, *shuffled], f"{self.library.name}: its own tests, {STEADY_RUNS} times")
        for one in found:
            if not one.ended:
                raise MachineryFailed(
                    "its own tests did not end in time", where=f"{self.library.name}=={self.library.version}"
                )
        return {
            test: {path: frozenset(numbers) for path, numbers in lines.items() if self.library.is_source(path)}
            for test, lines in sorted(found[0].lines.items())
            if all(one.passed(test) and test not in one.with_processes for one in found)
            and min(one.seconds.get(test, 0.0) for one in found[1:]) <= SLOW_SECONDS
        }

    @cached_property
    def tests_by_line(self) -> Mapping[tuple[str, int], list[str]]:
        """For every executed line the tests that execute it, the most specific first."""
        sizes = {test: sum(map(len, lines.values())) for test, lines in self.lines.items()}
        found: dict[tuple[str, int], list[str]] = {}
        for test in sorted(self.lines, key=lambda test: (sizes[test], test)):
            for path, numbers in self.lines[test].items():
                for number in numbers:
                    found.setdefault((path, number), []).append(test)
        return found

    @cached_property
    def executed(self) -> Mapping[str, frozenset[int]]:
        """Path to the lines that some test executes."""
        found: dict[str, set[int]] = {}
        for path, number in self.tests_by_line:
            found.setdefault(path, set()).add(number)
        return {path: frozenset(found[path]) for path in sorted(found)}

    def tests_of(self, path: str, lines: Sequence[int], most: int) -> tuple[str, ...]:
        """The tests that execute one of the lines, at most so many, the most specific first."""
        found: dict[str, None] = {}
        by_line = [self.tests_by_line.get((path, line), []) for line in lines]
        wanted = {test for tests in by_line for test in tests}
        sizes = {test: sum(map(len, self.lines[test].values())) for test in wanted}
        for test in sorted(wanted, key=lambda test: (sizes[test], test))[:most]:
            found[test] = None
        return tuple(found)

    def remembered(self, what: Sequence[Any], make: Callable[[], Any]) -> Any:
        """Plain data that depends on the tree and on `what` alone: made once, then read from the journal."""
        key = digest_of("remembered", list(what))
        if key not in self._journal:
            self._journal.put(key, make())
        return self._journal[key]

    def run(self, runs: Sequence[Run], step: str) -> list[Found]:
        """What each run found, in their order; what was found before is not run again.

        Raises:
            MachineryFailed: the sandbox could not run a job to its end.
        """
        keys = [digest_of(asdict(run)) for run in runs]
        missing = [place for place, key in enumerate(keys) if key not in self._journal]
        found = {place: self._journal[key] for place, key in enumerate(keys) if key in self._journal}
        done = len(found)
        self.report(step, done, len(runs))
        size = min(_BATCH, max(1, -(-len(missing) // self._workers)))
        whole = [[place] for place in missing if runs[place].tests is None]
        some = [place for place in missing if runs[place].tests is not None]
        batches = whole + [some[start : start + size] for start in range(0, len(some), size)]
        pool = ThreadPoolExecutor(self._workers)
        try:
            futures = {pool.submit(self._findings, [runs[place] for place in batch]): batch for batch in batches}
            for future in as_completed(futures):
                batch = futures[future]
                for place, finding in zip(batch, future.result(), strict=True):
                    found[place] = finding
                    # A whole suite that was ended is no finding about a bug: the next attempt may have more luck.
                    if finding or runs[place].tests is not None:
                        self._journal.put(keys[place], finding)
                done += len(batch)
                self.report(step, done, len(runs))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return [_found(found[place]) for place in range(len(runs))]

    def _digest(self) -> str:
        """Of all that decides what a run finds, but the run itself."""
        about = (self.library.source_roots, self.library.tests, _WALL_PER_CPU, _ARGV)
        return digest_of(about, dict(self.files), probe_files(), platform.python_version(), version("pytest"))

    def _findings(self, runs: Sequence[Run]) -> list[dict[str, Any]]:
        """One finding for each run; where the job broke, once more one by one: a single bug may have eaten the memory
        of all."""
        found = self._job(runs)
        if found is not None:
            return found
        if len(runs) == 1:
            return [{}]
        return [finding for run in runs for finding in (self._job([run]) or [{}])]

    def _job(self, runs: Sequence[Run]) -> list[dict[str, Any]] | None:
        """The findings of one job; None where a limit ended it."""
        body = {
            "source_roots": self.library.source_roots,
            "modules": self.library.tests,
            "runs": [{**asdict(run), "wall_seconds": run.cpu_seconds * _WALL_PER_CPU} for run in runs],
        }
        paths = sysconfig.get_paths()
        job = Job(
            argv=_ARGV,
            files={
                **probe_files(),
                **{f"tree/{path}": text for path, text in self.files.items()},
                "suite.json": json.dumps(body),
            },
            environment={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            python_path=tuple(dict.fromkeys((paths["purelib"], paths["platlib"]))),
            collect=("findings.json",),
            collect_bytes=128 * MIB,
            limits=_limits(runs),
        )
        result = self._sandbox.run(job)
        content = result.files.get("findings.json")
        if result.ok and content is not None:
            found: list[dict[str, Any]] = json.loads(content)
            return found
        if result.cause in (Cause.TIMEOUT, Cause.OUT_OF_MEMORY, Cause.OUTPUT_LIMIT) and runs[0].tests is not None:
            return None
        last = result.error or result.stderr.decode(errors="replace")[-500:]
        raise MachineryFailed(
            f"running its tests ended with {result.cause}: {last.strip()}",
            where=f"{self.library.name}=={self.library.version}",
            mend="run the same command again; if it stays, see what `crrl doctor` says about the sandbox",
        )


def suite_of(library: Library, sandbox: Sandbox, *, workers: int = 2, report: Report = lambda *_: None) -> Suite:
    """The suite of a pinned library, which is fetched if need be.

    Raises:
        MachineryFailed: it cannot be fetched.
    """
    report(f"{library.name}: fetching", 0, 1)
    archive = fetch_package(library.name, library.version, library.sha256, PackageKind.SDIST)
    report(f"{library.name}: fetching", 1, 1)
    return Suite(library, files_in(archive), sandbox, workers=workers, report=report)


def _found(finding: Mapping[str, Any]) -> Found:
    return Found(
        ended="statuses" in finding,
        statuses=finding.get("statuses", {}),
        lines=finding.get("lines", {}),
        seconds=finding.get("seconds", {}),
        with_processes=frozenset(finding.get("with_processes", ())),
    )


def _limits(runs: Sequence[Run]) -> Limits:
    seconds = sum(run.cpu_seconds for run in runs)
    return Limits(
        wall_seconds=120.0 + seconds * _WALL_PER_CPU,
        cpu_seconds=round(300 + seconds),
        memory_bytes=4 * GIB,
        processes=64,
        disk_bytes=256 * MIB,
        file_bytes=128 * MIB,
        open_files=512,
        output_bytes=4 * MIB,
    )
