"""`stack`: from folders, packages, archives and data sets to masked functions; what is refused says why."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.grading import Grader, Outcome
from code_repair_rl.synthesis.python_sources import python_files
from code_repair_rl.synthesis.sourced import SourceOptions, build_from
from code_repair_rl.synthesis.stack import stack_tasks
from code_repair_rl.tasks import Kind, load_tasks, messages, oracle_answer
from tests.synthesis.test_quality import GOOD

CLASS = '''class Door:
    """A door."""

    @classmethod
    async def open(cls, width: int) -> "Door":
        """Open a new door as wide as it is asked to be.

        Narrow ones are refused.
        """
        if width < 3:
            raise ValueError(width)
        door = cls()
        door.width = width
        return door

    def shut(self) -> None:
        self.width = 0
'''


def _folder(path: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(text.encode())
    return path


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


STACK_ROW = {
    "content": GOOD,
    "avg_line_length": 20.0,
    "max_line_length": 60,
    "alphanum_fraction": 0.7,
    "licenses": ["MIT"],
    "repository_name": "someone/clips",
    "path": "clips/clip.py",
    "size": len(GOOD),
    "lang": "Python",
}
MASKED_ROW = {
    "function_name": "open",
    "docstring": "Open a new door as wide as it is asked to be.",
    "masked_code": CLASS[:30] + "# MASKED: open function (lines 4-14)",
    "implementation": "…",
    "start_line": 4,
    "end_line": 14,
    "file_content": CLASS,
}


def test_a_folder_gives_masked_functions_that_can_be_written_back(tmp_path: Path) -> None:
    folder = _folder(
        tmp_path / "project",
        {
            "src/clip.py": GOOD,
            "src/door.py": CLASS,
            "tests/clip.py": GOOD,
            ".venv/x.py": GOOD,
            "src/test_door.py": CLASS,
            "src/broken.py": "def f(:\n",
        },
    )
    tasks, left_out = stack_tasks(str(folder), licence="MIT")
    assert sorted(task.task_id for task in tasks) == [
        "stack/project/src/clip.py::clip:1/whole",
        "stack/project/src/door.py::Door.open:4/whole",
    ]
    assert {one.problem: one.reason for one in left_out} == {
        "project/src/broken.py": "the file is not this Python's",
        "project/src/door.py::Door.shut:16": "the code is trivial",
    }
    (door,) = (task for task in tasks if "door" in task.task_id)
    assert door.kind is Kind.IMPLEMENT
    assert door.licence == "MIT"
    assert door.problem == "stack/project/src/door.py"
    assert "    # MASKED: open function (lines 4-14)\n" in door.files["src/door.py"]
    prompt = messages(door)[1]["content"]
    assert "@classmethod\nasync def open(cls, width: int) -> 'Door':\n\nOpen a new door" in prompt
    assert "width < 3" not in prompt
    with Grader(workers=1) as grader:
        assert grader.grade(door, oracle_answer(door)).passed
        assert grader.grade(door, "*** Empty Patch\n").outcome is Outcome.UNCHANGED


def test_a_body_mask_keeps_the_docstring_in_the_file_instead_of_the_description(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "project", {"door.py": CLASS})
    (task,), _ = stack_tasks(str(folder), kind="body")
    assert 'raise NotImplementedError("open is to be written")' in task.files["door.py"]
    assert "Narrow ones are refused" in task.files["door.py"]
    assert "Narrow ones are refused" not in task.description


def test_copies_of_a_function_are_left_out_wherever_they_stand(tmp_path: Path) -> None:
    indented = "class A:\n    x = 1\n\n" + "".join(f"    {line}\n" if line else "\n" for line in GOOD.splitlines())
    folder = _folder(tmp_path / "p", {"a.py": GOOD, "b.py": indented, "c.py": GOOD.replace("value", "number")})
    tasks, left_out = stack_tasks(str(folder))
    assert [task.problem for task in tasks] == ["stack/p/a.py"]
    assert [one.reason for one in left_out] == ["nearly the same as p/a.py::clip:1"] * 2


def test_a_function_that_many_files_have_gives_one_task(tmp_path: Path) -> None:
    copies = {f"{number}.py": GOOD.replace("value", f"value_{number}") for number in range(12)}
    tasks, left_out = stack_tasks(str(_folder(tmp_path / "p", copies)))
    assert (len(tasks), len(left_out)) == (1, 11)


def test_a_function_whose_near_copy_the_prompt_would_show_is_left_out(tmp_path: Path) -> None:
    twin = GOOD.replace("def clip", "def _clip").replace(
        "Keep a value within bounds and tell nobody about it.", "Clip."
    )
    tasks, left_out = stack_tasks(str(_folder(tmp_path / "p", {"a.py": f"{GOOD}\n\n{twin}", "b.py": CLASS})))
    assert [task.problem for task in tasks] == ["stack/p/b.py"]
    reasons = {one.problem: one.reason for one in left_out}
    assert reasons["p/a.py::clip:1"] == "nearly the same as _clip, which stays in the file"


def test_an_installed_package_and_a_single_file_will_do(tmp_path: Path) -> None:
    files = python_files("typer")
    assert {file.source for file in files} == {"typer"}
    assert {file.licence for file in files} == {"MIT"}
    assert files[0].version
    single = _folder(tmp_path, {"clip.py": GOOD}) / "clip.py"
    assert [task.task_id for task in stack_tasks(str(single))[0]] == ["stack/clip/clip.py::clip:1/whole"]
    assert {file.path for file in python_files("json")} >= {"json/decoder.py", "json/encoder.py"}
    with pytest.raises(BadInput, match="no folder, no file and no installed package"):
        python_files("no_such_package_anywhere")


def test_archives_tell_name_version_and_licence(tmp_path: Path) -> None:
    about = "Metadata-Version: 2.1\nName: clips\nVersion: 1.2\nClassifier: License :: OSI Approved :: MIT License\n\n"
    sdist = tmp_path / "clips-1.2.tar.gz"
    with tarfile.open(sdist, "w:gz") as tar:
        for name, text in {"PKG-INFO": about, "src/clips.py": GOOD, "tests/test_clips.py": "x = 1\n"}.items():
            info = tarfile.TarInfo(f"clips-1.2/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    wheel = tmp_path / "clips-1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("clips/core.py", GOOD)
        packed.writestr(
            "clips-1.2.dist-info/METADATA", about.replace("Classifier", "License-Expression: 0BSD\nClassifier")
        )
    (one,), (two,) = python_files(str(sdist)), python_files(str(wheel))
    assert (one.path, one.source, one.version, one.licence) == ("src/clips.py", "clips", "1.2", "MIT")
    assert (two.path, two.source, two.version, two.licence) == ("clips/core.py", "clips", "1.2", "0BSD")
    damaged = tmp_path / "x.tar.gz"
    damaged.write_bytes(sdist.read_bytes()[:60])
    with pytest.raises(BadInput, match="cannot be read"):
        python_files(str(damaged))


def test_rows_of_the_stack_smol_carry_their_repository_and_licences(tmp_path: Path) -> None:
    other = {**STACK_ROW, "lang": "Java", "path": "X.java"}
    source = _jsonl(tmp_path / "data.jsonl", [STACK_ROW, other])
    (task,), _ = stack_tasks(source)
    assert task.task_id == "stack/data.jsonl/someone/clips/clips/clip.py::clip:1/whole"
    assert task.licence == "MIT"
    assert task.origin.detail["repository"] == "someone/clips"


def test_rows_of_stack_smol_docstrings_name_the_one_function_to_mask(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([MASKED_ROW]), tmp_path / "data.parquet")
    (task,), _ = stack_tasks(str(tmp_path / "data.parquet"))
    assert task.oracle == {"0.py": CLASS}
    assert "    # MASKED: open function (lines 4-14)\n" in task.files["0.py"]


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ({**STACK_ROW, "content": None}, "content"),
        ({key: value for key, value in STACK_ROW.items() if key != "repository_name"}, "repository_name"),
        ({**STACK_ROW, "licenses": "MIT"}, "licenses"),
        ({**MASKED_ROW, "start_line": 0}, "start_line"),
        ({**MASKED_ROW, "start_line": "four"}, "start_line"),
        ({**MASKED_ROW, "end_line": 2}, "end_line"),
        ({key: value for key, value in MASKED_ROW.items() if key != "file_content"}, "file_content"),
    ],
)
def test_a_malformed_row_is_named_with_its_key(tmp_path: Path, row: dict[str, Any], key: str) -> None:
    source = _jsonl(tmp_path / "data.jsonl", [STACK_ROW, row])
    with pytest.raises(BadInput, match=rf"data.jsonl:2: {key}: "):
        stack_tasks(source)


def test_a_set_is_built_where_it_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "home"))
    source = str(_folder(tmp_path / "project", {"clip.py": GOOD, "door.py": CLASS}))
    report = build_from("stack", source, SourceOptions(mask="body", limit=1))
    assert (report.tasks, len(report.unusable)) == (1, 1)
    assert len(load_tasks("stack")) == 1
    again = build_from("stack", source, SourceOptions(mask="body"), out=tmp_path / "a.jsonl")
    assert again.tasks == 2
    assert (tmp_path / "a.jsonl").read_text() == "".join(
        task.model_dump_json() + "\n" for task in stack_tasks(source, kind="body")[0]
    )
    with pytest.raises(BadInput, match=r"no function passes the filters \(1: no docstring\)"):
        build_from(
            "stack", str(_folder(tmp_path / "bare", {"a.py": "def f():\n a = 1\n b = 2\n return a\n"})), SourceOptions()
        )
    with pytest.raises(BadInput, match="no task set called"):
        build_from("humaneval-bugs", source, SourceOptions())
