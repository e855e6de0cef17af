"""The vLLM client against a real HTTP server on the loopback that answers as vLLM's and TRL's sources document."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from code_repair_rl.errors import BadInput, CrrlError, MachineryFailed
from code_repair_rl.models import TINY_MODEL, load_tokenizer
from code_repair_rl.rollouts import FinishReason, Sampling
from code_repair_rl.rollouts.vllm import VllmEngine
from tests.rollouts.loopback import QuietHandler, serving

PROMPTS = [(5, 6, 7), (8, 9)]
SAMPLING = Sampling(temperature=1.0, max_new_tokens=4, seed=3)
Reply = tuple[int, Any]


class Server:
    """Answers as documented, unless a test says otherwise for a path."""

    def __init__(self) -> None:
        self.said: dict[str, Callable[[dict[str, Any]], Reply]] = {}
        self.asked: list[tuple[str, dict[str, Any] | None]] = []
        self.version, self.mode = "0.31.0", "processed_logprobs"

    def reply(self, path: str, body: dict[str, Any] | None) -> Reply:
        bare = path.partition("?")[0]
        self.asked.append((path, body))
        if bare in self.said:
            return self.said[bare](body or {})
        if bare == "/version":
            return 200, {"version": self.version}
        if bare == "/server_info":
            return 200, {"vllm_config": {"model_config": {"logprobs_mode": self.mode, "max_logprobs": -1}}}
        if bare == "/v1/models":
            return 200, {"object": "list", "data": [{"id": "Qwen/Qwen3-8B", "max_model_len": 4096}]}
        if bare == "/reset_prefix_cache":
            return 200, {"success": True}
        if bare == "/v1/completions":
            assert body is not None
            return 200, completions(body)
        return 404, {"detail": "Not Found"}


def completions(body: dict[str, Any]) -> dict[str, Any]:
    """vLLM's answer to `return_token_ids` and `return_tokens_as_token_ids`; choices may come in any order."""
    choices = []
    for index in range(body["n"]):
        ids = [40 + index, 41, 2]
        choices.append(
            {
                "index": index,
                "text": "ignored",
                "finish_reason": "stop" if index % 2 == 0 else "length",
                "stop_reason": None,
                "prompt_token_ids": body["prompt"],
                "token_ids": ids,
                "logprobs": {
                    "text_offset": [0, 1, 2],
                    "tokens": [f"token_id:{token}" for token in ids],
                    "token_logprobs": [-0.5, -1.25, -0.125],
                    "top_logprobs": [{f"token_id:{token}": -0.5} for token in ids],
                },
            }
        )
    return {"object": "text_completion", "choices": choices[::-1], "usage": {"completion_tokens": 3 * body["n"]}}


@contextmanager
def running() -> Iterator[tuple[Server, str]]:
    behaviour = Server()

    class Handler(QuietHandler):
        def _answer(self, body: dict[str, Any] | None) -> None:
            status, content = behaviour.reply(self.path, body)
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    with serving(Handler) as address:
        yield behaviour, address


@pytest.fixture
def served() -> Iterator[tuple[Server, VllmEngine]]:
    with running() as (behaviour, address):
        yield behaviour, VllmEngine(address, load_tokenizer(TINY_MODEL), attempts=3, pause=lambda _: None)


def test_tokens_go_in_and_out_with_their_log_probabilities(served: tuple[Server, VllmEngine]) -> None:
    server, engine = served
    found = engine.generate(PROMPTS, completions_per_prompt=2, sampling=SAMPLING)
    assert [[one.prompt_ids for one in group] for group in found] == [[prompt] * 2 for prompt in PROMPTS]
    first, second = found[0]
    assert first.token_ids == (40, 41, 2)
    assert second.token_ids == (41, 41, 2)
    assert first.logprobs == (-0.5, -1.25, -0.125)
    assert (first.finish_reason, second.finish_reason) == (FinishReason.STOP, FinishReason.LENGTH)
    assert engine.context_tokens == 4096
    bodies = [body for path, body in server.asked if path == "/v1/completions" and body]
    for body in bodies:
        assert isinstance(body["prompt"][0], int)
        assert (body["n"], body["temperature"], body["max_tokens"], body["logprobs"]) == (2, 1.0, 4, 0)
        assert (body["top_p"], body["top_k"], body["min_p"], body["repetition_penalty"]) == (1.0, 0, 0.0, 1.0)
        assert body["return_token_ids"] is body["return_tokens_as_token_ids"] is True
        assert body["model"] == "Qwen/Qwen3-8B"
    assert len({body["seed"] for body in bodies}) == 2


def test_the_same_seed_asks_for_the_same_samples(served: tuple[Server, VllmEngine]) -> None:
    server, engine = served
    for _ in range(2):
        engine.generate(PROMPTS, completions_per_prompt=1, sampling=SAMPLING)
    seeds = sorted(body["seed"] for path, body in server.asked if path == "/v1/completions" and body)
    assert seeds[0::2] == seeds[1::2]


def test_a_refresh_brings_the_weights_over_and_drops_the_cache(served: tuple[Server, VllmEngine]) -> None:
    server, engine = served
    pushed: list[int] = []
    engine._push = lambda: pushed.append(len(server.asked))
    engine.refresh()
    assert engine.weights_version == 1
    assert pushed == [0]
    assert server.asked[-1][0] == "/reset_prefix_cache"


@pytest.mark.parametrize("version", ["0.21.3", "0.33.0", "1.0.0"])
def test_a_version_that_weights_cannot_be_sent_to_is_refused(served: tuple[Server, VllmEngine], version: str) -> None:
    server, engine = served
    server.version = version
    with pytest.raises(BadInput, match=version):
        engine.generate(PROMPTS, completions_per_prompt=1, sampling=SAMPLING)
    assert all(path != "/v1/completions" for path, _ in server.asked)


def test_log_probabilities_before_temperature_are_refused(served: tuple[Server, VllmEngine]) -> None:
    server, engine = served
    server.mode = "raw_logprobs"
    with pytest.raises(BadInput, match="raw_logprobs") as caught:
        engine.check()
    assert "processed_logprobs" in str(caught.value.mend)


def test_a_server_without_its_development_endpoints_is_told_of(served: tuple[Server, VllmEngine]) -> None:
    server, engine = served
    server.said["/server_info"] = lambda _: (404, {"detail": "Not Found"})
    with pytest.raises(BadInput) as caught:
        engine.check()
    assert "VLLM_SERVER_DEV_MODE=1" in str(caught.value.mend)


def changed(**changes: Any) -> Callable[[dict[str, Any]], Reply]:
    """The documented answer with the first choice changed."""

    def reply(body: dict[str, Any]) -> Reply:
        answer = completions(body)
        answer["choices"][0] |= changes
        return 200, answer

    return reply


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (changed(prompt_token_ids=[1]), MachineryFailed, "other tokens"),
        (changed(token_ids=[40, 41]), MachineryFailed, "log-probabilities of 3 tokens for 2"),
        (changed(logprobs=None), MachineryFailed, "documented form"),
        (changed(finish_reason="abort"), MachineryFailed, "abort"),
        (changed(logprobs={"tokens": ["token_id:40", "token_id:41", "token_id:2"], "token_logprobs": [-1, None, -1]}),
         MachineryFailed, "documented form"),
        (lambda _: (200, {"choices": []}), MachineryFailed, "documented form"),
        (lambda _: (200, {"error": "?"}), MachineryFailed, "no 'choices'"),
        (lambda _: (200, b"<html>"), MachineryFailed, "not JSON"),
        (lambda _: (400, {"error": {"message": "maximum context length is 4096"}}), BadInput, "context length"),
        (lambda _: (503, {"error": {"message": "overloaded"}}), MachineryFailed, "overloaded"),
    ],
    ids=["prompt", "short", "no-logprobs", "aborted", "null", "empty", "error", "html", "refused", "busy"],
)  # fmt: skip
def test_an_answer_that_would_spoil_training_ends_the_call(
    served: tuple[Server, VllmEngine], reply: Any, kind: type[CrrlError], said: str
) -> None:
    server, engine = served
    server.said["/v1/completions"] = reply
    with pytest.raises(kind) as caught:
        engine.generate(PROMPTS[:1], completions_per_prompt=1, sampling=SAMPLING)
    assert said in str(caught.value)


def test_a_failure_that_passes_is_waited_for(served: tuple[Server, VllmEngine]) -> None:
    server, engine = served
    tries: list[int] = []

    def busy_once(body: dict[str, Any]) -> Reply:
        tries.append(1)
        return (503, {"error": "loading"}) if len(tries) == 1 else (200, completions(body))

    server.said["/v1/completions"] = busy_once
    assert engine.generate(PROMPTS[:1], completions_per_prompt=1, sampling=SAMPLING)[0][0].token_ids
    assert len(tries) == 2


def test_weights_that_change_while_sampling_are_noticed(served: tuple[Server, VllmEngine]) -> None:
    server, engine = served

    def meanwhile(body: dict[str, Any]) -> Reply:
        engine.weights_version += 1
        return 200, completions(body)

    server.said["/v1/completions"] = meanwhile
    with pytest.raises(MachineryFailed, match="version 0 to 1"):
        engine.generate(PROMPTS[:1], completions_per_prompt=1, sampling=SAMPLING)


def test_a_server_that_keeps_its_cache_is_not_sampled_from(served: tuple[Server, VllmEngine]) -> None:
    server, engine = served
    server.said["/reset_prefix_cache"] = lambda _: (200, {"success": False})
    with pytest.raises(MachineryFailed, match="old weights"):
        engine.refresh()
    assert engine.weights_version == 0


def test_nobody_there_and_no_address_are_named() -> None:
    engine = VllmEngine("http://127.0.0.1:9", None, attempts=1)
    with pytest.raises(MachineryFailed, match="/version"):
        engine.check()
    with pytest.raises(BadInput, match="address"):
        VllmEngine("localhost", None)
