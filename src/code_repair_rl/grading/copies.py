"""Installed copies of what a task is about: the answer could be imported from there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from glob import escape
from pathlib import Path, PurePosixPath

from code_repair_rl.grading.policy import RUNNER
from code_repair_rl.sandbox.command_line import interpreter_folder
from code_repair_rl.tasks import RepositoryTests, Task


def installed_copies(task: Task, places: Sequence[str]) -> tuple[str, ...]:
    """Files and folders that hold modules of the task's own names, vendored ones included.

    Args:
        task: whose modules they are.
        places: folders of packages; those of the interpreter are looked through as well.
    """
    roots = task.tests.source_roots if isinstance(task.tests, RepositoryTests) else ()
    return _copies(_modules(task.files, roots), tuple(places))


@lru_cache(maxsize=256)
def _copies(modules: frozenset[str], places: tuple[str, ...]) -> tuple[str, ...]:
    everywhere = [*map(Path, places), *Path(interpreter_folder()).glob("lib/python3*/site-packages")]
    found: dict[str, None] = {}
    for module in sorted(modules):
        folder, _, name = module.rpartition("/")
        own = [f"{escape(name)}{ending}" for ending in ("", ".py", ".*.so")] + [f"__pycache__/{escape(name)}.*.pyc"]
        above = f"{escape(folder)}/" if folder else ""
        for place in everywhere:
            for pattern in own:
                for prefix in (above, f"*/_vendor/{above}"):
                    found |= dict.fromkeys(map(str, place.glob(prefix + pattern)))
    return tuple(found)


def _modules(paths: Iterable[str], roots: Sequence[str]) -> frozenset[str]:
    """The modules that the files make up, as paths without ending, but those that the tests are run by.

    Top-level ones; of a folder without `__init__.py`, whose name several packages may share, those in it.
    """
    known = set(paths)
    found: set[str] = set()
    for path in map(PurePosixPath, known):
        for root in {".", *roots}:
            if path.suffix == ".py" and path.is_relative_to(root):
                parts = path.relative_to(root).parts
                shared = len(parts) > 1 and str(PurePosixPath(root, parts[0], "__init__.py")) not in known
                found.add("/".join(parts[: 1 + shared]).removesuffix(".py"))
    return frozenset(module for module in found if module.partition("/")[0] not in RUNNER)
