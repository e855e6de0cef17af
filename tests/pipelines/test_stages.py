"""A stage begins only where its parts are there."""

from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.models import TINY_MODEL
from code_repair_rl.pipelines.stages import run_grpo, run_sft
from code_repair_rl.recipes import compose
from code_repair_rl.runs import SilentListener
from tests.cli.command import crrl


@pytest.mark.parametrize(
    ("change", "said"),
    [("reward.gian=0.3", "gian"), ("agent={name: 'nowhere:Program'}", "nowhere"), ("tasks.name=typo", "typo")],
)
def test_what_is_not_there_is_refused_before_there_is_a_run(change: str, said: str, tmp_path: Path) -> None:
    recipe = compose("smoke", [f"model.name={TINY_MODEL}", change])
    for stage in (run_sft, run_grpo):
        with pytest.raises(BadInput, match=said):
            stage(recipe, tmp_path / "run", SilentListener())
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
