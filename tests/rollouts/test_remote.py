"""A remote engine against a real server."""

from __future__ import annotations

import json
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.rollouts import Engine, FinishReason, Sampling
from code_repair_rl.rollouts.completion import Message, PromptTooLong
from code_repair_rl.rollouts.gateway import Gateway
from code_repair_rl.rollouts.remote import UNKNOWN_TOKEN, RemoteEngine, key_from_environment
from code_repair_rl.rollouts.scripted import ScriptedEngine
from code_repair_rl.rollouts.tool_calls import read_tool_calls
from tests.rollouts.chat_server import Reply, chat_server, completion, failure

HELLO: list[Message] = [{"role": "system", "content": "Repair."}, {"role": "user", "content": "x → y\u2028 </s>"}]
SAMPLING = Sampling(temperature=0.7, max_new_tokens=50, seed=4)


def ask(engine: Engine, prompts: int = 1, each: int = 1) -> list[list[Any]]:
    return engine.generate([engine.encode(HELLO)] * prompts, completions_per_prompt=each, sampling=SAMPLING)


def test_prompts_go_as_messages_and_answers_come_back_in_order() -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        return completion(f"seed {body['seed']}", tokens=7, finish="length" if body["seed"] % 2 else "stop")

    with chat_server(reply) as (endpoint, asked):
        engine = RemoteEngine(endpoint, "m", api_key="secret", concurrency=3)
        found = ask(engine, prompts=2, each=3)
        again = ask(engine, prompts=2, each=3)
    assert [len(group) for group in found] == [3, 3]
    assert found == again  # the same seeds, in the same places
    assert len({one.text for group in found for one in group}) == 6
    assert asked.paths[0] == "/v1/chat/completions"
    assert asked.bodies[0]["messages"] == HELLO
    assert (asked.bodies[0]["temperature"], asked.bodies[0]["max_tokens"], asked.bodies[0]["model"]) == (0.7, 50, "m")
    assert {headers["Authorization"] for headers in asked.headers} == {"Bearer secret"}
    one = found[0][0]
    assert one.token_ids == (UNKNOWN_TOKEN,) * 7
    assert one.prompt_ids == ()
    assert all(math.isnan(value) for value in one.logprobs)
    odd = int(one.text.split()[1]) % 2
    assert one.finish_reason is (FinishReason.LENGTH if odd else FinishReason.STOP)


def test_log_probabilities_are_kept_where_the_server_tells_them() -> None:
    with chat_server(lambda body, number: completion("a", tokens=2, logprobs=bool(body["logprobs"]))) as (endpoint, _):
        ((one,),) = ask(RemoteEngine(endpoint, "m"))
    assert one.logprobs == (-0.5, -0.5)
    assert len(one.token_ids) == 2


def test_no_more_requests_at_once_than_allowed() -> None:
    gate = threading.Barrier(2)

    def reply(body: dict[str, Any], number: int) -> Reply:
        gate.wait(timeout=30)
        return completion("a")

    with chat_server(reply) as (endpoint, asked):
        ask(RemoteEngine(endpoint, "m", concurrency=2), each=6)
    assert asked.most_at_once == 2


def test_what_may_pass_is_tried_again_after_growing_pauses() -> None:
    pauses: list[float] = []

    def reply(body: dict[str, Any], number: int) -> Reply:
        return (
            failure(503, "loading"),
            failure(429, "slow down", Retry_After="7"),
            (200, {}, b"<html>"),
            (200, {"Transfer_Encoding": "chunked"}, b"9\r\ncut"),
            (502, {"Transfer_Encoding": "chunked"}, b"9\r\ncut"),
            completion("at last"),
        )[number]

    with chat_server(reply) as (endpoint, _):
        engine = RemoteEngine(endpoint, "m", pause=pauses.append)
        ((one,),) = ask(engine)
    assert (one.text, engine.retries, len(pauses)) == ("at last", 5, 5)
    assert 0.75 <= pauses[0] <= 1.25
    assert pauses[1] == 7
    assert 3 <= pauses[2] <= 5


def test_a_server_that_stays_away_is_our_machinery_failing() -> None:
    pauses: list[float] = []
    with chat_server(lambda body, number: failure(500, "broken")) as (endpoint, asked):
        with pytest.raises(MachineryFailed, match="no answer after 3 attempts; the last: 500 broken"):
            ask(RemoteEngine(endpoint, "m", attempts=3, pause=pauses.append))
        assert len(asked.bodies) == 3
    assert len(pauses) == 2
    with pytest.raises(MachineryFailed, match="Connection"):
        ask(RemoteEngine(endpoint, "m", attempts=1))


@pytest.mark.parametrize(
    ("status", "mend"), [(401, "environment variable"), (404, "model's name"), (400, None), (302, "redirects to")]
)
def test_a_refusal_is_the_users_to_mend_and_is_not_repeated(status: int, mend: str | None) -> None:
    with chat_server(lambda body, number: failure(status, "not you", Location="http://127.0.0.1:1/v1")) as (
        where,
        asked,
    ):
        with pytest.raises(BadInput, match=f"'m': {status} not you") as caught:
            ask(RemoteEngine(where, "m", api_key="k"))
        assert len(asked.bodies) == 1
    assert mend is None or mend in str(caught.value)


def test_a_prompt_that_is_too_long_for_the_server_costs_the_others_nothing() -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        long = "1" in body["messages"][-1]["content"]
        return failure(400, "maximum context length is 9 tokens") if long else completion("fine")

    with chat_server(reply) as (endpoint, _):
        engine = RemoteEngine(endpoint, "m")
        prompts = [engine.encode([{"role": "user", "content": f"prompt {number}"}]) for number in range(3)]
        found = [one for (one,) in engine.generate(prompts, completions_per_prompt=1, sampling=SAMPLING)]
        with pytest.raises(PromptTooLong):
            engine.generate_each(prompts, [1] * 3, SAMPLING)
    assert [one.text for one in found] == ["fine", "", "fine"]
    assert (found[1].token_ids, found[1].finish_reason) == ((), FinishReason.LENGTH)


def test_parameters_that_a_server_does_not_know_are_left_out_from_then_on() -> None:
    def reply(body: dict[str, Any], number: int) -> Reply:
        for name in ("logprobs", "seed"):
            if name in body:
                return failure(400, f"Unsupported parameter: '{name}'")
        if "max_tokens" in body:
            return failure(400, "'max_tokens' is not supported. Use 'max_completion_tokens' instead.")
        return completion("a")

    with chat_server(reply) as (endpoint, asked):
        engine = RemoteEngine(endpoint, "m", concurrency=1)
        ask(engine, each=2)
    assert len(asked.bodies) == 5
    assert asked.bodies[-1].keys() == {"model", "messages", "temperature", "max_completion_tokens"}


def test_another_temperature_than_asked_for_is_not_accepted_silently() -> None:
    with (
        chat_server(lambda body, number: failure(400, "temperature does not support 0.7")) as (endpoint, _),
        pytest.raises(BadInput, match=r"temperature does not support 0\.7"),
    ):
        ask(RemoteEngine(endpoint, "m"))


def test_a_refusal_ends_the_waits_of_the_others() -> None:
    busy = threading.Event()

    def reply(body: dict[str, Any], number: int) -> Reply:
        if number == 0:
            busy.set()
            return failure(503, "wait", Retry_After="60")
        busy.wait(timeout=30)
        return failure(401, "no")

    with chat_server(reply) as (endpoint, _):
        began = time.monotonic()
        with pytest.raises(BadInput, match="401 no"):
            ask(RemoteEngine(endpoint, "m", concurrency=2), each=2)
        assert time.monotonic() - began < 50


def test_an_interruption_pays_for_nothing_twice(tmp_path: Path) -> None:
    journal = tmp_path / "deep" / "journal.jsonl"

    def reply(body: dict[str, Any], number: int) -> Reply:
        return failure(401, "expired") if number == 3 else completion(str(body["seed"]))

    with chat_server(reply) as (endpoint, asked):
        with pytest.raises(BadInput, match="expired"):
            ask(RemoteEngine(endpoint, "m", concurrency=1, journal=journal), each=6)
        with journal.open("a") as file:
            file.write('{"request": "torn')
        found = ask(RemoteEngine(endpoint, "m", concurrency=1, journal=journal), each=6)
        assert len({one.text for one in found[0]}) == 6
        answered = [body["seed"] for number, body in enumerate(asked.bodies) if number != 3]
        assert len(answered) == len(set(answered)) == 6
        before = len(asked.bodies)
        assert ask(RemoteEngine(endpoint, "m", journal=journal), each=6) == found
        assert len(asked.bodies) == before
        ask(RemoteEngine(endpoint, "other", journal=journal))
        assert len(asked.bodies) == before + 1


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("host/v1", "not the address"),
        ("ftp://host/v1", "not the address"),
        ("https://user:pass@host/v1", "password"),
        ("http://192.0.2.1/v1", "unencrypted"),
    ],
)
def test_addresses_that_are_wrong_or_unsafe_are_refused(endpoint: str, problem: str) -> None:
    with pytest.raises(BadInput, match=problem) as caught:
        RemoteEngine(endpoint, "m", api_key="k")
    assert "pass@" not in str(caught.value)


def test_the_address_may_name_the_resource_or_its_base() -> None:
    for endpoint in ("http://localhost:1/v1", "http://localhost:1/v1/", "http://localhost:1/v1/chat/completions"):
        assert RemoteEngine(endpoint, "m").address == "http://localhost:1/v1/chat/completions"


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "k")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert key_from_environment("SOME_KEY") == "k"
    assert key_from_environment() is None


def test_our_own_gateway_is_asked_like_any_other_server() -> None:
    words = "ü \U0001f600 </think>"
    gateway = Gateway(ScriptedEngine([words]), sampling=Sampling(max_new_tokens=100), open_access=True)
    with gateway, ThreadPoolExecutor(1) as pool:
        engine = RemoteEngine(f"http://127.0.0.1:{gateway.port}/v1", "policy", api_key=gateway.token)
        done = pool.submit(ask, engine, 2, 2)
        gateway.serve_while([done])
        found = done.result()
    assert [[one.text for one in group] for group in found] == [[words] * 2] * 2
    tokens = len(words.encode()) + 1  # the script's tokens are bytes
    assert found[0][0].token_ids == (UNKNOWN_TOKEN,) * tokens
    assert found[0][0].logprobs == (0.0,) * tokens


def test_tools_are_offered_and_calls_that_the_server_reads_come_back_as_text() -> None:
    call = {"id": "x", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
    tool = {"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}

    def reply(body: dict[str, Any], number: int) -> Reply:
        status, headers, raw = completion("I look.")
        plain = json.loads(raw)
        plain["choices"][0]["message"]["tool_calls"] = [call]
        return status, headers, json.dumps(plain).encode()

    said = [
        {"role": "user", "content": "fix"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "x", "content": "a.py"},
    ]
    with chat_server(reply) as (endpoint, asked):
        engine = RemoteEngine(endpoint, "m")
        (answers,) = engine.generate_each([engine.conversation(said, [tool])], [2], Sampling(0.5, 9), [7])
    assert [body["messages"] for body in asked.bodies] == [said, said]
    assert [body["tools"] for body in asked.bodies] == [[tool], [tool]]
    assert len({body["seed"] for body in asked.bodies}) == 2
    assert answers[0].prompt_ids == ()
    assert answers[0].text.startswith("I look.\n")
    assert [one.arguments for one in read_tool_calls(answers[0].text, [tool]).calls] == [{"command": "ls"}]
