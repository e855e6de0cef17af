"""What an answer to a repository task must not touch: whatever decides how the tests are run."""

from __future__ import annotations

import ast
import fnmatch
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import PurePosixPath

from code_repair_rl.tasks import RepositoryTests

_NEVER = (
    "conftest.py", "sitecustomize.py", "usercustomize.py", "*.pth", "pytest.ini", ".pytest.ini", "pytest.toml",
    ".pytest.toml",
)  # fmt: skip
"""File names, in any folder, that change how pytest or the interpreter itself behaves."""
_CONFIGURATION = ("tox.ini", "setup.cfg", "pyproject.toml")
"""May hold pytest's options, but are edited for honest reasons too: the answer's version is not used."""
RUNNER = frozenset({"pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "code_repair_rl"})
"""Modules that the tests are run by."""
_TEST_FOLDERS = ("test", "tests")
_NAMES_OF_TESTS = ("test_*.py", "*_test.py", "tests.py", "conftest.py")
_OF_TESTS = frozenset({"pytest", "_pytest", "unittest", "mock"})
"""Modules with which source can call a test off, or make something that equals everything."""


def protected_paths(tests: RepositoryTests) -> tuple[str, ...]:
    """Paths and patterns that an edit is rejected for touching."""
    in_any_folder = [pattern for name in _NEVER for pattern in (name, f"*/{name}")]
    test_modules = {test_id.partition("::")[0] for test_id in (*tests.fail_to_pass, *tests.pass_to_pass)}
    return tuple(dict.fromkeys([*in_any_folder, *tests.test_files, *sorted(test_modules)]))


def graded_tree(
    before: Mapping[str, str], after: Mapping[str, str], tests: RepositoryTests
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The tree that is tested: of `after` only the source, of `before` everything that decides how tests are run.

    Args:
        before: the task's tree.
        after: the tree after the answer's edit.
        tests: whose pristine files are laid on top.

    Returns:
        The tree, and what was put back or left out, as sentences.
    """
    tree: dict[str, str] = {}
    notes: list[str] = []
    kept = [*protected_paths(tests), *(f"{folder}/*" for folder in _test_folders(tests))]

    def is_kept(path: str) -> bool:
        return PurePosixPath(path).name in _CONFIGURATION or any(fnmatch.fnmatchcase(path, one) for one in kept)

    folders = _test_folders(tests)
    for path in after:
        if not is_kept(path):
            if path in before:
                tree[path] = after[path]
            elif shadows(path, tests):
                notes.append(f"{path} was left out: it shadows a module that the tests are run by")
            elif _is_source(path, folders) and (name := _newly_imported(after[path], _sources(before, folders))):
                notes.append(f"{path} was left out: it imports {name}, which no source of this repository does")
            else:
                tree[path] = after[path]
        elif after[path] != before.get(path):
            notes.append(f"the answer's {path} was not used")
    for path in before:
        if is_kept(path):
            tree[path] = before[path]
            if path not in after:
                notes.append(f"{path} was put back")
    tree.update(tests.test_files)
    return tree, tuple(notes)


def shadows(path: str, tests: RepositoryTests) -> bool:
    """Whether a new file at `path` would be imported in the place of the standard library or of the test runner."""
    for root in (*tests.source_roots, "."):
        base = PurePosixPath(root)
        place = PurePosixPath(path)
        if str(base) == "." or place.is_relative_to(base):
            first = (place if str(base) == "." else place.relative_to(base)).parts[0]
            name = first.removesuffix(".py").partition(".")[0]
            if name in RUNNER or name in sys.stdlib_module_names:
                return True
    return False


def calls_on_the_runner(
    before: Mapping[str, str], after: Mapping[str, str], oracle: Mapping[str, str], tests: RepositoryTests
) -> str:
    """What of the task's source the answer lets import what tests are made of, as a sentence; empty where nothing does.

    With `pytest.xfail` source calls off the test that calls it; `unittest.mock.ANY` equals whatever is expected.
    Where source of the task, before or after the known-good edit, imports such a module, the answer's may as well.
    (New files that do are left out by `graded_tree`: what an agent tried things with is no offence.)
    """
    folders = _test_folders(tests)
    for path in before:
        text = after.get(path, "")
        if not _is_source(path, folders) or before[path] == text:
            continue
        if name := _newly_imported(text, chain(_sources(before, folders), _sources(oracle, folders))):
            return f"{path} imports {name}, which no source of this repository does"
    return ""


def _newly_imported(text: str, known: Iterable[str]) -> str:
    """A module that tests are made of which `text` imports and none of the `known` texts does.

    These are read only where `text` imports one at all.
    """
    names = _imported(text) & _OF_TESTS if any(name in text for name in _OF_TESTS) else set()
    for one in known if names else ():
        if any(name in one for name in names):
            names -= _imported(one)
    return min(names, default="")


def _sources(files: Mapping[str, str], test_folders: Sequence[str]) -> Iterator[str]:
    return (files[path] for path in files if _is_source(path, test_folders))


def _is_source(path: str, test_folders: Sequence[str]) -> bool:
    """Whether a file is Python, and neither in a folder of tests nor named as one."""
    place = PurePosixPath(path)
    return place.suffix == ".py" and not (
        any(place.is_relative_to(folder) for folder in test_folders)
        or any(fnmatch.fnmatchcase(place.name, pattern) for pattern in _NAMES_OF_TESTS)
    )


def _imported(text: str) -> set[str]:
    """Top-level names of the modules that a text imports."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in names}


def _test_folders(tests: RepositoryTests) -> tuple[str, ...]:
    """The folders of tests that the named ones lie in: what their modules import from there decides as well."""
    found: dict[str, None] = {}
    for test_id in (*tests.fail_to_pass, *tests.pass_to_pass):
        for folder in PurePosixPath(test_id.partition("::")[0]).parents:
            if folder.name in _TEST_FOLDERS:
                found[str(folder)] = None
                break
    return tuple(found)
