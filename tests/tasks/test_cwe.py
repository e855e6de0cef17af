"""The tree of weaknesses: read from its wheel, and how near two weaknesses are."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.tasks.cwe import CweTree, tree_in

NODES = """id,name,abstract,layer
CWE-707,Improper Neutralization,Pillar,"{""CWE-707"":0}"
CWE-74,Injection of a kind ('Injection'),Class,"{""CWE-707"":1}"
CWE-79,Improper Neutralization of Input ('Cross-site Scripting'),Base,"{""CWE-707"":2}"
CWE-943,Improper Neutralization in Data Query Logic,Class,"{""CWE-707"":2}"
CWE-89,Improper Neutralization of SQL ('SQL Injection'),Base,"{""CWE-707"":3}"
CWE-664,Improper Control of a Resource,Pillar,"{""CWE-664"":0}"
CWE-400,Uncontrolled Resource Consumption,Class,"{""CWE-664"":1}"
"""
RELATIONS = """source,target,name
CWE-707,CWE-74,ParentOf
CWE-74,CWE-79,ParentOf
CWE-74,CWE-943,ParentOf
CWE-943,CWE-89,ParentOf
CWE-664,CWE-400,ParentOf
"""


@pytest.fixture
def tree(tmp_path: Path) -> CweTree:
    wheel = tmp_path / "cwe.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("cwe_tree/data/nodes.csv", NODES)
        archive.writestr("cwe_tree/data/rels.csv", RELATIONS)
    return tree_in(wheel)


def test_distances_are_steps_over_the_nearest_common_ancestor(tree: CweTree) -> None:
    assert tree.distance("CWE-89", "CWE-89") == 0
    assert tree.distance("CWE-89", "CWE-74") == 2
    assert tree.distance("CWE-89", "CWE-79") == 3
    assert tree.distance("CWE-89", "CWE-400") is None


def test_nearness_falls_with_distance_and_is_nothing_across_pillars(tree: CweTree) -> None:
    # Depths: CWE-707 1, CWE-74 2, CWE-79 3, CWE-943 3, CWE-89 4.
    assert tree.nearness("CWE-89", "CWE-89") == 1.0
    assert tree.nearness("CWE-89", "CWE-943") == pytest.approx(6 / 7)
    assert tree.nearness("CWE-89", "CWE-79") == pytest.approx(4 / 7)
    assert tree.nearness("CWE-89", "CWE-400") == 0.0
    assert tree.nearness("CWE-89", "CWE-1") == 0.0
    assert tree.nearness("CWE-79", "CWE-89") == tree.nearness("CWE-89", "CWE-79")


def test_short_names(tree: CweTree) -> None:
    assert tree.short_name("CWE-89") == "SQL Injection"
    assert tree.short_name("CWE-943") == "Improper Neutralization in Data Query Logic"
    assert tree.short_name("CWE-1") == ""


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr("x.py", "")
    with pytest.raises(BadInput, match="not the cwe-tree wheel"):
        tree_in(tmp_path / "x.whl")
