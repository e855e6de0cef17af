"""`RemoteEngine`: samples from any server that speaks the OpenAI chat completions protocol. Needs no torch.

Such a server is told text and answers with text: token ids do not cross, so what is recorded is good for judging a
model and for fine-tuning on its text, not for policy gradients. Nothing is sent before `generate`, and then to the one
address that was given: redirections are refused, because they would carry the key along.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from code_repair_rl.errors import BadInput
from code_repair_rl.rollouts.completion import Completion, FinishReason, Message, PromptTooLong, Sampling
from code_repair_rl.rollouts.http_json import Later, Patience, Refused, exchange, is_loopback, opener_for
from code_repair_rl.rollouts.tool_calls import written_call

_log = logging.getLogger(__name__)

UNKNOWN_TOKEN = -1
"""Stands for a token whose id the server does not tell, so that lengths are right all the same."""

UNKNOWN_LOGPROB = math.nan
"""Stands for a log-probability that the server does not tell."""

API_KEY_VARIABLE = "OPENAI_API_KEY"

_Conversation = list[dict[str, Any]] | dict[str, Any]
"""Messages, or `messages` with `tools`."""

_TOO_LONG = re.compile(r"context.?(length|window|size)|maximum.{0,40}tokens|too (long|many tokens)", re.IGNORECASE)
"""How servers say that a prompt does not fit."""

_OPTIONAL = ("logprobs", "seed", "temperature")
"""Parameters that some servers do not know: left out from then on where a refusal names one of them."""


class RemoteEngine:
    """An `Engine` behind an address.

    `encode` gives the conversation itself (its JSON, one "token" a byte), which only `generate` of this class reads;
    so a limit of prompt tokens means nothing here. Completions have empty `prompt_ids`, as many `UNKNOWN_TOKEN` as the
    server counted tokens, and log-probabilities where the server tells them, otherwise `UNKNOWN_LOGPROB`. `seed` is
    sent; whether the same seed gives the same samples is up to the server. Each completion is a request of its own.
    """

    def __init__(
        self,
        endpoint: str,
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int = 8,
        attempts: int = 6,
        timeout_seconds: float = 300.0,
        journal: Path | None = None,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        """Name the server; nothing is sent yet.

        Args:
            endpoint: the base address, `https://host/v1` (`/chat/completions` is added where it is missing).
            model: the model's name there.
            api_key: sent as a bearer token; see `key_from_environment`.
            concurrency: requests at once.
            attempts: how often a request is sent at most; waits double from one second up to a minute, or are as long
                as the server's `Retry-After` says.
            timeout_seconds: for one request.
            journal: a file that every answer is appended to as it comes and looked up in first, so that an
                interruption loses, and pays for, nothing twice.
            pause: what waits between attempts, given seconds; by default a wait that ends when another request failed
                for good, or the user interrupts.

        Raises:
            BadInput: not such an address, or the key would travel in the open.
        """
        self.address = _checked(endpoint, api_key)
        self.model = model
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._concurrency, self._timeout_seconds = concurrency, timeout_seconds
        self._stopping = threading.Event()
        self._patience = Patience(attempts, pause or self._stopping.wait)
        self._opener = opener_for(self.address)
        self._lock = threading.Lock()
        self._left_out: set[str] = set()
        self._limit_name = "max_tokens"
        self._journal = _Journal(journal) if journal is not None else None
        self.requests = 0
        """How many were sent, repeated ones included."""

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The conversation's JSON as bytes."""
        plain = [{"role": message["role"], "content": message["content"]} for message in messages]
        return tuple(json.dumps(plain, ensure_ascii=False).encode())

    def conversation(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[int, ...]:
        """As `encode`, for messages of the chat API with tool calls and their results, and tools to offer."""
        known = ("role", "content", "tool_calls", "tool_call_id")
        plain = [{key: message[key] for key in known if key in message} for message in messages]
        whole = {"messages": plain, "tools": [dict(tool) for tool in tools]} if tools else plain
        return tuple(json.dumps(whole, ensure_ascii=False).encode())

    @property
    def retries(self) -> int:
        """How many requests had to be repeated so far."""
        return self._patience.retries

    def refresh(self) -> None:
        """The weights are the server's."""

    def generate(
        self, prompts: Sequence[Sequence[int]], *, completions_per_prompt: int, sampling: Sampling
    ) -> list[list[Completion]]:
        """For each prompt (from `encode`) that many completions, in the order of the prompts.

        A prompt that the server finds too long gets empty ones, cut off before their first token: which prompts fit is
        known there only, and one that does not must not cost the others their answers.

        Raises:
            BadInput: the server refuses the request (wrong key, no such model).
            MachineryFailed: it cannot be reached, or answers nonsense, after all attempts. What it answered until
                then is in the journal.
        """
        seeds = [
            [_request_seed(sampling.seed, number, place) for place in range(completions_per_prompt)]
            for number in range(len(prompts))
        ]
        return self._all(prompts, seeds, sampling, if_too_long=Completion((), (), (), "", FinishReason.LENGTH))

    def generate_each(
        self,
        prompts: Sequence[Sequence[int]],
        counts: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """As `generate`, for prompts of `encode` or `conversation`, with a number of completions and a seed for each.

        Tool calls that the server has read are written back into the text.

        Raises:
            PromptTooLong: one of the prompts is, for the server.
        """
        own = seeds if seeds is not None else [_request_seed(sampling.seed, number) for number in range(len(prompts))]
        each = [[_request_seed(seed, place) for place in range(count)] for seed, count in zip(own, counts, strict=True)]
        return self._all(prompts, each, sampling)

    def _all(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        sampling: Sampling,
        if_too_long: Completion | None = None,
    ) -> list[list[Completion]]:
        """For each prompt a completion for each of its seeds."""
        conversations = [json.loads(bytes(prompt).decode()) for prompt in prompts]
        jobs = [(one, seed) for one, own in zip(conversations, seeds, strict=True) for seed in own]
        self._stopping.clear()
        with ThreadPoolExecutor(max_workers=self._concurrency) as pool:
            pending = [
                pool.submit(self._complete, conversation, seed, sampling, if_too_long) for conversation, seed in jobs
            ]
            try:
                finished, _ = wait(pending, return_when=FIRST_EXCEPTION)
                failed = next((future for future in pending if future in finished and future.exception()), None)
                found = [failed.result()] if failed is not None else [future.result() for future in pending]
            except BaseException:
                # Requests under way are let finish, so that what was paid for is in the journal; no others begin.
                self._stopping.set()
                for future in pending:
                    future.cancel()
                raise
        answers = iter(found)
        return [[next(answers) for _ in own] for own in seeds]

    def _complete(
        self, conversation: _Conversation, seed: int, sampling: Sampling, if_too_long: Completion | None
    ) -> Completion:
        key = _digest([self.address, self.model, conversation, seed, sampling.temperature, sampling.max_new_tokens])
        known = self._journal.get(key) if self._journal is not None else None
        try:
            answer = known if known is not None else self._ask(conversation, seed, sampling)
        except PromptTooLong as error:
            if if_too_long is None:
                raise
            _log.warning("a prompt has no answer: %s", error)
            return if_too_long
        completion = self._completion(answer)
        if self._journal is not None and known is None:
            self._journal.add(key, answer)
        return completion

    def _ask(self, conversation: _Conversation, seed: int, sampling: Sampling) -> dict[str, Any]:
        """One answer: retried where that may help, without what the server does not know."""
        return self._patience.insist(
            lambda: self._send_adapted(conversation, seed, sampling),
            seed=seed,
            what="no answer",
            where=self.address,
            mend="see whether the server runs, then run the same command again: it goes on where it stopped",
            stopped=self._stopping.is_set,
        )

    def _send_adapted(self, conversation: _Conversation, seed: int, sampling: Sampling) -> dict[str, Any]:
        while True:
            body = self._body(conversation, seed, sampling)
            try:
                return self._send(body)
            except Refused as refusal:
                if refusal.status != 400 or not self._adapts(refusal.message, body):
                    raise self._explained(refusal) from None

    def _body(self, conversation: _Conversation, seed: int, sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            **(conversation if isinstance(conversation, dict) else {"messages": conversation}),
            "temperature": sampling.temperature,
            "seed": seed,
            "logprobs": True,
            self._limit_name: sampling.max_new_tokens,
        }
        return {name: value for name, value in body.items() if name not in self._left_out}

    def _adapts(self, message: str, body: Mapping[str, Any]) -> bool:
        """Whether a refusal named a parameter that can be left out or renamed; it then is, for this and all others."""
        with self._lock:
            if "max_completion_tokens" in message and "max_tokens" in body:
                self._limit_name = "max_completion_tokens"
                return True
            # Without its temperature it would be another evaluation: only where 1, the default, was asked for.
            named = [
                name
                for name in _OPTIONAL
                if name in message and name in body and (name != "temperature" or body[name] == 1.0)
            ]
            self._left_out |= set(named[:1])
            return bool(named)

    def _send(self, body: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.requests += 1
        answer = exchange(self._opener, self.address, body, self._headers, self._timeout_seconds)
        try:
            answer["choices"][0]["message"]
        except (KeyError, IndexError, TypeError):
            raise Later(f"not a chat completion: {json.dumps(answer)[:200]}") from None
        return dict(answer)

    def _completion(self, answer: Mapping[str, Any]) -> Completion:
        choice = answer["choices"][0]
        told = (choice.get("logprobs") or {}).get("content") or ()
        logprobs = tuple(float(token["logprob"]) for token in told)
        counted = (answer.get("usage") or {}).get("completion_tokens")
        tokens = len(logprobs) or int(counted or 0)
        return Completion(
            prompt_ids=(),
            token_ids=(UNKNOWN_TOKEN,) * tokens,
            logprobs=logprobs or (UNKNOWN_LOGPROB,) * tokens,
            text=_text(choice["message"]),
            finish_reason=FinishReason.LENGTH if choice.get("finish_reason") == "length" else FinishReason.STOP,
        )

    def _explained(self, refusal: Refused) -> BadInput:
        mends = {
            401: "set the key in the environment variable that is named",
            403: "set a key that may use this model in the environment variable that is named",
            404: "check the address and the model's name",
        }
        mend = mends.get(refusal.status)
        if 300 <= refusal.status < 400:
            mend = "name the address that it redirects to"
        too_long = refusal.status in (400, 413, 422) and _TOO_LONG.search(refusal.message)
        return (PromptTooLong if too_long else BadInput)(
            f"the server refused the request for {self.model!r}: {refusal.status} {refusal.message}",
            where=self.address,
            mend=mend,
        )


def _text(message: Mapping[str, Any]) -> str:
    """An answer as a model writes it: tool calls that the server has read are put back."""
    calls = [written_call(call) for call in message.get("tool_calls") or () if "function" in call]
    return "\n".join(part for part in (str(message.get("content") or ""), *calls) if part)


class _Journal:
    """Answers by request, one JSON object a line; a torn last line is passed over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    kept = json.loads(line)
                    self._known[kept["request"]] = kept["answer"]
                except (ValueError, KeyError, TypeError):
                    continue

    def get(self, key: str) -> dict[str, Any] | None:
        return self._known.get(key)

    def add(self, key: str, answer: dict[str, Any]) -> None:
        # The newline comes first, so that a line torn by a kill never swallows the next one.
        line = "\n" + json.dumps({"request": key, "answer": answer}) + "\n"
        with self._lock:
            self._known[key] = answer
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())


def key_from_environment(variable: str = API_KEY_VARIABLE) -> str | None:
    """The key in an environment variable; None where it is not set."""
    return os.environ.get(variable) or None


def _checked(endpoint: str, api_key: str | None) -> str:
    """The address to post to."""
    parts = urllib.parse.urlsplit(endpoint.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise BadInput("is not the address of an endpoint", where=endpoint, mend="say for example https://host/v1")
    if parts.username or parts.password:
        raise BadInput(
            "an address with a password would be recorded with the run",
            where=f"{parts.scheme}://…@{parts.hostname}",
            mend="take it out and set the key in an environment variable",
        )
    if api_key and parts.scheme == "http" and not is_loopback(parts.hostname):
        raise BadInput(
            "the API key would travel unencrypted",
            where=endpoint,
            mend="use https, or name an environment variable that is not set",
        )
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _request_seed(*parts: object) -> int:
    """A 31-bit seed: servers read it as a signed 32- or 64-bit number."""
    return int(_digest(list(parts))[:8], 16) >> 1


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
