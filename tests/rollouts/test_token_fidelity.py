"""Multi-turn episodes keep the sampled tokens: with the tiny double always, with the embedded model when asked."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from code_repair_rl.models import TINY_MODEL, load_model, load_tokenizer

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "token_fidelity.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("token_fidelity", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["token_fidelity"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("model", "episodes"),
    [(TINY_MODEL, 12), pytest.param("smollm2-135m-instruct", 200, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])],
)
def test_what_is_spliced_is_what_was_sampled(script: ModuleType, model: str, episodes: int) -> None:
    found = script.measure(
        load_model(model), load_tokenizer(model), episodes=episodes, turns=3, new_tokens=24, forwards=min(episodes, 40)
    )
    assert (found.turns, found.lost_turns, found.forks, found.rewrites) == (3 * episodes, 0, 0, 0)
    assert found.differing_spliced_tokens == 0
    assert found.greatest_logprob_gap < 1e-4
    assert found.loss_gradient_at_environment == 0.0
    assert found.environment_tokens > 0 and found.truncated_turns > 0
    assert found.corrupted_turns > 0, "else this says nothing: tokenising again would have done as well"
