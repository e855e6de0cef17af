"""The gateway's HTTP side: routes, authentication, and answers as JSON or as server-sent events."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from code_repair_rl.rollouts.chat_request import ChatRequest, RequestError, read_request

if TYPE_CHECKING:
    from code_repair_rl.rollouts.gateway import Answered, Gateway
    from code_repair_rl.rollouts.sessions import Choice, Session

_MOST_BODY_BYTES = 32 << 20
_LOOK_SECONDS = 0.25
"""How often it is looked whether a waiting client is still there."""
_PIECE_CHARACTERS = 64
"""Text of one event; answers are sampled whole, so that pieces only serve clients that read streams."""


def application(gateway: Gateway) -> Starlette:
    """The gateway's routes: `/s/SESSION/v1/…` for sessions, `/v1/…` where access without one is open."""

    async def completions(request: Request) -> Response:
        session = _admitted(gateway, request)
        asked = read_request(await _body(request), gateway.model)
        answered = await _answer(gateway, session, asked, request)
        if asked.stream:
            return StreamingResponse(_events(answered, asked, gateway.model), media_type="text/event-stream")
        return JSONResponse(_completion(answered, asked, gateway.model))

    async def models(request: Request) -> Response:
        _admitted(gateway, request)
        model = {"id": gateway.model, "object": "model", "created": 0, "owned_by": "code-repair-rl"}
        return JSONResponse({"object": "list", "data": [model]})

    routes = [
        Route(f"{start}/v1/{path}", endpoint, methods=[method])
        for start in ("/s/{session}", "")
        for path, endpoint, method in (("chat/completions", completions, "POST"), ("models", models, "GET"))
    ]
    handlers: Any = {RequestError: _refused, HTTPException: _no_such_thing}
    return Starlette(routes=routes, exception_handlers=handlers)


def _admitted(gateway: Gateway, request: Request) -> Session:
    """The session a request belongs to."""
    if not gateway.admits(request.headers.get("authorization", "")):
        raise RequestError("Incorrect API key provided", status=401, code="invalid_api_key")
    name = request.path_params.get("session")
    if name is None:
        if not gateway.open_access:
            raise RequestError("requests need a session: use the base URL that was given", status=404)
        return gateway.passing_session()
    session = gateway.session(name)
    if session is None:
        raise RequestError("there is no such session", status=404, code="session_not_found")
    return session


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BODY_BYTES:
                raise RequestError(f"a request has at most {_MOST_BODY_BYTES} bytes", status=413)
    except ClientDisconnect:
        raise RequestError("the client went away", status=499) from None
    return bytes(body)


async def _answer(gateway: Gateway, session: Session, asked: ChatRequest, request: Request) -> Answered:
    """Wait for the answer; where the client goes away, the request is taken back."""
    pending = gateway.submit(session, asked)
    waiting = asyncio.wrap_future(pending)
    while True:
        done, _ = await asyncio.wait([waiting], timeout=_LOOK_SECONDS)
        if done:
            return waiting.result()
        if await request.is_disconnected():
            pending.cancel()
            raise RequestError("the client went away", status=499)


def _completion(answered: Answered, asked: ChatRequest, model: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{time.time_ns():x}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": number,
                "message": dict(choice.message),
                "finish_reason": choice.finish_reason,
                "logprobs": _logprobs(choice) if asked.logprobs else None,
            }
            for number, choice in enumerate(answered.choices)
        ],
        "usage": _usage(answered),
    }


def _usage(answered: Answered) -> dict[str, int]:
    sampled = sum(len(choice.turn.token_ids) for choice in answered.choices)
    return {
        "prompt_tokens": answered.prompt_tokens,
        "completion_tokens": sampled,
        "total_tokens": answered.prompt_tokens + sampled,
    }


def _logprobs(choice: Choice) -> dict[str, Any]:
    """Of the sampled tokens; a token's text cannot always be told on its own, its id can."""
    pairs = zip(choice.turn.token_ids, choice.turn.logprobs, strict=True)
    tokens: list[dict[str, Any]] = [
        {
            "token": f"token_id:{t}",
            "logprob": logprob if math.isfinite(logprob) else None,  # a server that is passed on may tell none
            "bytes": None,
            "top_logprobs": [],
        }
        for t, logprob in pairs
    ]
    return {"content": tokens, "refusal": None}


async def _events(answered: Answered, asked: ChatRequest, model: str) -> AsyncIterator[str]:
    head = {
        "id": f"chatcmpl-{time.time_ns():x}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }

    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        return f"data: {json.dumps({**head, 'choices': choices, **more}, ensure_ascii=False)}\n\n"

    for number, choice in enumerate(answered.choices):
        for delta in _deltas(choice):
            yield event([{"index": number, "delta": delta, "finish_reason": None, "logprobs": None}])
        logprobs = _logprobs(choice) if asked.logprobs else None
        yield event([{"index": number, "delta": {}, "finish_reason": choice.finish_reason, "logprobs": logprobs}])
    if asked.stream_usage:
        yield event([], usage=_usage(answered))
    yield "data: [DONE]\n\n"


def _deltas(choice: Choice) -> list[dict[str, Any]]:
    text = choice.message["content"] or ""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "" if text else choice.message["content"]}]
    deltas += [{"content": text[at : at + _PIECE_CHARACTERS]} for at in range(0, len(text), _PIECE_CHARACTERS)]
    calls = choice.message.get("tool_calls") or ()
    deltas += [{"tool_calls": [{"index": number, **call}]} for number, call in enumerate(calls)]
    return deltas


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return JSONResponse(error.body, status_code=error.status)


async def _no_such_thing(_: Request, error: Exception) -> Response:
    """Wrong paths and methods, in the form of the other errors."""
    assert isinstance(error, HTTPException)
    return await _refused(_, RequestError(str(error.detail), status=error.status_code, code="unknown_url"))
