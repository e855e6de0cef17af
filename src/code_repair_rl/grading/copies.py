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
    packages = [*map(Path, places), *Path(interpreter_folder()).glob("lib/python3*/site-packages")]
    everywhere = [*packages, *(vendored for place in packages for vendored in place.glob("*/_vendor"))]
    found: dict[str, None] = {}
    for module in sorted(modules):
        folder, _, name = module.rpartition("/")
        own = [f"{escape(name)}{ending}" for ending in ("", ".py", ".*.so")] + [f"__pycache__/{escape(name)}.*.pyc"]
        for place in everywhere:
            if (place / folder).is_dir():
                for pattern in own:
                    found |= dict.fromkeys(map(str, (place / folder).glob(pattern)))
    return tuple(found)


def _modules(paths: Iterable[str], roots: Sequence[str]) -> frozenset[str]:
    """The modules that the files make up, as paths without ending, but those that the tests are run by.

    Top-level ones; of folders without `__init__.py`, whose names several packages may share, those in them.
    """
    known = set(paths)
    found: set[str] = set()
    for path in map(PurePosixPath, known):
        for root in {".", *roots}:
            if path.suffix == ".py" and path.is_relative_to(root):
                parts = path.relative_to(root).parts
                depth = 1
                while depth < len(parts) and str(PurePosixPath(root, *parts[:depth], "__init__.py")) not in known:
                    depth += 1
                found.add("/".join(parts[:depth]).removesuffix(".py"))
    return frozenset(module for module in found if module.partition("/")[0] not in RUNNER)
