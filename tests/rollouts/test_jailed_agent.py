"""Agents in jails, with the adapter that `docs/agents.md` shows: what they reach, how they end, what they are paid."""

from __future__ import annotations

import dataclasses
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.grading import Grader, Outcome
from code_repair_rl.grading.repository import packages
from code_repair_rl.rollouts import Sampling
from code_repair_rl.rollouts.agent_programs import PROGRAMS, AgentProgram, Endpoint, Launch, program_named, python_for
from code_repair_rl.rollouts.ask import Answer, ask, row_of
from code_repair_rl.rollouts.curate import Choice, Source, curate
from code_repair_rl.rollouts.episode import Ending, Episode
from code_repair_rl.rollouts.jailed_agent import JailedAgent
from code_repair_rl.rollouts.remote import RemoteEngine
from code_repair_rl.rollouts.scripted import ScriptedEngine
from code_repair_rl.tasks import Kind, Origin, RepositoryTests, Split, Task
from tests.rollouts.chat_server import chat_server, completion

DOCS = Path(__file__).parents[2] / "docs" / "agents.md"
FILES = {
    "shop/__init__.py": "",
    "shop/cart.py": "def total(numbers):\n    return 0\n",
    "tests/test_cart.py": "from shop.cart import total\n\n\ndef test_total():\n    assert total([1, 2]) == 3\n\n\n"
    "def test_none():\n    assert total([]) == 0\n",
}
GOOD = "def total(numbers):\n    return sum(numbers)\n"
FIX = "printf 'def total(numbers):\\n    return sum(numbers)\\n' > shop/cart.py"


def shell_loop() -> AgentProgram:
    """The adapter of the documentation, as it stands there."""
    code = re.search(r"```python\n(from code_repair_rl.*?)\n```\n", DOCS.read_text(), re.DOTALL)
    assert code is not None and code[1].count("\n") < 40
    found: dict[str, Any] = {}
    exec(code[1], found)
    program: AgentProgram = found["ShellLoop"]()
    return program


def task() -> Task:
    tests = RepositoryTests(
        fail_to_pass=("tests/test_cart.py::test_total",), pass_to_pass=("tests/test_cart.py::test_none",)
    )
    return Task(
        task_id="cart", kind=Kind.REPAIR, files=FILES, description="`total` adds up.", oracle={"shop/cart.py": GOOD},
        tests=tests, split=Split.TRAIN, problem="cart", origin=Origin(source="tests"), licence="Apache-2.0",
    )  # fmt: skip


def run(command: str) -> str:
    return f"I do.\n```bash\n{command}\n```"


def in_turn(*answers: str) -> Callable[[str, int], str]:
    """Each conversation gets these answers in their order, whatever else is asked at the same time."""
    return lambda prompt, number: answers[min(prompt.count("assistant: ") - 1, len(answers) - 1)]


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1) as grader:
        yield grader


def attempted(
    grader: Grader, answers: Sequence[str], *, attempts: int = 1, program: AgentProgram | None = None, **settings: Any
) -> list[Answer]:
    agent = JailedAgent(program or shell_loop(), **{"deadline_seconds": 60.0, **settings})
    return ask(
        ScriptedEngine(in_turn(*answers)),
        grader,
        [task()],
        hint="failing-call",
        completions_per_task=attempts,
        sampling=Sampling(max_new_tokens=5000),
        agent=agent,
    )[0]


def episode_of(answer: Answer) -> Episode:
    assert answer.episode is not None
    return answer.episode


def test_a_repair_is_paid_in_full_and_its_tokens_are_all_there(grader: Grader) -> None:
    look = run("cat shop/cart.py; git log --oneline | wc -l; python -m pytest -q 2>&1 | tail -1")
    answer = attempted(grader, [look, run(FIX + "; echo note > NOTES.md"), "Done."])[0]
    episode = episode_of(answer)
    assert (answer.verdict.outcome, episode.ending) == (Outcome.PASSED, Ending.FINISHED), episode
    assert episode.files_after["shop/cart.py"] == GOOD and "NOTES.md" in episode.patch
    assert len(episode.turns) == 3 and (episode.forks, episode.rewrites) == (0, 0)
    said = str(episode.messages[2]["content"])
    assert "return 0" in said and "\n1\n" in said and "1 failed" in said, "one commit, and the tests really ran"
    assert "test_total" in str(episode.messages[0]["content"]), "the hint"
    completion = episode.completion()
    drawn = bytes(t for t, own in zip(completion.token_ids, completion.sampled, strict=True) if own and t < 256)
    assert drawn.decode() == look + run(FIX + "; echo note > NOTES.md") + "Done."
    row = row_of(answer, step=1, group=0, sample=0, hint="none", prompt="")
    assert row.passed and row.ending == "finished" and sum(row.sampled) == episode.sampled_tokens


@pytest.mark.parametrize(
    "cheat",
    [
        "printf 'def test_total(): pass\\ndef test_none(): pass\\n' > tests/test_cart.py",
        "printf 'def pytest_collection_modifyitems(items): items.clear()\\n' | tee conftest.py > tests/conftest.py",
        "printf '[pytest]\\naddopts = --co\\n' > pytest.ini; printf 'import os; os._exit(0)' > sitecustomize.py",
        "git log -p --all; git reflog; git fsck --lost-found; cat /proc/1/environ /proc/*/cmdline; ls -R /gateway /tmp",
        "printf 'def main(*a): return 0\\n' > pytest.py",
        f"{FIX}; rm -r tests shop",
    ],
)
def test_cheating_is_paid_nothing(grader: Grader, cheat: str) -> None:
    answer = attempted(grader, [run(cheat), "Done."])[0]
    assert answer.verdict.score == 0.0, answer.verdict
    assert "return sum" not in str(episode_of(answer).messages[2]), "the answer is nowhere to be read"


def test_a_wrong_repair_is_paid_nothing_and_a_right_one_beside_changed_tests_is_paid(grader: Grader) -> None:
    wrong = attempted(grader, [run("sed -i 's/return 0/return 1/' shop/cart.py"), "Done."])[0]
    assert wrong.verdict.outcome is Outcome.FAILED
    right = attempted(grader, [run(FIX + "; echo >> tests/test_cart.py"), "Done."])[0]
    assert right.verdict.passed and "tests/test_cart.py was not used" in episode_of(right).evidence


@pytest.mark.parametrize(
    ("answers", "settings", "ending", "score"),
    [
        (["Nothing to do."], {}, Ending.NO_DIFF, 0.0),
        ([run(FIX), run("true")], {"max_turns": 4}, Ending.OUT_OF_TURNS, 1.0),
        ([run(FIX), run("seq 9000")], {"context_tokens": 3000}, Ending.CONTEXT_FULL, 1.0),
        ([run(FIX + "; sleep 60")], {"deadline_seconds": 4.0}, Ending.OUT_OF_TIME, 1.0),
        ([run("(trap '' TERM; while :; do :; done)")], {"deadline_seconds": 3.0}, Ending.OUT_OF_TIME, 0.0),
        ([run("kill -9 $PPID")], {}, Ending.AGENT_CRASHED, 0.0),
        ([run("head -c 900000000 /dev/zero | tail")], {"memory_bytes": 300 << 20}, Ending.OVER_LIMITS, 0.0),
    ],
)
def test_every_way_to_end_is_told_and_what_is_there_is_graded(
    grader: Grader, answers: list[str], settings: dict[str, Any], ending: Ending, score: float
) -> None:
    answer = attempted(grader, answers, **settings)[0]
    assert episode_of(answer).ending is ending, episode_of(answer)
    assert answer.verdict.score == score, answer.verdict


class Program:
    """A program with nothing to it but its command."""

    name = "program"
    python_module = None

    def __init__(self, *argv: str) -> None:
        self.argv = argv

    def launch(self, task: str, endpoint: Endpoint, python: str) -> Launch:
        told = {"URL": endpoint.base_url, "KEY": endpoint.api_key}
        return Launch(self.argv, environment=told, files={"/tmp/told/task.txt": task})


@pytest.mark.parametrize("command", ["exit 3", "exit 0", "no-such-program", "sleep 60", "echo x >> shop/cart.py"])
def test_an_agent_that_never_gets_an_answer_is_our_fault_and_has_no_verdict(grader: Grader, command: str) -> None:
    answer = attempted(grader, ["x"], program=Program("bash", "-c", command), deadline_seconds=2.0)[0]
    assert episode_of(answer).ending is Ending.INFRASTRUCTURE
    assert answer.verdict.outcome is Outcome.NO_VERDICT and answer.verdict.score is None


def test_a_failing_engine_is_our_fault_and_stops_no_other(grader: Grader) -> None:
    def script(prompt: str, number: int) -> str:
        if prompt.count("assistant: ") == 2:
            raise RuntimeError("out of memory")
        return run(FIX)

    agent = JailedAgent(shell_loop(), deadline_seconds=30)
    settings: Any = {"hint": "none", "completions_per_task": 2, "sampling": Sampling(max_new_tokens=500)}
    group = ask(ScriptedEngine(script), grader, [task()], agent=agent, **settings)[0]
    assert [episode_of(one).ending for one in group] == [Ending.INFRASTRUCTURE] * 2
    assert all("out of memory" in episode_of(one).evidence and one.verdict.score is None for one in group)


def test_the_jail_reaches_the_gateway_and_nothing_else(grader: Grader) -> None:
    look = (
        "import os, socket, urllib.request, urllib.error\n"
        "def tried(work):\n"
        "    try: return str(work())\n"
        "    except Exception as error: return type(error).__name__ + ' ' + str(getattr(error, 'code', ''))\n"
        "def get(path, key):\n"
        "    url = os.environ['URL'].rpartition('/s/')[0] + path\n"
        "    asked = urllib.request.Request(url, headers={'Authorization': 'Bearer ' + key})\n"
        "    return urllib.request.urlopen(asked).status\n"
        "own = '/s/' + os.environ['URL'].rpartition('/s/')[2] + '/models'\n"
        "print(tried(lambda: get(own, os.environ['KEY'])), tried(lambda: get(own, 'x')))\n"
        "print(tried(lambda: get('/s/another/v1/models', os.environ['KEY'])))\n"
        "print(tried(lambda: socket.create_connection(('1.1.1.1', 53), 1)))\n"
        "print(sorted(os.listdir('/gateway')), os.path.exists('/root'), os.getuid() != 0)\n"
        "print(open('/tmp/told/task.txt').read().splitlines()[0])\n"
    )
    answer = attempted(grader, ["x"], program=Program("python", "-I", "-c", look))[0]
    said = episode_of(answer).evidence
    assert "200 HTTPError 401" in said and "HTTPError 404" in said
    assert "OSError" in said and "['gateway.sock'] " in said and said.rstrip().endswith("`total` adds up.")


def test_attempts_at_once_do_not_see_one_another_and_leave_nothing(grader: Grader) -> None:
    group = attempted(grader, [run("ls; echo mine > mine.txt"), run(FIX), "Done."], attempts=6)
    assert all(answer.verdict.passed for answer in group)
    assert all("mine.txt" not in str(episode_of(one).messages[2]["content"]) for one in group)
    assert not leftovers()


@pytest.mark.slow
def test_thirty_two_agents_work_at_once(grader: Grader) -> None:
    script = [run("cat shop/cart.py"), run(FIX), run("git diff | tail -3"), "Done."]
    group = attempted(grader, script, attempts=32, concurrency=32, deadline_seconds=200.0)
    assert all(one.verdict.passed and len(episode_of(one).turns) == 4 for one in group)
    assert not leftovers()


def test_a_killed_agent_frees_its_session_its_jail_and_its_files(grader: Grader) -> None:
    command = f"{FIX}; (sleep 300 &) ; kill -9 $PPID"
    group = attempted(grader, [run(command)], attempts=3)
    assert [episode_of(one).ending for one in group] == [Ending.AGENT_CRASHED] * 3
    assert all(one.verdict.passed for one in group), "what it had done is graded"
    assert not leftovers()


def leftovers() -> list[str]:
    """Jails, gateways and folders of this process that are still there."""
    jails = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            jails += [" ".join(child.cmdline())[:200]] if "/gateway/gateway.sock" in child.cmdline() else []
    folders = [str(path) for path in Path("/tmp").glob(f"crrl-gateway-{os.getpid()}-*")]
    threads = [
        thread.name for thread in threading.enumerate() if thread.name.startswith(("crrl-gateway", "crrl-agent"))
    ]
    return [*jails, *folders, *threads]


def test_an_agent_that_is_not_installed_is_named_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nano-agent is not installed"):
        python_for(PROGRAMS["nano-agent"], tmp_path)


def test_adapters_are_named_as_module_and_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "this_raises.py").write_text("raise RuntimeError('at import')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = program_named("code_repair_rl.rollouts.agent_programs:NanoAgent")
    assert found == PROGRAMS["nano-agent"] == program_named("nano-agent")
    for name in ("no_such_module:Agent", "json:NoAgent", "json:JSONDecoder", "this_raises:A", "unknown"):
        with pytest.raises(BadInput, match="there is no agent"):
            program_named(name)


def test_an_installed_copy_of_what_is_to_be_repaired_cannot_be_read(
    grader: Grader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages"
    (installed / "shop").mkdir(parents=True)
    (installed / "shop" / "cart.py").write_text(GOOD)
    (installed / "other.py").write_text("here = 1\n")
    monkeypatch.setattr("code_repair_rl.rollouts.jailed_agent.packages", lambda: (*packages(), str(installed)))
    cheat = f"cp {installed}/shop/cart.py shop/; cat {installed}/other.py > note.txt; ls {installed}/shop >> note.txt"
    (one,) = attempted(grader, [run(cheat), run("true")])
    assert episode_of(one).files_after["note.txt"] == "here = 1\n"
    assert episode_of(one).files_after["shop/cart.py"] == FILES["shop/cart.py"]
    assert one.verdict.score == 0.0


@pytest.mark.parametrize(
    "beside",
    ["ln -s cart.py shop/cart_link.py", "ln shop/__init__.py shop/again.py", "seq 3000000 > log.txt"],
)
def test_what_cannot_be_read_back_beside_a_repair_costs_it_nothing(grader: Grader, beside: str) -> None:
    (one,) = attempted(grader, [run(f"{FIX}; {beside}"), run("true")])
    assert one.verdict.score == 1.0
    assert "left out" in episode_of(one).evidence


def test_what_was_left_out_is_named_however_much_the_agent_says(grader: Grader) -> None:
    class Talkative:
        name, python_module = "talkative", None

        def launch(self, task: str, endpoint: Endpoint, python: str) -> Launch:
            launch = shell_loop().launch(task, endpoint, python)
            told = [*launch.argv[:-1], launch.argv[-1]]
            return dataclasses.replace(launch, argv=("sh", "-c", 'seq 3000; exec "$@"', "sh", *told))

    (one,) = attempted(grader, [run(f"{FIX}; ln -s cart.py shop/link.py"), run("true")], program=Talkative())
    note = episode_of(one).evidence
    assert "shop/link.py could not be read back" in note and "3000" in note and len(note) <= 2001


def test_a_time_that_ran_out_while_the_server_was_away_is_our_fault(grader: Grader) -> None:
    class Away(ScriptedEngine):
        retries = 0

        def generate_each(self, *asked: Any, **more: Any) -> Any:
            self.retries += 1
            return super().generate_each(*asked, **more)

    found = ask(
        Away(in_turn(run(FIX), run("sleep 100"))), grader, [task()], hint="failing-call", completions_per_task=1,
        sampling=Sampling(1.0, 400, 3), agent=JailedAgent(shell_loop(), deadline_seconds=6.0),
    )  # fmt: skip
    episode = episode_of(found[0][0])
    assert (episode.ending, found[0][0].verdict.score) == (Ending.INFRASTRUCTURE, None)
    assert "was away" in episode.evidence


def test_a_command_that_kills_all_there_is_ends_the_attempt_and_not_its_record(grader: Grader) -> None:
    (one,) = attempted(grader, [run(f"{FIX}; kill -9 -1"), run("true")])
    assert episode_of(one).ending is not Ending.INFRASTRUCTURE
    assert one.verdict.score == 1.0


def test_a_file_that_became_a_link_counts_as_it_was(grader: Grader) -> None:
    (one,) = attempted(grader, [run(f"{FIX}; mv shop/cart.py c.py; ln -s ../c.py shop/cart.py"), run("true")])
    assert "shop/cart.py could not be read back" in episode_of(one).evidence
    assert episode_of(one).files_after["shop/cart.py"] == FILES["shop/cart.py"]


def test_an_interrupt_ends_the_jails_too(grader: Grader) -> None:
    class Interrupted(ScriptedEngine):
        def generate_each(self, *asked: Any, **more: Any) -> Any:
            raise KeyboardInterrupt

    ask_and_hang = (
        "import json, os, time, urllib.request\n"
        "body = json.dumps({'model': 'policy', 'messages': [{'role': 'user', 'content': 'x'}]}).encode()\n"
        "headers = {'Authorization': 'Bearer ' + os.environ['KEY']}\n"
        "try: urllib.request.urlopen(urllib.request.Request(os.environ['URL'] + '/chat/completions', body, headers))\n"
        "except Exception: time.sleep(60)\n"
    )
    program = Program("python", "-I", "-c", ask_and_hang)
    agent = JailedAgent(program, deadline_seconds=60.0)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask(
            Interrupted(["x"]), grader, [task()], hint="none", completions_per_task=2,
            sampling=Sampling(max_new_tokens=50), agent=agent,
        )  # fmt: skip
    assert time.monotonic() - began < 30
    assert not leftovers()


def test_a_mistake_of_an_adapter_is_our_fault_and_stops_no_other(grader: Grader) -> None:
    class Wrong:
        name, python_module = "wrong", None

        def launch(self, task: str, endpoint: Endpoint, python: str) -> Launch:
            raise ValueError("no such option")

    (one,) = attempted(grader, ["x"], program=Wrong())
    assert (episode_of(one).ending, one.verdict.outcome) == (Ending.INFRASTRUCTURE, Outcome.NO_VERDICT)
    assert "no such option" in episode_of(one).evidence


def test_a_model_behind_an_endpoint_works_through_an_agent_and_is_recorded_as_text(grader: Grader) -> None:
    def reply(body: dict[str, Any], number: int) -> Any:
        return completion(run(FIX) if len(body["messages"]) < 3 else "Done.", tokens=5)

    with chat_server(reply) as (endpoint, asked):
        engine = RemoteEngine(endpoint, "big")
        agent = JailedAgent(shell_loop(), deadline_seconds=60.0)
        (group,) = ask(
            engine, grader, [task()], hint="failing-call", completions_per_task=2, sampling=Sampling(1.0, 400, 3),
            agent=agent,
        )  # fmt: skip
    assert [one.verdict.score for one in group] == [1.0, 1.0]
    assert [body["messages"][-1]["role"] for body in asked.bodies] == ["user"] * 4
    assert {body["temperature"] for body in asked.bodies} == {1.0}
    row = row_of(group[0], step=1, group=0, sample=0, hint="failing-call", prompt="")
    assert (row.prompt_ids, row.sampled_tokens) == ((), 10)
    ((kept,),) = [one.kept for one in curate([Source("run", [row], {"cart": task()})], Choice())]
    assert [message["role"] for message in kept.messages][-3:] == ["assistant", "user", "assistant"]
    assert kept.token_ids == ()
