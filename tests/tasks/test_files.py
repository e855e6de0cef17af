"""Task files: read back as written, and every fault named with its line and key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.errors import BadInput
from code_repair_rl.tasks import (
    Hints,
    Kind,
    Line,
    Split,
    StoredTree,
    Task,
    built_set,
    load_tasks,
    read_tasks,
    write_tasks,
)
from tests.tasks.examples import addition

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
paths = text.map(lambda name: f"src/_{name.replace('/', '|').replace(chr(0), '|')}")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@given(
    files=st.dictionaries(paths, text, min_size=1, max_size=3),
    description=text,
    oracle=st.one_of(text, st.dictionaries(paths, st.none() | text, max_size=3)),
    numbers=st.lists(st.integers(1, 10**6), max_size=3),
    split=st.sampled_from(Split),
)
def test_any_task_is_read_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, str],
    description: str,
    oracle: Any,
    numbers: list[int],
    split: Split,
) -> None:
    lines = tuple(Line(path=next(iter(files)), number=number, text=description) for number in numbers)
    hints = Hints(failing_call=description or None, suspicious_lines=lines)
    kind = Kind.CLASSIFY if isinstance(oracle, str) else Kind.REPAIR
    update = {"kind": kind, "files": files, "description": description, "oracle": oracle, "hints": hints}
    task = addition().model_copy(update={**update, "split": split})
    path = tmp_path_factory.mktemp("tasks") / "tasks.jsonl"
    write_tasks(path, [task])
    assert list(read_tasks(path)) == [task]


def test_the_same_tasks_give_the_same_bytes(tmp_path: Path) -> None:
    tasks = [addition("a"), addition("b")]
    write_tasks(tmp_path / "1.jsonl", tasks)
    write_tasks(tmp_path / "2.jsonl", read_tasks(tmp_path / "1.jsonl"))
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


def written(path: Path, *objects: Any) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in objects))
    return path


def as_json(task: Task) -> dict[str, Any]:
    return task.model_dump(mode="json")


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda row: row.pop(key)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda row: row.update(colour="red"), r"tasks\.jsonl:2: colour: Extra inputs.*\n.*docs/tasks\.md"),
        (lambda row: row["tests"].update(chek="x"), r"tasks\.jsonl:2: tests\.chek: "),
        (lambda row: row["tests"].update(type="guess"), r"tasks\.jsonl:2: tests: .*'function', 'repository'"),
        (lambda row: row.update(schema_version=2), r"tasks\.jsonl:2: schema_version: .*\n.*build the tasks again"),
        (lambda row: row.update(split="holdout"), r"tasks\.jsonl:2: split: "),
        (lambda row: row.update(task_id=""), r"tasks\.jsonl:2: task_id: "),
        (lambda row: row.update(oracle={"a.py": 3}), r"tasks\.jsonl:2: oracle\.a\.py: "),
        (lambda row: row["hints"]["exact_lines"][0].update(number=0), r":2: hints\.exact_lines\.0\.number: "),
        (
            lambda row: row.update(oracle="benign"),
            r":2: oracle: the known-good answer of a repair task is an object of",
        ),
        (lambda row: row.update(kind="classify"), r":2: oracle: the known-good answer of a classify task is a label"),
        (lambda row: row["files"].update({"../x.py": ""}), r":2: files: '\.\./x\.py' does not name a file inside"),
        (lambda row: row["oracle"].update({"/x.py": ""}), r":2: oracle: '/x\.py' does not name a file inside"),
        (lambda row: row["hints"]["exact_lines"][0].update(path="b.py"), r":2: hints: 'b\.py' is none of the task's"),
        (lambda row: row.update(files={"tree": "0" * 64, "overlay": {"": ""}}), r":2: files: '' does not name a file"),
        (without("files"), r"tasks\.jsonl:2: files: Field required"),
        (lambda row: row.update(task_id="first"), r"tasks\.jsonl:2: task_id: 'first' is on line 1 already"),
        (lambda row: row.update(split="test"), r":2: split: problem 'addition' is in split train on line 1"),
    ],
)
def test_a_fault_is_named_with_line_and_key(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    row = as_json(addition("second"))
    damage(row)
    path = written(tmp_path / "tasks.jsonl", as_json(addition("first")), row)
    with pytest.raises(BadInput, match=complaint):
        list(read_tasks(path))


def test_a_stored_tree_is_not_loaded_to_read_a_task(cache: Path, tmp_path: Path) -> None:
    row = as_json(addition()) | {"files": {"tree": "0" * 64, "overlay": {}}}
    (task,) = read_tasks(written(tmp_path / "tasks.jsonl", row))
    assert isinstance(task.files, StoredTree)


@pytest.mark.parametrize("line", ["{", "[]", "null", '"x"', "\xff\xfe"])
def test_a_line_that_is_no_task_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(b"\n" + line.encode("latin-1") + b"\n")
    with pytest.raises(BadInput, match=r"tasks\.jsonl:2: "):
        list(read_tasks(path))


def test_a_file_cut_off_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    write_tasks(path, [addition()])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadInput, match=r"tasks\.jsonl:1: "):
        list(read_tasks(path))


def test_a_set_is_loaded_by_name_split_and_limit(cache: Path) -> None:
    tasks = [addition("a"), addition("b", problem="other", split=Split.TEST), addition("c")]
    write_tasks(built_set("some-set"), tasks)
    assert load_tasks("some-set") == tasks
    assert load_tasks("some-set", split="test") == tasks[1:2]
    assert load_tasks("some-set", split=Split.TRAIN, limit=1) == tasks[:1]
    assert load_tasks(built_set("some-set"), limit=2) == tasks[:2]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("humaneval-bugs", "humaneval-bugs was not built yet\n.*run `crrl tasks build humaneval-bugs`"),
        ("absent/tasks.jsonl", "absent/tasks.jsonl: no such task file"),
        ("absent.jsonl", "absent.jsonl: no such task file"),
        ("/", "/: this is a folder"),
    ],
)
def test_what_is_not_there_gives_an_error_with_the_mend(cache: Path, name: str, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        load_tasks(name)


def test_a_folder_that_has_a_sets_name_does_not_hide_the_set(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tasks(built_set("tiny"), [])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert load_tasks("tiny") == []


def test_an_unknown_split_is_refused_with_the_known_ones(cache: Path) -> None:
    write_tasks(built_set("some-set"), [addition()])
    with pytest.raises(BadInput, match=r"no split 'dev'\n.*train, validation, test"):
        load_tasks("some-set", split="dev")
