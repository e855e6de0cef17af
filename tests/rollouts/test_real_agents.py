"""mini-swe-agent and nano-agent as they are on PyPI, on a real bug in toolz, with scripted answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.grading import Grader
from code_repair_rl.rollouts import Sampling
from code_repair_rl.rollouts.agent_programs import PROGRAMS, python_for
from code_repair_rl.rollouts.ask import Answer, ask
from code_repair_rl.rollouts.episode import Ending
from code_repair_rl.rollouts.jailed_agent import JailedAgent
from code_repair_rl.rollouts.scripted import ScriptedEngine
from tests.rollouts.toolz_task import PATH, TESTS, toolz_is_there, toolz_task

FIX = f"sed -i 's/islice(seq, 1, None, n)/islice(seq, 0, None, n)/' {PATH}"
# nano-agent's shell is a restricted one: it does not redirect output.
SCRIPTS = {
    "right": [
        f"grep -n 'islice(seq, 1' {PATH}",
        f"{FIX} && echo note | tee NOTES.md",
        f"python -m pytest -q {TESTS}::test_take_nth",
    ],
    "wrong": [f"sed -i 's/islice(seq, 1, None, n)/islice(seq, 2, None, n)/' {PATH}"],
    "cheating": [
        "git log -p --all | head -c 3000",
        f"echo 'def test_take_nth(): pass' | tee {TESTS}",
        "echo 'def pytest_collection_modifyitems(items): items.clear()' | tee conftest.py",
    ],
    "broken JSON": [],
}
SAID = "I look."


def call(agent: str, command: str) -> str:
    name, argument = ("bash", "command") if agent == "mini-swe-agent" else ("shell", "cmd")
    body = json.dumps({"name": name, "arguments": {argument: command}})
    return f"{SAID}\n<tool_call>\n{body}\n</tool_call>"


def script(agent: str, kind: str) -> Callable[[str, int], str]:
    end = call(agent, "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT") if agent == "mini-swe-agent" else SAID
    broken = f'{SAID}\n<tool_call>\n{{"name": "bash", "arg'
    answers = [*(call(agent, command) for command in SCRIPTS[kind]), end if SCRIPTS[kind] else broken]
    return lambda prompt, number: answers[min(prompt.count(SAID), len(answers) - 1)]


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1) as grader:
        yield grader


@pytest.fixture(params=["mini-swe-agent", "nano-agent"])
def agent(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    try:
        python_for(PROGRAMS[name])
    except BadInput as error:
        pytest.skip(f"{error.what}: run `python scripts/install_agents.py`")
    if not toolz_is_there():
        pytest.skip("toolz was not fetched: run `python scripts/fetch_test_data.py`")
    return name


def attempted(grader: Grader, agent: str, kind: str) -> Answer:
    worker = JailedAgent(PROGRAMS[agent], max_turns=10, deadline_seconds=240.0)
    engine = ScriptedEngine(script(agent, kind))
    sampling = Sampling(max_new_tokens=4000)
    return ask(engine, grader, [toolz_task()], hint="none", completions_per_task=1, sampling=sampling, agent=worker)[0][
        0
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "score"), [("right", 1.0), ("wrong", 0.0), ("cheating", 0.0)])
def test_a_real_agent_is_paid_for_what_it_repairs(grader: Grader, agent: str, kind: str, score: float) -> None:
    answer = attempted(grader, agent, kind)
    episode = answer.episode
    assert episode is not None
    assert answer.verdict.score == score, (answer.verdict, episode.evidence)
    assert episode.ending is Ending.FINISHED, episode.evidence
    assert len(episode.turns) == len(SCRIPTS[kind]) + 1 and (episode.forks, episode.rewrites) == (0, 0)
    if kind == "right":
        assert "NOTES.md" in episode.patch and "passed" in str(episode.messages)
    if kind == "cheating":
        assert "itertools.islice(seq, 0, None, n)" not in str(episode.messages), "there is no history to read it from"


@pytest.mark.slow
def test_broken_json_does_not_stop_an_episode_from_ending(grader: Grader, agent: str) -> None:
    answer = attempted(grader, agent, "broken JSON")
    assert answer.episode is not None and answer.verdict.score == 0.0
    assert answer.episode.broken_tool_calls >= 3 and answer.episode.ending is not Ending.INFRASTRUCTURE
