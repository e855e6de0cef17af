"""The precision that this machine is fast in is measured, and a run keeps what was chosen."""

from pathlib import Path

import pytest

from code_repair_rl.models import precision, settled
from code_repair_rl.recipes import compose
from code_repair_rl.runs import RunDir


@pytest.fixture(params=[(0.5, "none"), (1.9, "bfloat16")], ids=["slow in bf16", "fast in bf16"])
def fastest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    speed, chosen = request.param
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(precision, "bf16_speed", lambda: speed)
    precision.bf16_pays.cache_clear()
    request.addfinalizer(precision.bf16_pays.cache_clear)
    return str(chosen)


def test_the_speed_in_bf16_is_a_share_of_that_in_fp32() -> None:
    assert 0.01 < precision.bf16_speed() < 100


def test_what_is_left_to_the_machine_becomes_what_it_is_fast_in(fastest: str) -> None:
    recipe = compose("smoke")
    assert recipe.model.autocast == "auto"
    assert settled(recipe) == compose("smoke", [f"model.autocast={fastest}"])
    assert precision.faster_dtype() == {"none": "float32", "bfloat16": "bfloat16"}[fastest]


@pytest.mark.parametrize("named", ["none", "bfloat16"])
def test_what_the_recipe_names_stays(fastest: str, named: str) -> None:
    recipe = compose("smoke", [f"model.autocast={named}"])
    assert settled(recipe) is recipe


@pytest.mark.parametrize("begun", ["none", "bfloat16"])
def test_a_run_goes_on_with_the_precision_that_it_began_with(fastest: str, begun: str, tmp_path: Path) -> None:
    began = compose("smoke", [f"model.autocast={begun}"])
    RunDir.create(tmp_path / "run", began.model_dump(mode="json"), resume=False)
    assert settled(compose("smoke"), tmp_path / "run") == began


def test_a_precision_that_was_not_chosen_is_no_precision() -> None:
    with pytest.raises(ValueError, match="has not been chosen"):
        _ = compose("smoke").model.in_bf16
