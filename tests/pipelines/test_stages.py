"""The stages of a recipe: what samples in them, and what is refused before anything is begun."""

from pathlib import Path

import pytest
import torch

from code_repair_rl.errors import BadInput
from code_repair_rl.models import TINY_MODEL
from code_repair_rl.pipelines.parts import load
from code_repair_rl.pipelines.stages import run_grpo
from code_repair_rl.recipes import Recipe
from code_repair_rl.rollouts.local import LocalEngine
from code_repair_rl.rollouts.vllm import VllmEngine
from code_repair_rl.runs import SilentListener

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
def test_a_server_that_nothing_could_be_sent_to_is_refused_before_anything_is_begun(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="between GPUs"):
        run_grpo(SERVED, tmp_path / "run", SilentListener())
    assert not (tmp_path / "run").exists()
