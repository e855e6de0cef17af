"""Which labelled functions are not independent of each other, and the split that each such group goes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from code_repair_rl.tasks.splits import split_of
from code_repair_rl.tasks.task import Split
from code_repair_rl.tasks.vulnerabilities import LabelledFunction

STAYS = (Split.TEST, Split.VALIDATION, Split.TRAIN)
"""Who stays: what stands in two splits leaves the one that comes later here."""


def problems_of(functions: Sequence[LabelledFunction]) -> Mapping[str, str]:
    """Function id to its problem: a project, or a commit where the source has its own splits.

    Where such a source names no commit, a project is one problem in each of its splits. What the sides of a pair belong
    to is one problem, whatever else it holds.
    """
    leader: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for function in functions:
        key = _key(function)
        leader.setdefault(key, key)
        if function.pair_id is not None:
            first = _leader(leader, pairs.setdefault(function.pair_id, key))
            leader[_leader(leader, key)] = first
    return {function.function_id: _leader(leader, _key(function)) for function in functions}


def splits_of(functions: Sequence[LabelledFunction], problems: Mapping[str, str]) -> Mapping[str, Split]:
    """Problem to split: the source's own, else by hash. A problem in several goes to the one that is judged on."""
    found: dict[str, Split] = {}
    for function in functions:
        problem = problems[function.function_id]
        split = function.split or split_of(problem)
        found[problem] = min(split, found.get(problem, split), key=STAYS.index)
    return found


def _key(function: LabelledFunction) -> str:
    if function.split is None:
        return function.project or function.commit or function.pair_id or function.function_id
    if function.commit:
        return f"{function.project}/{function.commit[:12]}".strip("/")
    return f"{function.project}/{function.split}" if function.project else function.pair_id or function.function_id


def _leader(leader: Mapping[str, str], key: str) -> str:
    while leader[key] != key:
        key = leader[key]
    return key
