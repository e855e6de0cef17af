"""Tests whose ends we know: a runner that reports them otherwise does not tell the truth about the others either."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

_FAILING = 3
_PASSING = 2


@dataclass(frozen=True, slots=True)
class Canaries:
    """One more test module, named like the task's own."""

    path: str
    text: str
    statuses: dict[str, str]
    """Node id to how it must end."""


def canaries(test_ids: Sequence[str], taken: Sequence[str]) -> Canaries:
    """Canaries beside the module of one of `test_ids`, with names made of theirs.

    Their names differ from run to run, so that no answer can know them; they are not seeded for that reason.
    """
    draw = random.Random(secrets.randbits(64))
    beside = draw.choice(list(test_ids)).partition("::")[0]
    module = PurePosixPath(beside)
    words = _words(test_ids)
    path = beside
    while path in taken:
        path = str(module.with_name(f"{module.stem}_{'_'.join(draw.sample(words, min(2, len(words))))}.py"))
        words.append(f"{draw.choice(words)}{draw.randrange(2, 90)}")
    kinds = ["failed"] * _FAILING + ["passed"] * _PASSING
    draw.shuffle(kinds)
    lines: list[str] = []
    statuses: dict[str, str] = {}
    for index, kind in enumerate(kinds):
        name = f"test_{'_'.join(draw.sample(words, min(3, len(words))))}_{index + draw.randrange(2, 50)}"
        numbers = draw.sample(range(1000), 4)
        claimed = sorted(numbers) if kind == "passed" else sorted(numbers, reverse=True)
        lines += [f"def {name}():", f"    values = {numbers}", f"    assert sorted(values) == {claimed}", "", ""]
        statuses[f"{path}::{name}"] = kind
    return Canaries(path, "\n".join(lines), statuses)


def _words(test_ids: Sequence[str]) -> list[str]:
    names = [test_id.rpartition("::")[2].partition("[")[0] for test_id in test_ids]
    words = {word for name in names for word in name.split("_") if word.isidentifier() and word != "test"}
    return sorted(words | {"basic", "values", "order", "empty"})
