"""Bugs in real libraries, with fail-to-pass and pass-to-pass tests from their own suites.

A library is fetched as a source distribution, pinned by version and sha256. Its suite runs once watched, so that it
is known which test executes which line; a mutant then needs only the tests that execute its line.
"""

from __future__ import annotations

import ast
import hashlib
import json
import random
import sysconfig
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any

import libcst as cst

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.packages import PackageKind, fetch_package
from code_repair_rl.sandbox import GIB, MIB, Job, Limits, Sandbox
from code_repair_rl.synthesis.bugs import Unusable
from code_repair_rl.synthesis.localisation import ranked_lines
from code_repair_rl.synthesis.mutation import Mutant, sampled_mutants
from code_repair_rl.synthesis.mutation.source import Source
from code_repair_rl.synthesis.observe import probe_files
from code_repair_rl.tasks import (
    Hints,
    Kind,
    Line,
    Origin,
    RepositoryTests,
    StoredTree,
    Task,
    exact_lines,
    split_of,
    store_tree,
)


@dataclass(frozen=True, slots=True)
class Library:
    """A pinned source distribution with its own tests."""

    name: str
    version: str
    sha256: str
    licence: str
    source: str
    """The folder (or file) of the code, relative to the distribution's top."""
    tests: tuple[str, ...]
    """Folders of the tests."""
    source_roots: tuple[str, ...] = (".",)


LIBRARIES: tuple[Library, ...] = (
    Library(
        "toolz",
        "1.2.0",
        "9667a038e9d6ecba37995e26cb2f59ec6420b6ad8dd9677de59db9b956b08490",
        "BSD-3-Clause",
        "toolz/",
        ("toolz/tests", "toolz/sandbox/tests"),
    ),
)

_BUGS_PER_FUNCTION = 3
_CANDIDATES_PER_FUNCTION = 5
_MOST_TESTS = 30
"""Tests run for one mutant: those that execute its line, the ones that execute least first."""

_MOST_FILE_BYTES = 400_000
_LEFT_OUT = ("docs/", "doc/", ".github/", "examples/", "bench/", "misc/")
_BASELINE_SECONDS = 300.0
_MUTANT_SECONDS = 8.0
_BATCH = 12

_LIMITS = Limits(
    wall_seconds=900.0,
    cpu_seconds=600,
    memory_bytes=4 * GIB,
    processes=64,
    disk_bytes=256 * MIB,
    file_bytes=128 * MIB,
    open_files=512,
    output_bytes=4 * MIB,
)
_START = "import sys; sys.path.insert(0, ''); from probe.suite import main; main()"


@dataclass(frozen=True, slots=True)
class Suite:
    """A library's tree and what its tests execute."""

    library: Library
    files: Mapping[str, str]
    lines: Mapping[str, frozenset[tuple[str, int]]]
    """Test that passes to the source lines (path, number) that it executes."""

    def tests_by_line(self) -> dict[tuple[str, int], list[str]]:
        """For every executed line the tests that execute it, the most specific first."""
        found: dict[tuple[str, int], list[str]] = {}
        for test in sorted(self.lines, key=lambda test: (len(self.lines[test]), test)):
            for line in self.lines[test]:
                found.setdefault(line, []).append(test)
        return found


@dataclass(frozen=True, slots=True)
class _Candidate:
    path: str
    function: str
    mutant: Mutant
    tests: tuple[str, ...]


def library_bugs(
    libraries: Sequence[Library],
    sandbox: Sandbox,
    *,
    seed: int,
    limit: int | None,
    workers: int,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> tuple[list[Task], list[Unusable]]:
    """Repair tasks with one bug each in a library's function that its own tests catch.

    The first tasks cover as many functions as possible. With a limit the libraries share it evenly, in order.

    Raises:
        MachineryFailed: a library cannot be fetched, or the sandbox could not run a job to its end.
    """
    tasks: list[Task] = []
    unusable: list[Unusable] = []
    for place, library in enumerate(libraries):
        wanted = None if limit is None else -(-(limit - len(tasks)) // (len(libraries) - place))
        made, refused = _bugs_of(library, sandbox, seed=seed, limit=wanted, workers=workers, progress=progress)
        tasks += made
        unusable += refused
    return tasks, unusable


def _bugs_of(
    library: Library,
    sandbox: Sandbox,
    *,
    seed: int,
    limit: int | None,
    workers: int,
    progress: Callable[[str, int, int], None],
) -> tuple[list[Task], list[Unusable]]:
    archive = fetch_package(library.name, library.version, library.sha256, PackageKind.SDIST)
    progress(f"{library.name}: watching its tests", 0, 1)
    suite = watched(library, files_in(archive), sandbox)
    progress(f"{library.name}: watching its tests", 1, 1)
    candidates = _candidates(suite, seed, limit)
    batches = [candidates[start : start + _BATCH] for start in range(0, len(candidates), _BATCH)]
    done = 0
    tasks: list[Task] = []
    per_function: dict[str, int] = {}
    digest = store_tree(suite.files)
    step = f"{library.name}: running bugs"
    progress(step, 0, len(candidates))
    with ThreadPoolExecutor(workers) as pool:
        for batch, statuses in zip(
            batches, pool.map(lambda part: _statuses(suite, part, sandbox), batches), strict=True
        ):
            done += len(batch)
            progress(step, done, len(candidates))
            for candidate, found in zip(batch, statuses, strict=True):
                problem = f"{library.name}/{candidate.path}::{candidate.function}"
                task = _task(suite, digest, candidate, problem, found, seed)
                if task is not None and per_function.get(problem, 0) < _BUGS_PER_FUNCTION:
                    per_function[problem] = per_function.get(problem, 0) + 1
                    tasks.append(task)
    functions = {f"{library.name}/{candidate.path}::{candidate.function}" for candidate in candidates}
    reasons = [Unusable(name, "the tests catch no mutant") for name in sorted(functions - per_function.keys())]
    return tasks[:limit], reasons


def files_in(archive: Path) -> dict[str, str]:
    """Path to text of a source distribution, below its top folder; binaries, documentation and meta data left out.

    Raises:
        BadInput: it is no source distribution.
    """
    files: dict[str, str] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                path = PurePosixPath(*PurePosixPath(member.name).parts[1:]).as_posix()
                stream = tar.extractfile(member) if member.isfile() and member.size <= _MOST_FILE_BYTES else None
                if stream is None or path.startswith(_LEFT_OUT) or ".egg-info/" in path:
                    continue
                try:
                    files[path] = stream.read().decode()
                except UnicodeDecodeError:
                    continue
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BadInput(f"this is no source distribution ({error})", where=str(archive)) from error
    return dict(sorted(files.items()))


def watched(library: Library, files: Mapping[str, str], sandbox: Sandbox) -> Suite:
    """Run a library's suite twice, watched, and keep the tests that pass both times.

    Raises:
        MachineryFailed: the suite did not come to its end.
    """
    runs = [_run_suite(library, files, sandbox, {"watch": [library.source]}, _BASELINE_SECONDS) for _ in range(2)]
    for run in runs:
        if not run:
            raise MachineryFailed("its own tests did not end in time", where=f"{library.name}=={library.version}")
    in_tests = tuple(f"{folder}/" for folder in library.tests)
    lines = {
        test: frozenset((path, line) for path, line in found if not path.startswith(in_tests))
        for test, found in runs[0]["lines"].items()
        if all(run["statuses"].get(test) == "passed" for run in runs)
    }
    return Suite(library, files, lines)


def _run_suite(
    library: Library, files: Mapping[str, str], sandbox: Sandbox, work: Mapping[str, Any], seconds: float
) -> Any:
    paths = sysconfig.get_paths()
    body = {"source_roots": library.source_roots, "modules": library.tests, "wall_seconds": seconds, **work}
    job = Job(
        argv=("python", "-c", _START),
        files={
            **probe_files(),
            **{f"tree/{path}": text for path, text in files.items()},
            "suite.json": json.dumps(body),
        },
        environment={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        python_path=tuple(dict.fromkeys((paths["purelib"], paths["platlib"]))),
        collect=("findings.json",),
        collect_bytes=64 * MIB,
        limits=_LIMITS,
    )
    result = sandbox.run(job)
    content = result.files.get("findings.json")
    if not result.ok or content is None:
        last = result.error or result.stderr.decode(errors="replace")[-500:]
        raise MachineryFailed(
            f"running its tests ended with {result.cause}: {last.strip()}", where=f"{library.name}=={library.version}"
        )
    return json.loads(content)


def _candidates(suite: Suite, seed: int, limit: int | None) -> list[_Candidate]:
    """Mutants of functions that some test executes, one of each function before the second of any."""
    tests = suite.tests_by_line()
    executed: dict[str, set[int]] = {}
    for path, line in tests:
        executed.setdefault(path, set()).add(line)
    functions = [
        (path, *function)
        for path in sorted(executed)
        for function in _functions(suite.files[path])
        # The line of `def` is executed at import, whatever the tests do.
        if executed[path] & set(range(function[1] + 1, function[2] + 1))
    ]
    random.Random(f"{seed}:{suite.library.name}").shuffle(functions)
    each = _CANDIDATES_PER_FUNCTION
    if limit is not None:
        functions = functions[: 2 * limit + 4]
        each = min(each, -(-2 * limit // max(1, len(functions))) + 1)
    sources = {path: Source(suite.files[path]) for path in {function[0] for function in functions}}
    rows: list[list[_Candidate]] = []
    for path, name, first, last in functions:
        rng = random.Random(f"{seed}:{suite.library.name}:{path}:{name}")
        drawn = sampled_mutants(
            sources[path], each, rng, only=_on_lines(executed[path] & set(range(first + 1, last + 1)))
        )
        found = [(mutant, tuple(tests.get((path, mutant.line), ())[:_MOST_TESTS])) for mutant in drawn]
        rows.append([_Candidate(path, name, mutant, needed) for mutant, needed in found if needed])
    return [candidate for turn in zip_longest(*rows) for candidate in turn if candidate is not None]


def _on_lines(lines: Set[int]) -> Callable[[Source, cst.CSTNode], bool]:
    return lambda source, node: source.line(node) in lines


def _functions(text: str) -> list[tuple[str, int, int]]:
    """Qualified name, line of `def` and last line of the module's functions and its classes' methods."""
    found: list[tuple[str, int, int]] = []

    def visit(body: Iterable[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.append((prefix + node.name, node.lineno, node.end_lineno or node.lineno))

    visit(ast.parse(text).body, "")
    return found


def _statuses(suite: Suite, batch: Sequence[_Candidate], sandbox: Sandbox) -> list[dict[str, str]]:
    mutants = [{"path": one.path, "text": one.mutant.text, "tests": one.tests} for one in batch]
    findings = _run_suite(suite.library, suite.files, sandbox, {"mutants": mutants}, _MUTANT_SECONDS)
    return [dict(finding.get("statuses", {})) for finding in findings]


def _task(
    suite: Suite, digest: str, candidate: _Candidate, problem: str, statuses: Mapping[str, str], seed: int
) -> Task | None:
    """The task, if every test came to its end and some fail."""
    failing = tuple(test for test in candidate.tests if statuses.get(test) == "failed")
    passing = tuple(test for test in candidate.tests if statuses.get(test) == "passed")
    if not failing or len(failing) + len(passing) < len(candidate.tests):
        return None
    library, path = suite.library, candidate.path
    before, after = {path: candidate.mutant.text}, {path: suite.files[path]}
    names = "\n".join(f"- {test}" for test in failing[:3]) + ("\n- ..." if len(failing) > 3 else "")
    return Task(
        task_id=f"libraries-bugs/{problem}/{candidate.mutant.operator}/{_short_digest(candidate.mutant.text)}",
        kind=Kind.REPAIR,
        files=StoredTree(digest, before),
        description=f"These tests of {library.name} fail:\n{names}",
        hints=Hints(
            suspicious_lines=_suspicious(suite, candidate, failing, passing),
            exact_lines=exact_lines(before, after),
        ),
        oracle=after,
        tests=RepositoryTests(fail_to_pass=failing, pass_to_pass=passing, source_roots=library.source_roots),
        split=split_of(problem),
        problem=problem,
        origin=Origin(
            source=library.name,
            version=library.version,
            detail={"operator": candidate.mutant.operator, "line": candidate.mutant.line, "seed": seed},
        ),
        licence=library.licence,
    )


def _suspicious(
    suite: Suite, candidate: _Candidate, failing: Sequence[str], passing: Sequence[str]
) -> tuple[Line, ...]:
    """By Ochiai over what the tests execute in the correct library: the bug itself may lead them elsewhere.

    Lines are told by their numbers in the faulty file, which has the same lines but where one was dropped.
    """
    faulty = candidate.mutant.text.splitlines()
    shift = len(faulty) - len(suite.files[candidate.path].splitlines())
    counts: dict[tuple[str, int], list[int]] = {}
    for place, tests in enumerate((failing, passing)):
        for test in tests:
            for line in suite.lines[test]:
                counts.setdefault(line, [0, 0])[place] += 1
    places = sorted(counts)
    spectrum = [(number, counts[line][0], counts[line][1]) for number, line in enumerate(places)]
    ranked = ranked_lines(spectrum, len(failing))
    found: list[Line] = []
    for path, number in (places[index] for index in ranked[:3]):
        moved = number + shift if path == candidate.path and number > candidate.mutant.line else number
        lines = faulty if path == candidate.path else suite.files[path].splitlines()
        if 1 <= moved <= len(lines):
            found.append(Line(path=path, number=moved, text=lines[moved - 1]))
    return tuple(found)


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
