"""`crrl tasks`: build, look at and check sets, with honest exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from code_repair_rl.cli.app import app
from code_repair_rl.errors import BadInput
from code_repair_rl.packages import sha256_of
from code_repair_rl.synthesis import humaneval
from code_repair_rl.tasks import load_tasks, write_tasks
from tests.synthesis.problems_for_tests import wheel_in
from tests.tasks.examples import WHOLE, addition


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder in which the pinned wheel is one written for the tests."""
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "packages" / f"{humaneval.PACKAGE}-{humaneval.VERSION}"
    folder.mkdir(parents=True)
    monkeypatch.setattr(humaneval, "SHA256", sha256_of(wheel_in(folder)))
    return tmp_path / "home"


def crrl(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["tasks", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def test_a_set_is_built_shown_counted_and_validated(home: Path) -> None:
    built = json.loads(crrl("build", "humaneval-bugs", "--limit", "6", "--json"))
    assert built["tasks"] == 6 == len(load_tasks("humaneval-bugs"))
    assert not built["was_there"]
    assert built["unusable"]["HumanEval/3"].startswith("the reference solution fails its check")
    assert json.loads(crrl("build", "humaneval-bugs", "--limit", "6", "--json"))["was_there"]

    (row,) = (row for row in json.loads(crrl("list", "--json")) if row["name"] == "humaneval-bugs")
    assert row["tasks"] == 6
    assert "6 tasks" in crrl("build", "humaneval-bugs", "--limit", "6")
    assert "humaneval-bugs" in crrl("list")

    counted = json.loads(crrl("stats", "humaneval-bugs", "--json"))
    assert counted["tasks"] == 6
    assert sum(tasks for tasks, _ in counted["splits"].values()) == 6
    assert "kinds of bugs" in crrl("stats", "humaneval-bugs")

    first = load_tasks("humaneval-bugs")[0]
    assert first.task_id in crrl("stats", "humaneval-bugs", "--ids")
    assert json.loads(crrl("show", "humaneval-bugs", first.task_id, "--json"))["task_id"] == first.task_id
    shown = crrl("show", "humaneval-bugs", first.task_id)
    assert "known-good edit" in shown
    assert first.description.splitlines()[0] in shown
    prompt = crrl("show", "humaneval-bugs", first.task_id, "--prompt", "exact-line")
    assert f"Suspicious:\n{first.hints.exact_lines[0].text}\n" in prompt

    assert json.loads(crrl("validate", "humaneval-bugs", "--json"))["kept"] == 6
    assert "6 of 6 tasks hold" in crrl("validate", "humaneval-bugs", "--repeat", "2")


def test_a_set_that_was_damaged_since_is_built_again(home: Path) -> None:
    crrl("build", "humaneval-bugs", "--limit", "2")
    path = home / "tasks" / "humaneval-bugs.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert not json.loads(crrl("build", "humaneval-bugs", "--limit", "2", "--json"))["was_there"]
    assert path.read_bytes() == whole


def test_a_set_can_be_written_elsewhere(home: Path, tmp_path: Path) -> None:
    crrl("build", "humaneval-bugs", "--limit", "2", "--out", str(tmp_path / "mine.jsonl"))
    assert len(load_tasks(tmp_path / "mine.jsonl")) == 2
    with pytest.raises(BadInput, match="not built yet"):
        load_tasks("humaneval-bugs")


def test_what_does_not_hold_is_told_and_quarantined(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    good = addition("good")
    oracle_fails = addition("oracle-fails").model_copy(update={"oracle": {"solution.py": WHOLE.replace("+", "*")}})
    no_bug = addition("no-bug").model_copy(
        update={"files": {"solution.py": WHOLE + "\n"}, "oracle": {"solution.py": WHOLE}}
    )
    assert good.tests is not None
    only_visible = addition("only-visible").model_copy(
        update={
            "files": {"solution.py": "def add(a, b):\n    return a + b if a != 1 else 0\n"},
        }
    )
    untested = addition("untested").model_copy(update={"tests": None})
    write_tasks(path, [good, oracle_fails, no_bug, only_visible, untested])

    found = json.loads(crrl("validate", str(path), "--json", code=1))
    reasons = {row["task_id"]: row["reason"] for row in found["refused"]}
    assert found["kept"] == 2
    assert reasons["oracle-fails"].startswith("the known-good answer does not pass (failed: ")
    assert reasons["no-bug"] == "the unchanged code passes"
    assert reasons["only-visible"].startswith("only visible examples fail")
    assert "untested" not in reasons  # graded by comparison
    assert len(load_tasks(path)) == 5

    assert "2 of 5 tasks hold" in crrl("validate", str(path), "--quarantine", code=1)
    assert [task.task_id for task in load_tasks(path)] == ["good", "untested"]
    rows = (tmp_path / "tasks.quarantine.jsonl").read_text().splitlines()
    assert {json.loads(row)["task"]["task_id"] for row in rows} == set(reasons)
    assert "2 of 2 tasks hold" in crrl("validate", str(path))

    write_tasks(path, [good, oracle_fails, no_bug.model_copy(update={"task_id": "no-bug-2"})])
    crrl("validate", str(path), "--quarantine", code=1)
    later = (tmp_path / "tasks.quarantine.jsonl").read_text().splitlines()
    assert later[:3] == rows  # what was moved out before stays, and what is there already is not written again
    assert [json.loads(row)["task"]["task_id"] for row in later[3:]] == ["no-bug-2"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["build", "no-such-set"], "no task set is called 'no-such-set'\n.*use one of .*humaneval-bugs"),
        (["build", "humaneval-bugs", "--limit", "0"], "at least 1"),
        (["show", "humaneval-bugs"], "not built yet\n.*run `crrl tasks build humaneval-bugs`"),
        (["stats", "absent.jsonl"], "absent.jsonl: no such task file"),
        (["validate", "absent.jsonl"], "absent.jsonl: no such task file"),
        (["validate", "x", "--quarantine", "--limit", "3"], "--quarantine would drop"),
    ],
)
def test_bad_input_is_one_clear_error(home: Path, arguments: list[str], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        crrl(*arguments)


def test_an_unknown_task_or_hint_level_is_named(home: Path, tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks.jsonl", [addition()])
    with pytest.raises(BadInput, match="no task begins with 'x'"):
        crrl("show", str(tmp_path / "tasks.jsonl"), "x")
    with pytest.raises(BadInput, match=r"no hint level 'all'\n.*exact-line"):
        crrl("show", str(tmp_path / "tasks.jsonl"), "--prompt", "all")


def test_the_command_itself_exits_with_two_on_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text("{\n")
    command = [sys.executable, "-m", "code_repair_rl", "tasks", "stats", str(path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert f"error: {path}:1: " in finished.stderr
    assert "Traceback" not in finished.stderr


def test_pairs_are_imported(home: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"before": "x = 1\\n", "after": "x = 2\\n"}\n')
    out = tmp_path / "mine.jsonl"
    assert json.loads(crrl("import", str(tmp_path / "pairs.jsonl"), "--out", str(out), "--json"))["tasks"] == 1
    assert load_tasks(out)[0].files_after_oracle() == {"solution.py": "x = 2\n"}


def test_a_pair_for_training_that_is_nearly_one_for_testing_is_quarantined(home: Path, tmp_path: Path) -> None:
    rows = [
        {"id": name, "split": split, "before": WHOLE.replace("+", "-").replace("add", name), "after": WHOLE}
        for name, split in (("one", "test"), ("two", "train"))
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "mine.jsonl"
    told = json.loads(crrl("import", str(tmp_path / "pairs.jsonl"), "--out", str(out), "--json"))
    assert (told["tasks"], told["quarantined"]) == (1, 1)
    assert [task.task_id for task in load_tasks(out)] == ["one"]
    (row,) = (tmp_path / "mine.quarantine.jsonl").read_text().splitlines()
    assert json.loads(row)["reason"] == "nearly the same as one of the test split"
