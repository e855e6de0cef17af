"""The verdict cache: by content of task, answer and grader; in memory, and on disk where a folder is named."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from code_repair_rl.errors import CrrlError
from code_repair_rl.grading.repository import packages
from code_repair_rl.grading.verdict import GRADER_VERSION, Outcome, TestResult, TestStatus, Verdict, grader_version
from code_repair_rl.home import write_atomically
from code_repair_rl.tasks import Environment, RepositoryTests, Task

_KEPT_IN_MEMORY = 20_000


def key_of(task: Task, files_after: Mapping[str, str], isolation: str) -> str:
    """What a verdict depends on, as one digest: the tests, both trees, the tier and the grader's version; for a
    repository's tests in this environment, also what is installed in it."""
    digest = hashlib.sha256(f"{grader_version(task)}\0{isolation}\0".encode())
    if isinstance(task.tests, RepositoryTests) and (task.tests.environment or Environment()).image is None:
        digest.update(_installed().encode())
    digest.update(task.tests.model_dump_json().encode() if task.tests is not None else b"")
    for tree in (task.files, task.oracle if isinstance(task.oracle, Mapping) else {}, files_after):
        _add_tree(digest, tree)
    return digest.hexdigest()


@cache
def _installed() -> str:
    names = sorted(found.name for place in packages() for found in Path(place).glob("*.dist-info"))
    return "\0".join([sys.version, *names])


def measure_key_of(task: Task, oracle: Mapping[str, str]) -> str:
    """What the known-good answer's own run depends on: the tests and the tree after it, whatever the fault was.

    Tasks that share both, as bugs in one function do, share the measure.
    """
    digest = hashlib.sha256(task.tests.model_dump_json().encode() if task.tests is not None else b"")
    _add_tree(digest, oracle)
    return digest.hexdigest()


def _add_tree(digest: hashlib._Hash, tree: Mapping[str, str | None]) -> None:
    digest.update(b"\1")
    for path in sorted(tree):
        text = tree[path]
        digest.update(f"{path}\0{'-' if text is None else len(text)}\0{text}".encode(errors="surrogatepass"))


class VerdictCache:
    """Verdicts by key. A no-verdict is never kept; a damaged entry counts as absent and is written anew."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._memory: OrderedDict[str, Verdict] = OrderedDict()

    def get(self, key: str) -> Verdict | None:
        """The verdict, stamped `cached`; None where there is none."""
        verdict = self._memory.get(key)
        if verdict is None and self._folder is not None:
            verdict = _read(self._path(key), key)
            if verdict is not None:
                self._remember(key, verdict)
        return None if verdict is None else replace(verdict, cached=True)

    def put(self, key: str, verdict: Verdict) -> None:
        """Keep a verdict. A disk that is full costs the entry on disk, not the verdict."""
        if verdict.outcome is Outcome.NO_VERDICT:
            return
        self._remember(key, verdict)
        if self._folder is not None:
            body = verdict_to_json(verdict)
            with suppress(OSError, CrrlError):
                write_atomically(self._path(key), json.dumps({"key": key, "sum": _sum(key, body), "verdict": body}))

    def _remember(self, key: str, verdict: Verdict) -> None:
        self._memory[key] = verdict
        if len(self._memory) > _KEPT_IN_MEMORY:
            self._memory.popitem(last=False)

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / key[:2] / f"{key}.json"


def verdict_to_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON-ready data; `verdict_from_json` reads it back."""
    return asdict(verdict)


def verdict_from_json(data: Mapping[str, Any]) -> Verdict:
    """The verdict that `verdict_to_json` wrote.

    Raises:
        ValueError, KeyError, TypeError: it is not one.
    """
    tests = tuple(
        TestResult(test["name"], TestStatus(test["status"]), test["visible"], test["detail"]) for test in data["tests"]
    )
    fields = {**data, "outcome": Outcome(data["outcome"]), "tests": tests, "evidence": tuple(data["evidence"])}
    return Verdict(**fields)


def _sum(key: str, body: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{key}{json.dumps(body, sort_keys=True)}".encode()).hexdigest()


def _read(path: Path, key: str) -> Verdict | None:
    try:
        entry = json.loads(path.read_bytes())
        if entry["key"] != key or entry["sum"] != _sum(key, entry["verdict"]):
            return None
        verdict = verdict_from_json(entry["verdict"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return verdict if verdict.grader_version == GRADER_VERSION else None
