"""`crrl eval`, `crrl compare` and `crrl report`, with a real (tiny) model, a real sandbox and real files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from code_repair_rl.cli.eval import name_of
from code_repair_rl.errors import BadInput
from code_repair_rl.models import load_model, load_tokenizer
from code_repair_rl.runs import RunDir, read_rows, write_rows
from code_repair_rl.tasks import write_tasks
from tests.cli.command import crrl
from tests.evaluation.tasks_for_tests import task
from tests.evaluation.test_comparison import random_result
from tests.reporting.recorded import evaluation, recorded_run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tasks(tmp_path / "tasks.jsonl", [task(number) for number in range(4)])
    return tmp_path


ASKED = ("eval", "-m", "tiny-random", "-t", "tasks.jsonl", "--split", "validation", "--samples", "2")
SHORT = ("--max-new-tokens", "8", "--max-prompt-tokens", "4000", "--dtype", "float32", "--workers", "1")


def test_a_model_is_evaluated_shown_again_and_reported(here: Path) -> None:
    told = json.loads(crrl(*ASKED, *SHORT, "--run", "run", "--name", "base", "--json"))
    assert told["summary"]["tasks"] == 4
    assert told["summary"]["samples"] == 8
    assert told["summary"]["pass_at"]["1"]["value"] == 0.0
    path = here / "run" / "eval" / "base.json"
    written = path.read_bytes()
    again = crrl(*ASKED, *SHORT, "--run", "run", "--name", "base")
    assert "pass@2" in again
    assert "a comparison would find a true difference of" in again
    assert "only the first teach in GRPO" in again
    assert path.read_bytes() == written
    crrl("report", "run")
    assert (here / "run" / "report.html").stat().st_size > 1e6
    other = json.loads(crrl(*ASKED, *SHORT, "--run", "run", "--name", "again", "--json"))
    assert other["tasks"] == told["tasks"]  # the same seed, the same samples


def test_a_remote_model_is_evaluated_like_a_local_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from code_repair_rl.tasks.difficulty import pass_rates
    from tests.evaluation.tasks_for_tests import oracle_answer
    from tests.rollouts.chat_server import Reply, chat_server, completion, failure

    monkeypatch.setenv("CRRL_HOME", str(here / "home"))
    monkeypatch.setenv("TEST_KEY", "k")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    tasks = [task(number) for number in range(4)]

    def reply(body: dict[str, object], number: int) -> Reply:
        if number == 5:
            return failure(401, "key expired")
        found = next(t for t in tasks if t.description in str(body["messages"]))
        return completion(oracle_answer(found) if found.task_id != "toy/0" else "I cannot.", tokens=11)

    arguments = (*ASKED[:2], "m", *ASKED[3:], "--run", "run", "--name", "far", "--workers", "1", "--record-pass-rates")
    with chat_server(reply) as (endpoint, asked):
        remote = (*arguments, "--endpoint", endpoint, "--api-key-env", "TEST_KEY", "--concurrency", "1")
        with pytest.raises(BadInput, match="key expired"):
            crrl(*remote)
        told = json.loads(crrl(*remote, "--wandb", "offline", "--json"))
        assert len(asked.bodies) == 9  # eight answers, and the refused one
        crrl(*remote)
        assert len(asked.bodies) == 9
        crrl(*remote, "--wandb", "offline")  # what is finished can be told of again
    assert told["model"] == f"m at {endpoint}"
    assert told["summary"]["pass_at"]["1"]["value"] == 0.75
    assert told["summary"]["mean_tokens"] == 11
    assert told["summary"]["edit_precision"]["value"] == 1.0
    assert asked.headers[0]["Authorization"] == "Bearer k"
    assert len(list((here / "run" / "wandb").glob("offline-run-*/run-*.wandb"))) == 2
    rates = pass_rates(f"m at {endpoint}", "exact-line")  # counted once, though the command ran twice
    assert {name: (r.passed, r.samples) for name, r in rates.items()} == {
        "toy/0": (0, 2),
        "toy/1": (2, 2),
        "toy/2": (2, 2),
        "toy/3": (2, 2),
    }
    crrl("report", "run")


def test_a_finished_evaluation_is_not_shown_as_the_answer_to_another_question(here: Path) -> None:
    crrl(*ASKED, *SHORT, "--run", "run", "--name", "base", "--limit", "2")
    with pytest.raises(BadInput, match="differ in temperature, limit"):
        crrl(*ASKED, *SHORT, "--run", "run", "--name", "base", "--temperature", "0.5")


def test_other_weights_under_the_same_name_are_another_model(here: Path) -> None:
    model = load_model("tiny-random")
    model.save_pretrained(here / "model")
    load_tokenizer("tiny-random").save_pretrained(here / "model")
    arguments = (*ASKED[:2], "model", *ASKED[3:], *SHORT, "--run", "run", "--name", "mine", "--limit", "1")
    told = json.loads(crrl(*arguments, "--json"))
    assert (told["dtype"], told["max_prompt_tokens"], len(told["model_digest"])) == ("float32", 4000, 64)
    crrl(*arguments)
    with pytest.raises(BadInput, match="differ in max_prompt_tokens"):
        crrl(*arguments, "--max-prompt-tokens", "5000")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.001)
    model.save_pretrained(here / "model")
    with pytest.raises(BadInput, match="differ in model_digest"):
        crrl(*arguments)
    (here / "run" / "eval" / "mine.json").unlink()  # as if it had been interrupted
    with pytest.raises(BadInput, match="differ in model_digest"):
        crrl(*arguments)


def test_what_has_no_verdict_is_graded_again_by_the_same_command(here: Path) -> None:
    arguments = (*ASKED, *SHORT, "--run", "run", "--name", "base")
    told = json.loads(crrl(*arguments, "--json"))
    assert told["summary"]["no_verdict"] == 0
    (rows_file,) = (here / "run" / "eval" / "base.samples").glob("*.parquet")
    first, *others = read_rows(rows_file)
    write_rows(rows_file, [dataclasses.replace(first, score=None, outcome="no-verdict", passed=False), *others])
    lost = told["tasks"][0]["samples"][0] | {"verdict": False, "outcome": "no-verdict"}
    told["tasks"][0]["samples"][0] = lost
    RunDir.open(here / "run").write_eval("base", told)
    again = json.loads(crrl(*arguments, "--json"))
    assert again["summary"]["no_verdict"] == 0 and again["summary"]["samples"] == 8


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--hint", "all"), "no hint level 'all'"),
        (("--split", "train"), "no tasks of split train"),
        (("--tasks", "absent.jsonl"), "no such task file"),
        (("--model", "nowhere/at/all"), "no such model"),
        (("--dtype", "int8"), "does not compute in 'int8'"),
        (("--wandb", "yes"), "no mode 'yes'"),
        (("--endpoint", "host"), "not the address of an endpoint"),
        (("--name", "../x"), "made of letters"),
    ],
)
def test_bad_input_is_named(here: Path, changed: tuple[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        crrl(*ASKED, *SHORT, "--run", "run", *changed)


def test_an_evaluation_is_named_after_its_model() -> None:
    assert name_of("runs/demo/grpo/model") == "grpo"
    assert name_of("owner/Some-Model") == "Some-Model"
    assert name_of("/") == "model"


def test_compare_says_whether_it_is_better_and_exits_so(here: Path) -> None:
    random_result("weak", 0.2, 1).write(here / "weak.json")
    random_result("strong", 0.8, 2).write(here / "strong.json")
    assert "shown to be better" in crrl("compare", "weak.json", "strong.json", "--require-improvement")
    assert "shown to be worse" in crrl("compare", "strong.json", "weak.json", "--require-improvement", code=1)
    crrl("compare", "strong.json", "weak.json")
    told = json.loads(crrl("compare", "weak.json", "strong.json", "--json"))
    assert told["improved"] is True
    assert told["pass_at"]["1"]["estimate"]["low"] > 0
    random_result("other", 0.25, 3).write(here / "other.json")
    several = json.loads(crrl("compare", "weak.json", "strong.json", "other.json", "--json"))["comparisons"]
    assert [one["after"] for one in several] == ["strong", "other"]
    assert several[0]["p_adjusted"] == pytest.approx(2 * several[0]["pass_at"]["1"]["p_value"])
    assert "corrected for 2 comparisons (Holm)" in crrl("compare", "weak.json", "strong.json", "other.json")
    crrl("compare", "weak.json", "strong.json", "other.json", "--require-improvement", code=1)


def test_compare_finds_evaluations_in_runs_and_pools_seeds(here: Path) -> None:
    recorded_run(here / "a", steps=1, seed=1)
    recorded_run(here / "b", steps=1, seed=2)
    told = json.loads(crrl("compare", "a:sft,b:sft", "a:grpo,b:grpo", "--json"))
    assert told["seeds"] == 2
    with pytest.raises(BadInput, match="base, sft, grpo"):
        crrl("compare", "a", "b:sft")
    with pytest.raises(BadInput, match="2 evaluations before and 1 after"):
        crrl("compare", "a:sft,b:sft", "a:grpo")
    with pytest.raises(BadInput, match="no such evaluation"):
        crrl("compare", "absent.json", "a:sft")
    alone = RunDir.create(here / "alone", {}, resume=False)
    alone.write_eval("only", evaluation("only", 0.5, 3).to_json())
    assert "only against sft" in crrl("compare", "a:sft", "alone")


def test_report_refuses_what_is_not_a_run(here: Path) -> None:
    with pytest.raises(BadInput, match=r"no recipe\.yaml"):
        crrl("report", str(here))
