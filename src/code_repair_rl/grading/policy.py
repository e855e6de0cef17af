"""What an answer to a repository task must not touch: whatever decides how the tests are run."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Mapping
from pathlib import PurePosixPath

from code_repair_rl.tasks import RepositoryTests

_NEVER = ("conftest.py", "sitecustomize.py", "usercustomize.py", "*.pth", "pytest.ini", ".pytest.ini", "pytest.toml")
"""File names, in any folder, that change how pytest or the interpreter itself behaves."""
_CONFIGURATION = ("tox.ini", "setup.cfg", "pyproject.toml")
"""May hold pytest's options, but are edited for honest reasons too: the answer's version is not used."""
RUNNER = frozenset({"pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "code_repair_rl"})
"""Modules that the tests are run by."""


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
    for path in after:
        if not _is_protected(path, tests):
            if path in before or not shadows(path, tests):
                tree[path] = after[path]
            else:
                notes.append(f"{path} was left out: it shadows a module that the tests are run by")
        elif after[path] != before.get(path):
            notes.append(f"the answer's {path} was not used")
    for path in before:
        if _is_protected(path, tests):
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


def _is_protected(path: str, tests: RepositoryTests) -> bool:
    if PurePosixPath(path).name in _CONFIGURATION:
        return True
    return any(path == pattern or fnmatch.fnmatchcase(path, pattern) for pattern in protected_paths(tests))
