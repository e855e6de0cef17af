"""An agent against single answers at equal tokens: the closed forms are held against plain counting."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from code_repair_rl.cli.app import app
from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation import EvalResult, SampleResult, TaskResult, at_equal_tokens
from code_repair_rl.evaluation.equal_tokens import _passes, _tokens, sentence


def sample(tokens: int, *, holds_up: bool | None = False, passed: bool = False, turns: int = 1) -> SampleResult:
    return SampleResult(
        outcome="passed" if passed else "failed",
        passed=passed,
        verdict=True,
        formatted=True,
        applied=True,
        truncated=False,
        tokens=tokens,
        right_place=None,
        turns=turns,
        holds_up=holds_up,
    )


def result(name: str, tasks: list[list[SampleResult]], agent: str = "") -> EvalResult:
    return EvalResult(
        name=name,
        model="m",
        task_set="toy",
        split="test",
        tasks_sha256="x",
        hint="none",
        samples=len(tasks[0]),
        temperature=1.0,
        max_new_tokens=99,
        seed=0,
        isolation="none",
        grader_version="1",
        wall_seconds=1.0,
        tasks=tuple(TaskResult(str(i), f"p{i}", "", 3, tuple(samples)) for i, samples in enumerate(tasks)),
        agent=agent,
    )


SAMPLES = st.lists(
    st.builds(
        lambda tokens, kind: sample(tokens, holds_up=kind > 0, passed=kind == 2), st.integers(1, 50), st.integers(0, 2)
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60)
@given(SAMPLES, st.data())
def test_the_closed_forms_are_the_mean_over_all_orders(samples: list[SampleResult], data: st.DataObject) -> None:
    m = data.draw(st.integers(1, len(samples)))
    passes, tokens = [], []
    for order in itertools.permutations(samples):
        looked_at: list[SampleResult] = []
        for one in order[:m]:
            looked_at.append(one)
            if one.holds_up:
                break
        passes.append(looked_at[-1].passed and bool(looked_at[-1].holds_up))
        tokens.append(sum(one.tokens for one in looked_at))
    assert _passes(samples, m) == pytest.approx(sum(passes) / len(passes))
    assert _tokens(samples, m) == pytest.approx(sum(tokens) / len(tokens))


def test_the_rival_spends_what_the_agent_spent() -> None:
    single = result("single", [[sample(10), sample(10), sample(10, holds_up=True, passed=True)]] * 4)
    agent = result("loop", [[sample(15, passed=True, turns=2)] * 3] * 4, agent="repair-loop")
    found = at_equal_tokens(agent, single)
    assert found.tokens == pytest.approx(15)
    assert found.answers == pytest.approx(1.75)  # the second costs 10 in two of three cases
    assert found.rival.value == pytest.approx(1 / 3 + 0.75 / 3)
    assert found.agent.value == 1.0
    assert found.difference.value == pytest.approx(1 - 1.75 / 3)
    assert found.best_of.value == pytest.approx(found.rival.value)
    assert "At 15 sampled tokens" in sentence(found)


def test_where_all_answers_cost_less_it_is_said() -> None:
    single = result("single", [[sample(10)] * 2] * 3)
    agent = result("loop", [[sample(90)] * 2] * 3, agent="repair-loop")
    found = at_equal_tokens(agent, single)
    assert (found.answers, found.tokens, found.agent_tokens) == (2, 20, 90)
    assert "more single answers are needed" in sentence(found)


def test_what_cannot_be_compared_is_refused() -> None:
    single, agent = result("single", [[sample(10)]] * 2), result("loop", [[sample(9)]] * 2, agent="a")
    with pytest.raises(BadInput, match="agent's evaluation"):
        at_equal_tokens(single, agent)
    with pytest.raises(BadInput, match="anew"):
        at_equal_tokens(agent, result("old", [[sample(10, holds_up=None)]] * 2))


def test_the_command_compares_at_equal_tokens_too(tmp_path: Path) -> None:
    result("single", [[sample(10), sample(10, holds_up=True, passed=True)]] * 3).write(tmp_path / "single.json")
    result("loop", [[sample(10, passed=True), sample(10)]] * 3, agent="repair-loop").write(tmp_path / "loop.json")
    files = [str(tmp_path / "single.json"), str(tmp_path / "loop.json")]
    told = CliRunner().invoke(app, ["compare", *files])
    assert "At 10 sampled tokens" in told.stdout
    plain = json.loads(CliRunner().invoke(app, ["compare", *files, "--json"]).stdout)
    assert plain["equal_tokens"]["answers"] == 1.0
