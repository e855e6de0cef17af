"""Repair tasks mined from the commits of a git repository: the tests that came with a fix, on the code before it.

A commit is used if it changes tests and a little source, if some of its tests fail on the old source and pass on the
new one, twice and in shuffled order, and if grading then agrees. Tests run in this environment, so what the repository
needs has to be installed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from code_repair_rl.edits.lines import lines_of
from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.sandbox import Sandbox
from code_repair_rl.synthesis.bugs import Unusable
from code_repair_rl.synthesis.library import Library
from code_repair_rl.synthesis.localisation import ranked_lines
from code_repair_rl.synthesis.suites import Found, Run, Suite
from code_repair_rl.tasks import (
    Hints,
    Kind,
    Line,
    Origin,
    RepositoryTests,
    StoredTree,
    Task,
    exact_lines,
    faulty_lines,
    split_of,
    store_tree,
)
from code_repair_rl.tasks.repositories import git, is_repository, licence_of, tree_at
from code_repair_rl.tasks.swe_rows import is_test

MOST_COMMITS = 2000
"""Looked at, newest first."""
MOST_SOURCE_FILES = 5
MOST_CHANGED_LINES = 200
"""Of source, old ones and new ones."""
MOST_TEST_MODULES = 8

_RUN_SECONDS = 60.0
_SUSPICIOUS_LINES = 3
_FAILING_TESTS_TOLD = 5
_DOCUMENTATION = (".md", ".rst", ".txt", ".adoc")
_TRAILER = re.compile(r"^[A-Z][A-Za-z-]+(-by|-Id|-id): .*$|^\(cherry picked from commit .*\)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that might be a fix with its tests."""

    hash: str
    parent: str
    message: str
    before: Mapping[str, str]
    """The parent's tree."""
    source: Mapping[str, str | None]
    """Path to text afterwards of the source that it changes; None for a file that goes."""
    tests: Mapping[str, str]
    """Path to text afterwards of the test files that it changes."""

    @property
    def modules(self) -> tuple[str, ...]:
        """The changed files that hold tests."""
        return tuple(sorted(path for path in self.tests if _is_module(path)))


def commit_tasks(
    repository: Path,
    sandbox: Sandbox,
    *,
    limit: int | None = None,
    licence: str | None = None,
    workers: int = 2,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> tuple[list[Task], list[Unusable]]:
    """Repair tasks of a repository's commits, newest first; not yet graded.

    Args:
        repository: its folder, or a bare clone.
        sandbox: where the tests run.
        limit: stop after so many tasks.
        licence: SPDX identifier; by the repository's licence file where None.
        workers: jobs at once.
        progress: told how many of the commits are done.

    Returns:
        The tasks, and commits that change tests and source but gave none, with the reason.

    Raises:
        BadInput: it is no git repository, or has no commits.
    """
    if not is_repository(repository):
        raise BadInput("this is no git repository", where=str(repository))
    name = repository.resolve().name.removesuffix(".git")
    tasks: list[Task] = []
    unusable: list[Unusable] = []
    pairs = _commits(repository)
    step = "running the tests of commits"
    for done, (commit_hash, parent) in enumerate(pairs):
        progress(step, done, len(pairs))
        if limit is not None and len(tasks) >= limit:
            break
        commit = candidate(repository, commit_hash, parent)
        made = _task(name, commit, sandbox, licence, workers) if isinstance(commit, Commit) else commit
        if isinstance(made, Task):
            tasks.append(made)
        elif made is not None:
            unusable.append(Unusable(f"{name}@{commit_hash[:12]}", made))
    progress(step, len(pairs), len(pairs))
    return tasks, unusable


def candidate(repository: Path, commit_hash: str, parent: str) -> Commit | str | None:
    """The commit if it changes tests and a little source; why not; None where it is not about tests and source.

    Raises:
        BadInput: no such commits.
    """
    changed = _changed(repository, parent, commit_hash)
    tests = [path for path in changed if is_test(path)]
    source = [path for path in changed if not is_test(path) and not _is_documentation(path)]
    if not any(_is_module(path) for path in tests) or not any(path.endswith(".py") for path in source):
        return None
    if len(source) > MOST_SOURCE_FILES:
        return "it changes many source files"
    before, after = tree_at(repository, parent), tree_at(repository, commit_hash)
    source = [path for path in source if before.get(path) != after.get(path)]  # binaries are in neither
    lines = sum(
        len(faulty_lines(before.get(path, ""), after.get(path, "")))
        + len(faulty_lines(after.get(path, ""), before.get(path, "")))
        for path in source
    )
    if lines > MOST_CHANGED_LINES:
        return "it changes many lines of source"
    message = git(repository, "show", "--no-patch", "--format=%B", commit_hash).decode(errors="replace")
    found = Commit(
        hash=commit_hash,
        parent=parent,
        message=message,
        before=before,
        source={path: after.get(path) for path in source},
        tests={path: after[path] for path in tests if path in after},
    )
    if not found.modules:
        return "it only takes tests away"
    if len(found.modules) > MOST_TEST_MODULES:
        return "it changes many test modules"
    return found


def _task(name: str, commit: Commit, sandbox: Sandbox, licence: str | None, workers: int) -> Task | str:
    """The task, or why there is none."""
    roots = tuple(root for root in (".", "src", "lib") if root == "." or _has_code(commit.before, root))
    stated = licence or licence_of(commit.before)
    library = Library(name, commit.hash[:12], "", stated, "", commit.modules, roots)
    old = {**commit.before, **commit.tests}
    new = dict(commit.source)
    runs = [
        Run(watch=("",), cpu_seconds=_RUN_SECONDS),
        Run(shuffle=1, cpu_seconds=_RUN_SECONDS),
        Run(files=new, cpu_seconds=_RUN_SECONDS),
        Run(files=new, shuffle=2, cpu_seconds=_RUN_SECONDS),
    ]
    try:
        found = Suite(library, old, sandbox, workers=workers).run(runs, "")
    except MachineryFailed as error:
        return f"its tests could not be run ({error.what})"
    without_fix, with_fix = found[:2], found[2:]
    if not all(one.ended for one in found):
        return "its tests do not end"
    passing = {test for test in with_fix[0].statuses if all(run.passed(test) for run in with_fix)}
    if not passing:
        return "none of its tests passes with the fix: is what it needs installed?"
    fail_to_pass = tuple(sorted(test for test in passing if not any(run.passed(test) for run in without_fix)))
    pass_to_pass = tuple(sorted(test for test in passing if all(run.passed(test) for run in without_fix)))
    if not fail_to_pass:
        return "its tests pass without the fix"
    problem = f"commits/{name}/{commit.hash[:12]}"
    return Task(
        task_id=problem,
        kind=Kind.REPAIR,
        files=StoredTree(store_tree(commit.before), {}),
        description=_description(commit, fail_to_pass),
        hints=Hints(
            suspicious_lines=_suspicious(without_fix[0], commit, fail_to_pass, pass_to_pass),
            exact_lines=exact_lines(commit.before, commit.source),
        ),
        oracle=dict(commit.source),
        tests=RepositoryTests(
            fail_to_pass=fail_to_pass,
            pass_to_pass=pass_to_pass,
            test_files=dict(commit.tests),
            source_roots=roots,
        ),
        split=split_of(problem),
        problem=problem,
        origin=Origin(source=name, version=commit.hash, detail={"parent": commit.parent}),
        licence=stated,
    )


def _description(commit: Commit, failing: Sequence[str]) -> str:
    message = re.sub(r"\n{3,}", "\n\n", _TRAILER.sub("", commit.message)).strip()
    told = "".join(f"\n- {test}" for test in failing[:_FAILING_TESTS_TOLD])
    more = "\n- ..." if len(failing) > _FAILING_TESTS_TOLD else ""
    return f"{message}\n\nThese tests fail:{told}{more}"


def _suspicious(run: Found, commit: Commit, failing: Sequence[str], passing: Sequence[str]) -> tuple[Line, ...]:
    """Source lines ranked by Ochiai over what the tests execute in the old code."""
    counts: dict[tuple[str, int], list[int]] = {}
    for place, tests in enumerate((failing, passing)):
        for test in tests:
            for path, numbers in run.lines.get(test, {}).items():
                for number in numbers if path in commit.before and not is_test(path) else ():
                    counts.setdefault((path, number), [0, 0])[place] += 1
    places = sorted(counts)
    spectrum = [(index, counts[place][0], counts[place][1]) for index, place in enumerate(places)]
    lines = []
    for index in ranked_lines(spectrum, len(failing))[:_SUSPICIOUS_LINES]:
        path, number = places[index]
        texts = lines_of(commit.before[path])
        if number <= len(texts):
            lines.append(Line(path=path, number=number, text=texts[number - 1]))
    return tuple(lines)


def _commits(repository: Path) -> list[tuple[str, str]]:
    """Hash and first parent of commits that are no merges and have a parent, newest first."""
    printed = git(repository, "rev-list", "--parents", "--no-merges", f"--max-count={MOST_COMMITS}", "HEAD").decode()
    rows = [line.split() for line in printed.splitlines()]
    return [(row[0], row[1]) for row in rows if len(row) == 2]


def _changed(repository: Path, parent: str, commit_hash: str) -> list[str]:
    printed = git(repository, "diff-tree", "-r", "--no-renames", "--name-only", "-z", parent, commit_hash)
    return [path for path in printed.decode(errors="surrogateescape").split("\0") if path]


def _is_documentation(path: str) -> bool:
    return path.endswith(_DOCUMENTATION) or path.split("/")[0] in ("doc", "docs", ".github")


def _is_module(path: str) -> bool:
    """Whether pytest would collect tests from a file."""
    name = PurePosixPath(path).name
    return name.endswith(".py") and (name.startswith("test_") or name.endswith("_test.py"))


def _has_code(files: Mapping[str, str], folder: str) -> bool:
    return any(path.startswith(f"{folder}/") and path.endswith(".py") for path in files)
