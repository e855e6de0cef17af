"""The gateway over real HTTP: answers, tools, streams, errors, who is let in, many at once."""

from __future__ import annotations

import gc
import json
import socket
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.models import TINY_MODEL, load_model, load_tokenizer
from code_repair_rl.rollouts import Completion, Sampling
from code_repair_rl.rollouts.completion import PromptTooLong
from code_repair_rl.rollouts.episode import Ending, Turn
from code_repair_rl.rollouts.gateway import Gateway
from code_repair_rl.rollouts.local import LocalEngine
from code_repair_rl.rollouts.remote import RemoteEngine
from code_repair_rl.rollouts.scripted import ScriptedEngine
from code_repair_rl.rollouts.sessions import Choice, Session, SessionLimits
from tests.rollouts.chat_server import chat_server, completion

USER = {"role": "user", "content": "hello"}
TOOL = {"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def tiny() -> LocalEngine:
    return LocalEngine(load_model(TINY_MODEL), load_tokenizer(TINY_MODEL))


def served(gateway: Gateway, work: Callable[[], Any]) -> Any:
    """Run a client's work in another thread, and the engine here."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        gateway.serve_while([done])
        return done.result()


def post(gateway: Gateway, session: Session, body: Any, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {gateway.token}", **more.pop("headers", {})}
    raw = body if isinstance(body, (bytes, str)) else json.dumps({"model": "policy", **body})
    url = more.pop("url", gateway.base_url(session) + "/chat/completions")
    return httpx.post(url, content=raw, headers=headers, timeout=30, trust_env=False, **more)


@pytest.fixture
def scripted() -> Iterator[Gateway]:
    answers = {
        "call": '<tool_call>{"name": "bash", "arguments": {"command": "ls"}}</tool_call>',
        "hello": "hi ü\U0001f600",
    }

    def script(prompt: str, number: int) -> str:
        asked = prompt.removesuffix("assistant: ").rstrip().rpartition("user: ")[2]
        return answers.get(asked, f"{asked}|{number}")

    with Gateway(ScriptedEngine(script), sampling=Sampling(max_new_tokens=200)) as gateway:
        yield gateway


def test_an_answer_has_the_form_of_the_api(scripted: Gateway) -> None:
    session = scripted.open_session()
    response = served(scripted, lambda: post(scripted, session, {"messages": [USER], "logprobs": True}))
    body = response.json()
    choice = body["choices"][0]
    assert (response.status_code, body["object"], body["model"]) == (200, "chat.completion", "policy")
    assert choice["message"] == {"role": "assistant", "content": "hi ü\U0001f600"}
    assert choice["finish_reason"] == "stop"
    tokens = len("hi ü\U0001f600".encode()) + 1
    assert body["usage"]["completion_tokens"] == tokens == len(choice["logprobs"]["content"])
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + tokens


def test_choices_and_stop_texts(scripted: Gateway) -> None:
    session = scripted.open_session()
    asked = {"messages": [{"role": "user", "content": "abc"}], "n": 3, "stop": "|2", "max_tokens": 1, "temperature": 9}
    body = served(scripted, lambda: post(scripted, session, asked)).json()
    assert [choice["message"]["content"] for choice in body["choices"]] == ["abc|0", "abc|1", "abc"]


def test_the_recipes_sampling_wins(tiny: LocalEngine) -> None:
    with Gateway(tiny, sampling=Sampling(temperature=1.0, max_new_tokens=7, seed=4)) as gateway:
        asked = [
            {"messages": [USER], "max_tokens": 50, "temperature": temperature, "top_p": 0.1, "seed": 8}
            for temperature in (0.0, 1.9)
        ]
        sessions = [gateway.open_session() for _ in asked]
        served(
            gateway,
            lambda: [post(gateway, s, body).raise_for_status() for s, body in zip(sessions, asked, strict=True)],
        )
        one, other = (session.longest()[0][0] for session in sessions)
    assert one.token_ids == other.token_ids and len(one.token_ids) <= 7


def test_a_request_gets_the_same_answer_alone_and_in_a_batch(tiny: LocalEngine) -> None:
    def sampled(together: bool) -> list[tuple[int, ...]]:
        with Gateway(tiny, sampling=Sampling(max_new_tokens=8)) as gateway:
            sessions = [gateway.open_session(seed=number) for number in range(6)]

            def one(session: Session) -> None:
                body = {"messages": [{"role": "user", "content": "x" * (1 + session.sampling.seed)}]}
                post(gateway, session, body).raise_for_status()

            with ThreadPoolExecutor(6 if together else 1) as clients:
                gateway.serve_while([clients.submit(one, session) for session in sessions])
            return [session.longest()[0][0].token_ids for session in sessions]

    assert sampled(True) == sampled(False)


def test_tools_go_both_ways(scripted: Gateway) -> None:
    session = scripted.open_session()
    ask = {"role": "user", "content": "call"}

    def work() -> tuple[Any, Any]:
        first = post(scripted, session, {"messages": [ask], "tools": [TOOL]}).json()["choices"][0]
        call = first["message"]["tool_calls"][0]
        result = {"role": "tool", "tool_call_id": call["id"], "content": "a.py"}
        return first, post(scripted, session, {"messages": [ask, first["message"], result], "tools": [TOOL]}).json()

    first, second = served(scripted, work)
    assert first["finish_reason"] == "tool_calls" and first["message"]["content"] is None
    assert json.loads(first["message"]["tool_calls"][0]["function"]["arguments"]) == {"command": "ls"}
    assert "<tool_response>\na.py\n</tool_response>" in second["choices"][0]["message"]["content"]
    turns, messages, tools, _ = session.longest()
    assert (len(turns), len(messages), len(tools)) == (2, 4, 1) and session.rewrites == 0


def test_streams_hold_the_same_as_answers(scripted: Gateway) -> None:
    session = scripted.open_session()
    asked = {"messages": [{"role": "user", "content": "y" * 150}], "n": 2, "stream": True}
    text = served(scripted, lambda: post(scripted, session, {**asked, "stream_options": {"include_usage": True}})).text
    events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    chunks = [json.loads(event) for event in events[:-1]]
    assert events[-1] == "[DONE]" and chunks[-1]["usage"]["completion_tokens"] == 2 * 153
    for number in (0, 1):
        deltas = [c["choices"][0] for c in chunks[:-1] if c["choices"][0]["index"] == number]
        assert "".join(delta["delta"].get("content") or "" for delta in deltas) == "y" * 150 + f"|{number}"
        assert deltas[-1]["finish_reason"] == "stop" and deltas[0]["delta"]["role"] == "assistant"
    call = {"messages": [{"role": "user", "content": "call"}], "tools": [TOOL], "stream": True}
    text = served(scripted, lambda: post(scripted, session, call)).text
    assert '"tool_calls": [{"index": 0, "id": "call_1"' in text and '"finish_reason": "tool_calls"' in text


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"\xff\xfe", 400, None),
        (b"[]", 400, None),
        (b"[" * 100_000, 400, None),
        ({}, 400, "messages"),
        ({"messages": []}, 400, "messages"),
        ({"messages": ["x"]}, 400, "messages[0]"),
        ({"messages": [{"role": "king", "content": "x"}]}, 400, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, 400, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, 400, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, 400, "messages[0].tool_calls"),
        ({"messages": [USER], "n": 0}, 400, "n"),
        ({"messages": [USER], "n": True}, 400, "n"),
        ({"messages": [USER], "stop": [""]}, 400, "stop"),
        ({"messages": [USER], "tools": [{"type": "function"}]}, 400, "tools[0]"),
        ({"messages": [USER], "stream": "yes"}, 400, "stream"),
        ({"messages": [USER], "model": "gpt-4"}, 404, "model"),
    ],
)
def test_wrong_requests_get_the_apis_errors(scripted: Gateway, body: Any, status: int, param: str | None) -> None:
    response = post(scripted, scripted.open_session(), body)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["param"] == param and error["message"] and error["type"] == "invalid_request_error"


def test_only_whoever_has_the_token_and_a_session_is_let_in(scripted: Gateway) -> None:
    session = scripted.open_session()
    start = f"http://127.0.0.1:{scripted.port}"
    ask = {"messages": [USER]}
    assert post(scripted, session, ask, headers={"Authorization": "Bearer no"}).status_code == 401
    assert (
        httpx.get(scripted.base_url(session) + "/models", trust_env=False).json()["error"]["code"] == "invalid_api_key"
    )
    assert post(scripted, session, ask, url=f"{start}/s/guessed/v1/chat/completions").status_code == 404
    assert post(scripted, session, ask, url=f"{start}/v1/chat/completions").status_code == 404
    assert post(scripted, session, ask, url=f"{start}/elsewhere").json()["error"]["code"] == "unknown_url"
    listed = httpx.get(
        scripted.base_url(session) + "/models", headers={"Authorization": f"Bearer {scripted.token}"}, trust_env=False
    )
    assert listed.json()["data"][0]["id"] == "policy"
    scripted.close_session(session)
    assert post(scripted, session, ask).status_code == 404
    with pytest.raises(BadInput, match="other machines"):
        Gateway(ScriptedEngine(["x"]), host="0.0.0.0")


def test_the_unix_socket_serves_the_same(scripted: Gateway) -> None:
    session = scripted.open_session()
    transport = httpx.HTTPTransport(uds=str(scripted.socket_path))

    def work() -> Any:
        with httpx.Client(transport=transport, headers={"Authorization": f"Bearer {scripted.token}"}) as client:
            path = f"http://gateway/s/{session.id}/v1/chat/completions"
            return client.post(path, json={"model": "policy", "messages": [USER]}).json()

    assert served(scripted, work)["choices"][0]["message"]["content"] == "hi ü\U0001f600"
    assert scripted.socket_path.parent.stat().st_mode & 0o077 == 0
    folder = scripted.socket_path.parent
    scripted.close()
    assert not folder.exists()


def test_a_full_context_and_used_up_turns_are_told_as_such(scripted: Gateway) -> None:
    session = scripted.open_session(limits=SessionLimits(context_tokens=60))
    long = {"messages": [{"role": "user", "content": "x" * 100}]}
    response = served(scripted, lambda: post(scripted, session, long))
    assert response.status_code == 400 and response.json()["error"]["code"] == "context_length_exceeded"
    assert session.ended is not None and session.ended.ending is Ending.CONTEXT_FULL
    session = scripted.open_session(limits=SessionLimits(max_turns=1))
    served(scripted, lambda: post(scripted, session, {"messages": [USER]}).raise_for_status())
    response = served(scripted, lambda: post(scripted, session, {"messages": [USER]}))
    assert response.json()["error"]["code"] == "turn_limit_reached"


def test_an_engine_that_fails_is_the_servers_fault() -> None:
    def broken(prompt: str, number: int) -> str:
        raise RuntimeError("no memory")

    with Gateway(ScriptedEngine(broken)) as gateway:
        session = gateway.open_session()
        response = served(gateway, lambda: post(gateway, session, {"messages": [USER]}))
    assert response.status_code == 500 and response.json()["error"]["type"] == "server_error"
    assert "no memory" in session.failure and "no memory" not in response.text


def test_of_a_batch_that_fails_only_the_request_that_it_fails_for_is_lost() -> None:
    class Refusing(ScriptedEngine):
        def generate_each(self, prompts: Any, counts: Any, *more: Any, **others: Any) -> list[list[Completion]]:
            if any(b"poison" in bytes(prompt) for prompt in prompts):
                raise BadInput("the server refused a prompt")
            return super().generate_each(prompts, counts, *more, **others)

    words = ["one", "poison", "two", "three"]
    with Gateway(Refusing(["fine"])) as gateway, ThreadPoolExecutor(4) as pool:
        sessions = [gateway.open_session() for _ in words]
        work = [
            pool.submit(post, gateway, session, {"messages": [{"role": "user", "content": word}]})
            for session, word in zip(sessions, words, strict=True)
        ]
        gateway.serve_while(work)
        codes = [one.result().status_code for one in work]
    assert [code == 200 for code in codes] == [True, False, True, True]
    assert [bool(session.failure) for session in sessions] == [False, True, False, False]


def test_a_failed_batch_is_let_go_before_its_requests_are_tried_one_by_one() -> None:
    class Cache:
        """Stands for what a batch allocates."""

    held: list[weakref.ref[Cache]] = []
    alive: list[int] = []

    class Small(ScriptedEngine):
        def generate_each(self, prompts: Any, counts: Any, *more: Any, **others: Any) -> list[list[Completion]]:
            alive.append(sum(one() is not None for one in held))
            cache = Cache()
            held.append(weakref.ref(cache))
            if len(prompts) > 1:
                raise RuntimeError("out of memory")
            return super().generate_each(prompts, counts, *more, **others)

    with Gateway(Small(["fine"])) as gateway, ThreadPoolExecutor(2) as pool:
        sessions = [gateway.open_session() for _ in range(2)]
        work = [pool.submit(post, gateway, one, {"messages": [USER]}) for one in sessions]
        gateway.serve_while(work)
        assert [one.result().status_code for one in work] == [200, 200]
    assert len(alive) >= 3 and not any(alive)


def test_where_the_server_was_away_every_session_has_lost_time() -> None:
    class Away(ScriptedEngine):
        retries = 0

        def generate_each(self, *asked: Any, **more: Any) -> list[list[Completion]]:
            self.retries += self.requests_seen > 0
            self.requests_seen += 1
            return super().generate_each(*asked, **more)

        requests_seen = 0

    with Gateway(Away(["fine"])) as gateway:
        one, other = gateway.open_session(), gateway.open_session()
        served(gateway, lambda: post(gateway, one, {"messages": [USER]}))
        assert not one.delayed
        served(gateway, lambda: post(gateway, one, {"messages": [USER]}))
        assert one.delayed and other.delayed


def test_what_a_server_behind_us_does_not_tell_is_null() -> None:
    reply = completion("a\ud800b", tokens=2)
    with chat_server(lambda body, number: reply) as (endpoint, _), Gateway(RemoteEngine(endpoint, "m")) as gateway:
        session = gateway.open_session()
        body = {"messages": [USER], "logprobs": True}
        answers = [
            served(gateway, lambda more=more: post(gateway, session, {**body, **more}))  # type: ignore[misc]
            for more in ({}, {"stream": True})
        ]
    assert [one.status_code for one in answers] == [200, 200]
    choice = answers[0].json()["choices"][0]
    assert choice["message"]["content"] == "a?b"
    assert [token["logprob"] for token in choice["logprobs"]["content"]] == [None, None]
    assert answers[0].json()["usage"]["prompt_tokens"] == 0
    assert "NaN" not in answers[1].text


def test_a_prompt_that_a_server_finds_too_long_ends_the_session_as_a_full_context_does() -> None:
    class Small(ScriptedEngine):
        def generate_each(self, prompts: Any, counts: Any, *more: Any, **others: Any) -> list[list[Completion]]:
            if max(map(len, prompts)) > 30:
                raise PromptTooLong("400 maximum context length is 30 tokens")
            return super().generate_each(prompts, counts, *more, **others)

    with Gateway(Small(["fine"])) as gateway, ThreadPoolExecutor(2) as pool:
        sessions = [gateway.open_session() for _ in range(2)]
        bodies = [{"messages": [{"role": "user", "content": "x" * length}]} for length in (3, 40)]
        work = [pool.submit(post, gateway, one, body) for one, body in zip(sessions, bodies, strict=True)]
        gateway.serve_while(work)
        found = [one.result() for one in work]
    assert [one.status_code for one in found] == [200, 400]
    assert found[1].json()["error"]["code"] == "context_length_exceeded"
    assert [one.failure for one in sessions] == ["", ""]
    assert sessions[1].ended is not None and sessions[1].ended.ending is Ending.CONTEXT_FULL


class Slow(ScriptedEngine):
    """Takes its time, as a model does, and notes how many prompts it was given at once."""

    def __init__(self) -> None:
        super().__init__(["slowly"])
        self.asked: list[int] = []

    def generate_each(self, prompts: Any, counts: Any, sampling: Sampling, seeds: Any = None) -> list[list[Completion]]:
        self.asked.append(len(prompts))
        time.sleep(0.05)
        return super().generate_each(prompts, counts, sampling, seeds)


def test_a_client_that_went_away_is_not_sampled_for() -> None:
    slow = Slow()
    gateway = Gateway(slow)
    with gateway:
        session = gateway.open_session()
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                gateway.base_url(session) + "/chat/completions",
                headers={"Authorization": f"Bearer {gateway.token}"},
                json={"model": "policy", "messages": [USER]}, timeout=0.1, trust_env=False,
            )  # fmt: skip
        deadline = time.monotonic() + 5
        waiting = gateway._waiting
        first = waiting.get(timeout=5)
        assert first is not None
        while not first.answer.cancelled() and time.monotonic() < deadline:
            time.sleep(0.01)
        waiting.put(first)
        served(gateway, lambda: post(gateway, gateway.open_session(), {"messages": [USER]}).raise_for_status())
    assert slow.asked == [1] and session.requests == 0


def test_thirty_two_agents_at_once_are_all_served_fairly() -> None:
    slow = Slow()
    gateway = Gateway(slow)
    turns = 4

    def agent(session: Session) -> list[float]:
        messages: list[Any] = [USER]
        took = []
        with httpx.Client(headers={"Authorization": f"Bearer {gateway.token}"}, timeout=60, trust_env=False) as client:
            for _ in range(turns):
                began = time.monotonic()
                body = {"model": "policy", "messages": messages}
                response = client.post(gateway.base_url(session) + "/chat/completions", json=body).raise_for_status()
                took.append(time.monotonic() - began)
                messages = [*messages, response.json()["choices"][0]["message"], USER]
        return took

    with gateway, ThreadPoolExecutor(32) as pool:
        sessions = [gateway.open_session() for _ in range(32)]
        work = [pool.submit(agent, session) for session in sessions]
        gateway.serve_while(work)
        took = [sum(one.result()) for one in work]
    assert all(len(session.longest()[0]) == turns and not session.rewrites for session in sessions)
    assert sum(slow.asked) == 32 * turns
    assert len(slow.asked) <= 32 * turns / 3, "requests are answered together"
    assert max(took) < 4 * min(took) + 1.0, "nobody waits much longer than another"


def test_a_thousand_requests_leave_nothing_behind(scripted: Gateway) -> None:
    with httpx.Client(headers={"Authorization": f"Bearer {scripted.token}"}, trust_env=False) as client:

        def sessions(count: int) -> None:
            for _ in range(count):
                session = scripted.open_session()
                for _ in range(5):
                    body = {"model": "policy", "messages": [{"role": "user", "content": "z" * 1000}]}
                    client.post(scripted.base_url(session) + "/chat/completions", json=body).raise_for_status()
                scripted.close_session(session)

        served(scripted, lambda: sessions(20))
        descriptors = len(list_descriptors())
        tracemalloc.start()
        try:
            served(scripted, lambda: sessions(180))
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        kept = [one for one in gc.get_objects() if type(one) in (Session, Choice, Turn)]
    assert scripted.requests == 1000
    assert not scripted._sessions and len(list_descriptors()) <= descriptors + 2
    assert len(kept) <= 3, "at most the last request's"
    assert held < 4 << 20, "the tokens of 900 requests take 40 MB"


def list_descriptors() -> list[str]:
    from pathlib import Path

    return [path.name for path in Path("/proc/self/fd").iterdir()]


def test_the_port_is_free_again_afterwards() -> None:
    gateway = Gateway(ScriptedEngine(["x"]))
    with gateway:
        port = gateway.port
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
