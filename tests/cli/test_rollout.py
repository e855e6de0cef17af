"""`crrl rollout`, `crrl curate` and `crrl sft data=…`: the whole way with a tiny model and real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.runs import RunDir
from code_repair_rl.tasks import Split, Task, write_tasks
from tests.cli.command import crrl
from tests.evaluation.tasks_for_tests import oracle_answer, task, wrong_answer
from tests.rollouts.chat_server import Reply, chat_server, completion


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    monkeypatch.chdir(tmp_path)
    found = [task(number).model_copy(update={"split": Split.TRAIN}) for number in range(3)]
    write_tasks(tmp_path / "tasks.jsonl", found)
    return found


ASKED = ("rollout", "-t", "tasks.jsonl", "-k", "2", "--workers", "1", "--run", "run", "--json")


def test_attempts_of_a_remote_model_become_a_file_to_learn_from(
    tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server repairs the first two tasks, one of them only after it was told of its failure."""

    def reply(request: dict[str, object], number: int) -> Reply:
        said = json.dumps(request["messages"])
        asked = next(one for one in tasks if one.description in said)
        right = asked is tasks[0] or (asked is tasks[1] and "Your edit" in said)
        return completion(oracle_answer(asked) if right else wrong_answer(asked))

    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with chat_server(reply) as (endpoint, _):
        sampled = ("-m", "m", "--endpoint", endpoint, "--agent", "repair-loop", "--max-turns", "2")
        told = json.loads(crrl(*ASKED, *sampled, "--max-new-tokens", "4000"))
        assert (told["tasks"], told["graded"], told["passed"], told["solved"]) == (3, 6, 4, 2)
    # The server is gone: what was sampled is on disk.
    assert json.loads(crrl(*ASKED, *sampled, "--max-new-tokens", "4000")) == told
    crrl("report", "run")
    kept = json.loads(crrl("curate", "run", "-o", "data.jsonl", "--json"))
    assert kept["kept"] == kept["runs"][0]["tasks_kept"] == 2
    assert kept["runs"][0]["left_out"] == {"did not pass": 2, "the same edit is kept already": 2}
    lines = [json.loads(line) for line in Path("data.jsonl").read_text().splitlines()]
    assert [len(line["messages"]) for line in lines] == [3, 5]
    crrl("curate", "run", "-o", "text.jsonl", "--documents")
    assert oracle_answer(tasks[0]) in json.loads(Path("text.jsonl").read_text().splitlines()[0])["text"]
    recipe = ("recipe=smoke", "model.name=tiny-random", "model.autocast=none", "tasks.max_prompt_tokens=4000")
    small = ("sft.steps=2", "sft.save_every=1000", "sft.micro_batch_tokens=3000")
    crrl("sft", "data=data.jsonl", "run=sft", *recipe, *small)
    assert (Path("sft") / "model" / "config.json").is_file()
    assert RunDir.open("sft").recipe()["sft"]["data"] == "data.jsonl"


def test_a_local_model_is_sampled_with_its_exact_tokens(tasks: list[Task]) -> None:
    local = ("-m", "tiny-random", "--dtype", "float32", "--max-new-tokens", "8", "--max-prompt-tokens", "4000")
    told = json.loads(crrl(*ASKED, *local))
    assert (told["graded"], told["passed"]) == (6, 0)
    rows = list(RunDir.open("run").all_rollouts())
    assert all(row.prompt_ids and 0 < len(row.token_ids) == len(row.logprobs) <= 8 for row in rows)
    found = json.loads(crrl("curate", "run", "-o", "data.jsonl", "--json"))
    assert (found["kept"], Path("data.jsonl").read_text()) == (0, "")
    with pytest.raises(BadInput, match="changed: samples"):
        crrl(*ASKED, *local, "-k", "3")
    with pytest.raises(BadInput, match="no agent"):
        crrl(*ASKED, *local, "--agent", "nobody")
    with pytest.raises(BadInput, match="not known where a server answers"):
        crrl(*ASKED, "-m", "m", "--endpoint", "http://127.0.0.1:9/v1", "--context-tokens", "100")
    write_tasks(Path("tasks.jsonl"), tasks[:2])
    with pytest.raises(BadInput, match=r"changed: tasks\.sha256"):
        crrl(*ASKED, *local)


def test_other_weights_under_the_same_name_are_not_gone_on_with(tasks: list[Task]) -> None:
    crrl("model", "export", "tiny-random", "m")
    local = ("-m", "m", "--dtype", "float32", "--max-new-tokens", "8", "--max-prompt-tokens", "4000")
    told = crrl(*ASKED, *local)
    config = Path("m") / "generation_config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(BadInput, match=r"changed: model\.digest"):
        crrl(*ASKED, *local)
    config.write_text(config.read_text().removesuffix("\n"))
    recipe = Path("run") / "recipe.yaml"  # as an earlier version left it
    recipe.write_text("".join(line for line in recipe.read_text().splitlines(True) if "digest" not in line))
    assert crrl(*ASKED, *local) == told


def test_prompts_that_are_too_long_are_left_out_and_counted(tasks: list[Task]) -> None:
    with pytest.raises(BadInput, match="all 3 prompts"):
        crrl(*ASKED, "-m", "tiny-random", "--max-prompt-tokens", "16")
    with pytest.raises(BadInput, match="not a run directory"):
        crrl("curate", "nothing", "-o", "data.jsonl")
