"""The stages of a recipe: what samples in them, and what is refused before anything is begun."""

from pathlib import Path

import pytest
import torch

from code_repair_rl.errors import BadInput
from code_repair_rl.models import TINY_MODEL
from code_repair_rl.pipelines.journey import require_possible
from code_repair_rl.pipelines.parts import load
from code_repair_rl.pipelines.stages import run_grpo, run_sft
from code_repair_rl.recipes import Recipe, compose
from code_repair_rl.rollouts.local import LocalEngine
from code_repair_rl.rollouts.vllm import VllmEngine
from code_repair_rl.runs import FINISHED, RunDir, SilentListener
from tests.cli.command import crrl

SERVED = Recipe.model_validate(
    {
        "name": "r",
        "tasks": {"name": "t"},
        "model": {"name": TINY_MODEL, "autocast": "none"},
        "launch": {"vllm": "http://127.0.0.1:9"},
    }
)


def test_a_server_answers_for_a_model_that_weights_are_sent_of_and_for_no_other() -> None:
    assert isinstance(load(SERVED, to_sample=True).engine, LocalEngine)
    engine = load(SERVED, served=True).engine
    assert isinstance(engine, VllmEngine) and engine.stop_ids


@pytest.mark.skipif(torch.cuda.is_available(), reason="could send there")
def test_a_server_that_nothing_could_be_sent_to_is_refused_before_there_is_a_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="between GPUs"):
        run_grpo(SERVED, tmp_path / "run", SilentListener())
    assert not (tmp_path / "run").exists()


def test_what_is_finished_is_read_back_where_nothing_could_be_sent(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", SERVED.model_dump(mode="json"), resume=False)
    (run.path / "model").mkdir()
    run.record_end(FINISHED)
    assert run_grpo(SERVED, run.path, SilentListener()) == run.path / "model"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["reward.gian=0.3"], "gian"),
        (["agent={name: 'nowhere:Program'}"], "nowhere"),
        (["tasks.name=typo"], "typo"),
        (["agent={name: repair-loop}", "reward.length=0.1"], "no one length"),
    ],
)
def test_what_is_not_there_is_refused_before_there_is_a_run(changes: list[str], said: str, tmp_path: Path) -> None:
    recipe = compose("smoke", [f"model.name={TINY_MODEL}", *changes])
    for stage in (run_sft, run_grpo):
        with pytest.raises(BadInput, match=said):
            stage(recipe, tmp_path / "run", SilentListener())
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_there_is_refused_before_there_is_a_run(tmp_path: Path) -> None:
    recipe = compose("smoke", [f"model.name={TINY_MODEL}", f"sft.data={tmp_path / 'none.jsonl'}"])
    with pytest.raises(BadInput, match="no such file"):
        run_sft(recipe, tmp_path / "run", SilentListener())
    with pytest.raises(BadInput, match="no such file"):
        require_possible(recipe, tmp_path / "run", None, None)
    assert not (tmp_path / "run").exists()


def test_a_sweep_with_one_impossible_reward_does_not_begin(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="together"):
        crrl(
            "grpo",
            "recipe=smoke",
            f"model.name={TINY_MODEL}",
            f"run={tmp_path / 'sweep'}",
            "--multirun",
            "reward.gain=0.1,2.0",
        )
    assert not (tmp_path / "sweep").exists()
