"""`crrl classify` with a real (tiny) model, and `crrl eval` and `crrl tasks` on classification tasks."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from code_repair_rl.cli.classification_view import print_classification
from code_repair_rl.cli.classify import show
from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation.classification import ClassificationResult
from code_repair_rl.pipelines.classify import opinion, sections_of
from code_repair_rl.rollouts.scripted import ScriptedEngine
from code_repair_rl.tasks import Split, write_tasks
from tests.cli.command import crrl
from tests.tasks.labelled import CODE, labelled

TINY = ("--model", "tiny-random", "--samples", "2", "--max-new-tokens", "8", "--max-prompt-tokens", "4000")


def test_a_file_gets_a_verdict_for_people_and_for_scripts(tmp_path: Path) -> None:
    file = tmp_path / "db.py"
    file.write_text(CODE)
    told = json.loads(crrl("classify", str(file), *TINY, "--json"))
    (section,) = told["sections"]
    assert (section["label"], section["vote_share"]) == ("unreadable", 1.0)  # a random model writes no tags
    assert told["vulnerable"] is None  # no verdict is not a clean bill
    assert told["not_asked"] == []
    assert "opinion" in told["note"]
    assert "unreadable" in crrl("classify", str(file), *TINY, "--fail-if-vulnerable", code=4)


def test_cited_lines_are_shown_and_highlighted(tmp_path: Path) -> None:
    (section,) = sections_of(
        "db.py", CODE, ScriptedEngine(["x"]), labels=("benign", "vulnerable"), max_prompt_tokens=9999
    ).asked
    answer = "<think>\nline 3: cursor.execute(query)\n</think>\n<answer>vulnerable</answer>"
    out = io.StringIO()
    show(opinion(section, [answer, answer, "?"]), CODE, Path("db.py"), Console(file=out, width=100))
    told = out.getvalue()
    assert "vulnerable  67% of the votes" in told
    assert "line 3 cited by 100%: cursor.execute(query)" in told
    assert "fetchall" in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("absent.py",), "cannot be read"),
        (("empty.py",), "empty"),
        (("db.py", "--lines", "x"), "write 10-40"),
        (("db.py", "--labels", "odd"), "binary"),
        (("db.py", "--labels", "top-5"), "name all of them"),
        (("db.py", "--labels", "CWE-1,CWE-2"), "name all of them"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "db.py").write_text(CODE)
    (tmp_path / "empty.py").write_text("\n")
    with pytest.raises(BadInput, match=said):
        crrl("classify", *arguments, *TINY)


def test_an_evaluation_of_labels_shows_them_beside_baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tasks = [
        labelled(
            label,
            task_id=f"{number}/{label}",
            problem=str(number),
            pair=str(number),
            split=Split.TRAIN if number < 3 else Split.TEST,
            code=CODE.replace("find", f"find_{number}_{label[0]}"),
        )
        for number in range(6)
        for label in ("vulnerable", "benign")
    ]
    write_tasks(tmp_path / "set.jsonl", tasks)
    assert "6 tasks" not in crrl("tasks", "stats", "set.jsonl")
    assert "12 of 12 tasks hold" in crrl("tasks", "validate", "set.jsonl")
    asked = ("eval", "-m", "tiny-random", "-t", "set.jsonl", "--samples", "2", "--max-new-tokens", "8")
    asked += ("--max-prompt-tokens", "4000", "--dtype", "float32", "--workers", "1", "--run", "run", "--name", "x")
    told = crrl(*asked)
    for word in (
        "balanced accuracy",
        "bag of words",
        "majority class",
        "random",
        "one sample",
        "majority of 2",
        "VD-S",
    ):
        assert word in told
    figures = json.loads(crrl(*asked, "--json"))
    assert figures["hint"] == "none"
    assert figures["classification"]["errors"] == {"no-think": 12}
    again = ClassificationResult.read(tmp_path / "run" / "classification" / "x.json")
    out = io.StringIO()
    print_classification(again, Console(file=out, width=120))
    assert "answers that could be read: 0.0 %" in out.getvalue()
