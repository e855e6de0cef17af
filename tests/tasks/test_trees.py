"""Large trees are kept once, named by content, and read back only when looked into."""

from __future__ import annotations

from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.tasks import StoredTree, Task, read_tasks, store_tree, write_tasks
from tests.tasks.examples import addition

FILES = {"a.py": "a = 1\n", "pkg/b.py": "b = 2\n"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def task_on_a_tree() -> Task:
    return addition().model_copy(update={"files": StoredTree(store_tree(FILES), {"a.py": "a = 0\n", "new.py": "n\n"})})


def test_an_overlay_lies_over_the_stored_files() -> None:
    tree = StoredTree(store_tree(FILES), {"a.py": "a = 0\n", "new.py": "n\n"})
    assert dict(tree) == {"a.py": "a = 0\n", "pkg/b.py": "b = 2\n", "new.py": "n\n"}
    assert tree == {**FILES, "a.py": "a = 0\n", "new.py": "n\n"}
    assert len(tree) == 3
    with pytest.raises(KeyError):
        tree["absent.py"]


def test_a_tree_is_stored_once_whatever_the_order_of_its_files(cache: Path) -> None:
    assert store_tree(FILES) == store_tree(dict(reversed(FILES.items())))
    assert len(list((cache / "trees").iterdir())) == 1


def test_a_task_file_names_the_tree_and_holds_only_the_overlay(tmp_path: Path) -> None:
    task = task_on_a_tree()
    write_tasks(tmp_path / "tasks.jsonl", [task])
    assert "b = 2" not in (tmp_path / "tasks.jsonl").read_text()
    (again,) = read_tasks(tmp_path / "tasks.jsonl")
    assert again == task
    assert isinstance(again.files, StoredTree)
    assert again.files["pkg/b.py"] == "b = 2\n"


def test_an_absent_or_damaged_tree_is_named_with_the_mend(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"not in the cache folder\n.*crrl tasks build"):
        len(StoredTree("0" * 64, {}))
    digest = store_tree({"c.py": "c\n"})
    (cache / "trees" / f"{digest}.json").write_text("{}")
    with pytest.raises(BadInput, match="damaged"):
        len(StoredTree(digest, {}))
