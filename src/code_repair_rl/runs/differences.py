"""In what recipes differ, and which runs are of the same one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

_T = TypeVar("_T")

NOT_COMPARED = frozenset({"resume", "run_dir", "launch", "sandbox", "tracking"})
"""Recipe keys that say how and where a run is started rather than what it is: a job that goes on elsewhere has another
server's address, other processes and another number of graders."""


def changed_keys(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys whose values differ, besides those that only say how and where a run is started."""
    changed = []
    for key in sorted({*one, *other}):
        if not prefix and key in NOT_COMPARED:
            continue
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            changed += changed_keys(a, b, f"{prefix}{key}.")
        elif a != b:
            changed.append(f"{prefix}{key}")
    return changed


def alike(items: Iterable[_T], recipe_of: Callable[[_T], Mapping[str, Any]]) -> list[list[_T]]:
    """The items in groups whose recipes do not differ, in order of their first."""
    groups: list[list[_T]] = []
    for item in items:
        recipe = recipe_of(item)
        known = next((group for group in groups if not changed_keys(recipe_of(group[0]), recipe)), None)
        if known is None:
            groups.append([item])
        else:
            known.append(item)
    return groups
