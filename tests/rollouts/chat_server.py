"""A real HTTP server on the loopback that speaks chat completions, for as long as a test needs it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.rollouts.loopback import QuietHandler, serving

Reply = tuple[int, dict[str, str], bytes]


def completion(text: str, tokens: int = 3, finish: str = "stop", logprobs: bool = False) -> Reply:
    """A well-formed answer."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if logprobs:
        choice["logprobs"] = {"content": [{"token": "x", "logprob": -0.5} for _ in range(tokens)]}
    body = {"object": "chat.completion", "choices": [choice], "usage": {"completion_tokens": tokens}}
    return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()


def failure(status: int, message: str = "no", **headers: str) -> Reply:
    """An error in OpenAI's form."""
    return status, headers, json.dumps({"error": {"message": message}}).encode()


@dataclass
class Asked:
    """What a server was sent."""

    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    most_at_once: int = 0
    now: int = 0


@contextmanager
def chat_server(reply: Callable[[dict[str, Any], int], Reply]) -> Iterator[tuple[str, Asked]]:
    """Serve `reply(body, number of the request)`; yields the endpoint and what was asked."""
    asked, lock = Asked(), threading.Lock()

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(asked.bodies)
                asked.bodies.append(body)
                asked.headers.append(dict(self.headers))
                asked.paths.append(self.path)
                asked.now += 1
                asked.most_at_once = max(asked.most_at_once, asked.now)
            status, headers, content = reply(body, number)
            with lock:
                asked.now -= 1
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(content)

    with serving(Handler) as address:
        yield f"{address}/v1", asked
