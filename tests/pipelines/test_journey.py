"""The whole loop in miniature, on real parts: it runs, it can be cut, it goes on, and it is done only once."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation import Progress
from code_repair_rl.models import EMBEDDED_MODEL, TINY_MODEL, load_model
from code_repair_rl.pipelines.journey import Stage, Watcher, require_possible, run_journey, start_anew
from code_repair_rl.pipelines.records import record
from code_repair_rl.pipelines.results import page
from code_repair_rl.recipes import Recipe, compose
from code_repair_rl.runs import RunDir, RunListener, SilentListener

STAGES = ["eval base", "sft", "eval sft", "grpo", "eval grpo", "control", "eval control", "report"]


def miniature(task_file: Path, model: str, more: Sequence[str] = ()) -> Recipe:
    return compose("smoke", [f"model.name={model}", f"tasks.name={task_file}", "control=true", *more])


class Log(Watcher):
    """Notes the stages; may cut the journey as one begins."""

    def __init__(self, cut_at: str | None = None, step: int | None = None) -> None:
        self.stages: list[str] = []
        self.cut_at, self.step = cut_at, step

    def stage(self, stage: Stage) -> RunListener:
        self.stages.append(stage.name)
        if stage.name == self.cut_at:
            if self.step is None:
                raise KeyboardInterrupt
            return CutAt(self.step)
        return SilentListener()


class CutAt(SilentListener):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_phase(self, step: int, phase: str) -> None:
        if step == self.step and phase == "train":
            raise KeyboardInterrupt


def test_the_whole_loop_with_the_real_small_model(task_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    log = Log()
    outcome = run_journey(miniature(task_file, EMBEDDED_MODEL), folder, log)
    assert log.stages == STAGES
    assert list(outcome.results) == ["base", "sft", "grpo", "control"]
    assert all(len(result.tasks) == 3 for result in outcome.results.values())
    assert {result.isolation for result in outcome.results.values()} <= {"bubblewrap", "none"}
    assert [(one.before, one.after) for one in outcome.comparisons] == [("sft", "grpo"), ("control", "grpo")]
    assert outcome.report.read_text().lstrip().lower().startswith("<!doctype html")
    rows = list(RunDir.open(folder / "grpo").all_rollouts())
    assert len(rows) == 2 * 2 * 2
    assert all(len(row.token_ids) == len(row.logprobs) for row in rows)
    assert load_model(folder / "grpo" / "model").config.vocab_size == 49152


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("reward.gian=0.3", "gian"),
        ("agent={name: 'nowhere:Program'}", "nowhere"),
        ("tasks.name=no-such-set", "no-such-set"),
        ("tasks.name=no-such-file.jsonl", "no-such-file"),
    ],
)
def test_what_no_stage_could_use_is_refused_before_anything_is_begun(
    change: str, said: str, task_file: Path, tmp_path: Path
) -> None:
    log = Log()
    with pytest.raises(BadInput, match=said):
        run_journey(miniature(task_file, TINY_MODEL, [change]), tmp_path / "run", log)
    assert not [stage for stage in log.stages if stage != "tasks"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("stage", "step"), [("sft", 2), ("grpo", 2), ("eval grpo", None), ("control", 1)])
def test_a_journey_cut_anywhere_ends_as_if_it_had_not_been(
    task_file: Path, tmp_path: Path, stage: str, step: int | None
) -> None:
    recipe = miniature(task_file, TINY_MODEL, ["control=false"] if stage != "control" else [])
    with pytest.raises(KeyboardInterrupt):
        run_journey(recipe, tmp_path / "cut", Log(stage, step))
    again = run_journey(recipe, tmp_path / "cut", Log())
    whole = run_journey(recipe, tmp_path / "whole", Log())
    for name in ("base", "sft", "grpo"):
        assert again.results[name].tasks == whole.results[name].tasks


def test_what_is_finished_is_shown_and_not_done_again(task_file: Path, tmp_path: Path) -> None:
    recipe = miniature(task_file, TINY_MODEL, ["control=false"])
    first = run_journey(recipe, tmp_path / "run", Log())
    metrics = (tmp_path / "run" / "grpo" / "metrics.jsonl").read_bytes()
    sessions = {path: path.read_bytes() for path in (tmp_path / "run").rglob("environment.json")}
    second = run_journey(recipe, tmp_path / "run", Log())
    assert second.results == first.results
    assert len(sessions) == 3 and all(path.read_bytes() == content for path, content in sessions.items())
    assert all(RunDir.open(path.parent).environment()[-1]["status"] == "finished" for path in sessions)
    assert (tmp_path / "run" / "grpo" / "metrics.jsonl").read_bytes() == metrics


def test_another_seed_takes_over_what_does_not_depend_on_it(task_file: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_journey(miniature(task_file, TINY_MODEL), tmp_path / "first", Log("sft"))
    log = ReadBack("sft")
    with pytest.raises(KeyboardInterrupt):
        run_journey(miniature(task_file, TINY_MODEL, ["seed=1"]), tmp_path / "second", log, base_of=tmp_path / "first")
    first, second = (RunDir.open(tmp_path / name).read_eval("base") for name in ("first", "second"))
    assert second["tasks"] == first["tasks"]
    assert log.read_back == [True]


def test_another_seed_reinforces_the_same_warm_start(task_file: Path, tmp_path: Path) -> None:
    recipe = miniature(task_file, TINY_MODEL)
    another = miniature(task_file, TINY_MODEL, ["seed=1"])
    with pytest.raises(KeyboardInterrupt):
        run_journey(recipe, tmp_path / "first", Log("sft", 2))
    with pytest.raises(BadInput, match="not finished and judged its fine-tuning"):
        run_journey(another, tmp_path / "second", Log(), warm_start_of=tmp_path / "first")
    with pytest.raises(KeyboardInterrupt):
        run_journey(recipe, tmp_path / "first", Log("grpo", 1))
    with pytest.raises(BadInput, match=r"different: sft"):
        slower = miniature(task_file, TINY_MODEL, ["seed=1", "sft.learning_rate=0.5"])
        run_journey(slower, tmp_path / "second", Log(), warm_start_of=tmp_path / "first")
    assert not (tmp_path / "second").exists()
    log = ReadBack("control")
    with pytest.raises(KeyboardInterrupt):
        run_journey(another, tmp_path / "second", log, warm_start_of=tmp_path / "first")
    assert log.read_back[0]
    first, second = (RunDir.open(tmp_path / name).read_eval("sft") for name in ("first", "second"))
    assert second["tasks"] == first["tasks"]
    weights = [(tmp_path / name / "sft" / "model" / "model.safetensors").read_bytes() for name in ("first", "second")]
    assert weights[0] == weights[1]
    with pytest.raises(BadInput, match="a warm start of its own"):
        run_journey(recipe, tmp_path / "first", Log(), warm_start_of=tmp_path / "second")
    shutil.rmtree(tmp_path / "first")  # it goes on without, and without being told again
    run_journey(another, tmp_path / "second", Log())
    assert RunDir.open(tmp_path / "second").read_eval("sft") == second
    assert record(RunDir.open(tmp_path / "second"))["warm_start_of"] == "first"


def test_an_agent_goes_on_with_a_model_that_was_taught_single_answers(task_file: Path, tmp_path: Path) -> None:
    run_journey(miniature(task_file, TINY_MODEL, ["control=false"]), tmp_path / "single", Log())
    recipe = miniature(task_file, TINY_MODEL, ["control=false", "+agent.name=repair-loop", "+agent.max_turns=2"])
    log = Log()
    outcome = run_journey(recipe, tmp_path / "loop", log, warm_start_of=tmp_path / "single")
    assert log.stages == ["eval sft", "grpo", "eval grpo", "report"]
    assert list(outcome.results) == ["sft", "grpo"]
    assert {found.agent.partition(" ")[0] for found in outcome.results.values()} == {"repair-loop"}
    kept = record(RunDir.open(tmp_path / "loop"))
    against = [(one["agent_of"], one["single_of"]) for one in kept["at_equal_tokens"]]
    assert against == [("sft", "sft"), ("grpo", "sft"), ("grpo", "grpo")]
    assert all(len(one["apart"]) == len(kept["problems"]) for one in kept["at_equal_tokens"])
    text = page([kept, kept])
    assert "attempts of up to 2 answers each" in text
    assert "| seed | model | passed within 1 | passed within 2 | tokens an attempt |" in text
    assert "| all 2 | grpo | grpo | | | | +0.0 [" in text
    again = run_journey(recipe, tmp_path / "loop", Log())
    assert again.results == outcome.results
    other = miniature(
        task_file, TINY_MODEL, ["control=false", "+agent.name=repair-loop", "+agent.max_turns=2", "seed=1"]
    )
    log = Log()
    run_journey(other, tmp_path / "second", log, warm_start_of=tmp_path / "loop")  # judged with the same agent there
    assert log.stages == ["eval sft", "grpo", "eval grpo", "report"]  # what was found is shown again
    assert record(RunDir.open(tmp_path / "second"))["at_equal_tokens"] == []


def test_what_each_model_forgot_is_measured_by_the_run_that_made_it(task_file: Path, tmp_path: Path) -> None:
    more = ["evaluation.forgetting_tasks=2", "control=false"]
    recipe = miniature(task_file, TINY_MODEL, more)
    run_journey(recipe, tmp_path / "first", Log())
    other = miniature(task_file, TINY_MODEL, [*more, "reward.applied=0"])
    run_journey(other, tmp_path / "second", Log(), warm_start_of=tmp_path / "first")
    found = [record(RunDir.open(tmp_path / name)) for name in ("first", "second")]
    assert [set(one["forgetting"]) for one in found] == [{"base", "sft", "grpo"}, {"grpo"}]
    assert found[0]["forgetting"]["sft"]["healthy_answers"] == 2 * recipe.evaluation.samples


class ReadBack(Log):
    """Notes whether batches of evaluations were read back."""

    def __init__(self, cut_at: str) -> None:
        super().__init__(cut_at)
        self.read_back: list[bool] = []

    def evaluated(self, progress: Progress) -> None:
        self.read_back.append(progress.read_back)


@pytest.mark.parametrize("key", ["evaluation.samples=1", "threads=1"])
def test_a_base_that_was_asked_otherwise_is_not_taken_over(task_file: Path, tmp_path: Path, key: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_journey(miniature(task_file, TINY_MODEL), tmp_path / "first", Log("sft"))
    with pytest.raises(BadInput, match=f"different: {key.partition('=')[0]}"):
        run_journey(miniature(task_file, TINY_MODEL, [key]), tmp_path / "second", Log(), base_of=tmp_path / "first")
    assert not (tmp_path / "second").exists()


def test_a_run_does_not_take_over_its_own_base(task_file: Path, tmp_path: Path) -> None:
    recipe = miniature(task_file, TINY_MODEL)
    with pytest.raises(KeyboardInterrupt):
        run_journey(recipe, tmp_path / "run", Log("sft"))
    for itself in (tmp_path / "run", tmp_path / "run" / ".." / "run", tmp_path / "run" / "sft"):
        with pytest.raises(BadInput, match="its own evaluation"):
            require_possible(recipe, tmp_path / "run", itself, None, fresh=True)


def test_another_recipe_in_the_same_place_is_refused(task_file: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_journey(miniature(task_file, TINY_MODEL), tmp_path / "run", Log("eval base"))
    with pytest.raises(BadInput, match=r"learning_rate"):
        run_journey(miniature(task_file, TINY_MODEL, ["grpo.learning_rate=0.5"]), tmp_path / "run", Log())


def test_starting_anew_removes_runs_only(tmp_path: Path) -> None:
    other = tmp_path / "precious"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match="not a run directory"):
        start_anew(other)
    assert (other / "thesis.txt").exists()
    RunDir.create(tmp_path / "run", {"name": "x"}, resume=False)
    start_anew(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_isolation_is_stamped_where_it_was_given_up(task_file: Path, tmp_path: Path) -> None:
    recipe = miniature(task_file, TINY_MODEL, ["sandbox.backend=unsafe_local", "control=false"])
    outcome = run_journey(recipe, tmp_path / "run", Log())
    written = json.loads((tmp_path / "run" / "eval" / "grpo.json").read_text())
    assert written["isolation"] in ("unsafe-local", "none")
    assert outcome.results["grpo"].samples == 2
