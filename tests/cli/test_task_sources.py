"""`crrl tasks` on what the user names: built --from it, shown, counted; pass rates recorded from evaluations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from code_repair_rl.cli.app import app
from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation.result import EvalResult, SampleResult, TaskResult
from code_repair_rl.tasks import load_tasks
from code_repair_rl.tasks.difficulty import PassRate, pass_rates
from tests.synthesis.test_quality import GOOD
from tests.synthesis.test_stack import CLASS


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def project(tmp_path: Path) -> str:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "clip.py").write_text(GOOD)
    (folder / "door.py").write_text("x = 1\n" * 100 + CLASS)
    return str(folder)


def crrl(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["tasks", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_folder_becomes_a_set_that_can_be_looked_at(project: str) -> None:
    told = crrl("build", "stack", "--from", project, "--mask", "body", "--licence", "MIT")
    assert "stack: 2 tasks" in told
    assert "1: the code is trivial" in told
    listed = {row["name"]: row["tasks"] for row in json.loads(crrl("list", "--json"))}
    assert listed["stack"] == 2
    assert listed["swe-bench"] is None

    shown = crrl("show", "stack", "stack/project/door.py")
    assert "function    Door.open" in shown
    assert 'raise NotImplementedError("open is to be written")' in shown
    assert "(103 lines)" in shown  # what comes before the function
    assert shown.count("x = 1") == 0
    assert "an answer is compared with the known-good edit" in shown
    assert "You write Python code" in crrl("show", "stack", "--prompt", "none")

    stats = json.loads(crrl("stats", "stack", "--json"))
    assert stats["kinds"] == {"implement": 2}
    assert stats["tests"] == {"none": 2}
    assert stats["licences"] == {"MIT": 2}
    assert stats["sources"] == {"project": 2}
    assert "lines of the files" in crrl("stats", "stack")
    assert json.loads(crrl("validate", "stack", "--json"))["kept"] == 2


def test_prompts_are_measured_in_a_models_own_tokens(project: str, tmp_path: Path) -> None:
    from code_repair_rl.models.tiny import tiny_model, tiny_tokenizer

    model = tmp_path / "tiny"
    tiny_tokenizer().save_pretrained(model)
    tiny_model().save_pretrained(model)
    crrl("build", "stack", "--from", project)
    measured = json.loads(crrl("stats", "stack", "--model", str(model), "--max-prompt-tokens", "400", "--json"))
    assert len(measured["prompt_tokens"]) == 2
    assert measured["too_long"] == sum(length > 400 for length in measured["prompt_tokens"]) > 0
    near = json.loads(crrl("stats", "stack", "--model", str(model), "--hint", "exact-line", "--json"))
    assert sum(near["prompt_tokens"]) < sum(measured["prompt_tokens"])  # only what is around the mask is shown
    assert "do not" in crrl("stats", "stack", "--model", str(model))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["build", "stack"], "stack has to be made of something"),
        (["build", "humaneval-bugs", "--from", "x"], "humaneval-bugs is not made of something"),
        (["build", "stack", "--from", "no-such-thing-anywhere"], "no folder, no file and no installed package"),
        (["build", "stack", "--from", ".", "--mask", "half"], "there is no mask 'half'"),
        (["build", "swe-gym", "--from", ".", "--environment", "there"], "there is no environment 'there'"),
        (["show", "stack"], "the task set stack was not built yet"),
    ],
)
def test_bad_input_is_one_clear_error(arguments: list[str], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        crrl(*arguments)


def _evaluation(path: Path) -> str:
    def sample(passed: bool, verdict: bool = True) -> SampleResult:
        return SampleResult(
            outcome="passed" if passed else "failed",
            passed=passed,
            verdict=verdict,
            formatted=True,
            applied=True,
            truncated=False,
            tokens=3,
            right_place=None,
        )

    tasks = (
        TaskResult("a", "a", "", 3, (sample(True), sample(False), sample(False, verdict=False))),
        TaskResult("b", "b", "", 3, (sample(False, verdict=False),)),
        TaskResult("c", "c", "", 3, (sample(True), sample(True))),
    )
    EvalResult(
        name="e",
        model="m",
        task_set="t",
        split="train",
        tasks_sha256="0",
        hint="none",
        samples=3,
        temperature=0.8,
        max_new_tokens=9,
        seed=0,
        isolation="none",
        grader_version="1",
        wall_seconds=1.0,
        tasks=tasks,
    ).write(path)
    return str(path)


def test_pass_rates_are_recorded_once_from_an_evaluation(tmp_path: Path) -> None:
    evaluation = _evaluation(tmp_path / "e.json")
    told = crrl("difficulty", evaluation, "--as", "sft")
    assert "2 tasks rated by sft with the hint none" in told
    again = json.loads(crrl("difficulty", evaluation, "--as", "sft", "--json"))
    assert again["pass_rates"] == {"a": 0.5, "c": 1.0}
    assert pass_rates("sft", "none") == {"a": PassRate(1, 2), "c": PassRate(2, 2)}


def test_loading_what_was_built_needs_no_source(project: str) -> None:
    crrl("build", "stack", "--from", project, "--limit", "1")
    assert len(load_tasks("stack")) == 1
