"""`VllmEngine`: samples from a vLLM server by token ids: what is trained is what was sampled. Needs no torch, no vLLM.

The server is started with `vllm serve MODEL --weight-transfer-config '{"backend":"nccl"}' --logprobs-mode
processed_logprobs --max-logprobs -1` and `VLLM_SERVER_DEV_MODE=1`. Requests and answers are those of its
`/v1/completions` with `return_token_ids`, as TRL's own client sends and reads them
(`trl/generation/vllm_client.py`); what the answer says is held against what was sent, since a server that tokenises
anew, or gives log-probabilities of another distribution, would spoil training silently.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.rollouts.chat_format import prompt_ids
from code_repair_rl.rollouts.completion import Completion, FinishReason, Message, Sampling
from code_repair_rl.rollouts.http_json import Patience, Refused, exchange, opener_for

SUPPORTED = ((0, 22), (0, 31))
"""Oldest and newest server (major, minor) that TRL 1.16 synchronises weights with (`trl/import_utils.py`)."""
_LOGPROBS_MODE = "processed_logprobs"
"""Log-probabilities of the distribution that was sampled from, after temperature; vLLM's default is before it."""


class VllmEngine:
    """An `Engine` on a vLLM server.

    `weights_version` counts `refresh` calls, as `LocalEngine`'s does. The weights themselves are brought to the server
    by `push` (by the trainer, where several processes hold them); without it the server's weights stay as they are.
    """

    def __init__(
        self,
        address: str,
        tokenizer: Any,
        *,
        push: Callable[[], None] | None = None,
        concurrency: int = 64,
        attempts: int = 6,
        timeout_seconds: float = 1800.0,
        pause: Callable[[float], None] = time.sleep,
        stop_ids: Sequence[int] = (),
    ) -> None:
        """Name the server; nothing is sent yet.

        Args:
            address: `http://host:port`.
            tokenizer: the model's, with a chat template.
            push: brings the policy's current weights to the server.
            concurrency: requests at once; each is one prompt with all its completions.
            attempts: how often a request is sent at most, with doubling pauses.
            timeout_seconds: for one request.
            pause: what waits between attempts.
            stop_ids: end-of-turn tokens of the model besides its tokenizer's.

        Raises:
            BadInput: not such an address.
        """
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.rstrip("/"):
            raise BadInput("is not a server's address", where=address, mend="say for example http://127.0.0.1:8000")
        self.address = address.rstrip("/")
        self.tokenizer = tokenizer
        self.stop_ids = tuple(stop_ids)
        self.weights_version = 0
        self._push = push
        self._concurrency, self._timeout_seconds = concurrency, timeout_seconds
        self._patience = Patience(attempts, pause)
        self._opener = opener_for(self.address)
        self._model: str | None = None
        self._context: int | None = None

    def check(self) -> None:
        """Ask the server who it is; done by itself before the first request.

        Raises:
            BadInput: a version that weights cannot be synchronised with, or log-probabilities of another distribution.
            MachineryFailed: it cannot be reached.
        """
        version = str(_member(self._get("/version"), "version", self.address))
        if not SUPPORTED[0] <= _major_minor(version, self.address) <= SUPPORTED[1]:
            oldest, newest = (".".join(map(str, one)) for one in SUPPORTED)
            raise BadInput(
                f"the server runs vLLM {version}; versions {oldest} to {newest} work with our trainer",
                where=self.address,
                mend="install one of them where the server runs (docs/scaling.md names the container)",
            )
        mode = _logprobs_mode(self._get("/server_info?config_format=json"))
        if mode != _LOGPROBS_MODE:
            raise BadInput(
                f"the server gives {mode or 'unknown'} log-probabilities",
                where=self.address,
                mend=f"start it with --logprobs-mode {_LOGPROBS_MODE} --max-logprobs -1",
            )
        models = _member(self._get("/v1/models"), "data", self.address)
        try:
            self._model = str(models[0]["id"])
            self._context = int(models[0]["max_model_len"])
        except (IndexError, KeyError, TypeError, ValueError):
            raise self._nonsense(models, "/v1/models") from None

    @property
    def retries(self) -> int:
        """How many requests had to be repeated so far."""
        return self._patience.retries

    @property
    def context_tokens(self) -> int:
        """Most tokens of a prompt with its answer."""
        if self._context is None:
            self.check()
        assert self._context is not None
        return self._context

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The token ids of a conversation under the model's chat template, ready for the answer."""
        return prompt_ids(self.tokenizer, messages)

    def refresh(self) -> None:
        """Bring the policy's weights to the server, and let it forget what it cached of the old ones."""
        if self._push is not None:
            self._push()
        answer = self._ask("/reset_prefix_cache", {})
        if isinstance(answer, dict) and answer.get("success") is False:
            raise MachineryFailed(
                "the server kept its cache of the old weights",
                where=self.address,
                mend="see whether another client is generating on it",
            )
        self.weights_version += 1

    def generate(
        self, prompts: Sequence[Sequence[int]], *, completions_per_prompt: int, sampling: Sampling
    ) -> list[list[Completion]]:
        """For each prompt (token ids) that many completions, in the order of the prompts.

        Raises:
            BadInput: the server refuses a request (a prompt beyond its context), or is of a version that cannot work.
            MachineryFailed: it cannot be reached, its answer is not of what was sent, or the weights changed meanwhile.
        """
        return self.generate_each(prompts, [completions_per_prompt] * len(prompts), sampling)

    def generate_each(
        self,
        prompts: Sequence[Sequence[int]],
        counts: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """As `generate`, with a number of completions for each prompt, and a seed for each where given."""
        if self._model is None:
            self.check()
        version = self.weights_version
        own = seeds or [_seed(sampling.seed, number) for number in range(len(prompts))]
        with ThreadPoolExecutor(max_workers=max(1, min(self._concurrency, len(prompts)))) as pool:
            pending = [
                pool.submit(self._completions, tuple(prompt), count, sampling, seed)
                for prompt, count, seed in zip(prompts, counts, own, strict=True)
            ]
            try:
                found = [future.result() for future in pending]
            except BaseException:
                for future in pending:
                    future.cancel()
                raise
        if self.weights_version != version:
            raise MachineryFailed(
                f"the server's weights went from version {version} to {self.weights_version} while it was sampling",
                where=self.address,
                mend="refresh the engine between, not during, calls of generate",
            )
        return found

    def _completions(self, prompt: tuple[int, ...], count: int, sampling: Sampling, seed: int) -> list[Completion]:
        path = "/v1/completions"
        body = {
            "model": self._model,
            "prompt": list(prompt),
            "n": count,
            "temperature": sampling.temperature,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "max_tokens": sampling.max_new_tokens,
            "seed": seed,
            "logprobs": 0,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }
        answer = self._ask(path, body)
        choices = _member(answer, "choices", self.address)
        if not isinstance(choices, list) or len(choices) != count:
            raise self._nonsense(answer, path)
        try:
            ordered = sorted(choices, key=lambda choice: int(choice["index"]))
            return [self._completion(prompt, choice) for choice in ordered]
        except (KeyError, TypeError, ValueError, IndexError):
            raise self._nonsense(answer, path) from None

    def _completion(self, prompt: tuple[int, ...], choice: Mapping[str, Any]) -> Completion:
        if tuple(choice["prompt_token_ids"]) != prompt:
            raise MachineryFailed(
                "the server sampled from other tokens than it was sent",
                where=self.address,
                mend="see whether a proxy or plugin in front of it changes prompts",
            )
        ids = tuple(int(token) for token in choice["token_ids"])
        told = choice["logprobs"]
        named = tuple(int(str(token).removeprefix("token_id:")) for token in told["tokens"])
        logprobs = tuple(float(value) for value in told["token_logprobs"])
        if named != ids or len(logprobs) != len(ids) or not ids:
            raise MachineryFailed(
                f"log-probabilities of {len(named)} tokens for {len(ids)} tokens, or of others",
                where=self.address,
                mend="use a server version within the supported range",
            )
        if not all(math.isfinite(value) and value <= 1e-3 for value in logprobs):
            raise MachineryFailed("a log-probability is not a finite negative number", where=self.address)
        reason = choice["finish_reason"]
        if reason not in ("stop", "length"):
            raise MachineryFailed(f"an answer ended by {reason!r}", where=self.address, mend="see the server's log")
        return Completion(
            prompt_ids=prompt,
            token_ids=ids,
            logprobs=logprobs,
            text=str(self.tokenizer.decode(list(ids), skip_special_tokens=True)),
            finish_reason=FinishReason(reason),
        )

    def _get(self, path: str) -> Any:
        return self._ask(path, None)

    def _ask(self, path: str, body: Mapping[str, Any] | None) -> Any:
        """One answer, insisted on where that may help."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        try:
            return self._patience.insist(
                lambda: exchange(self._opener, self.address + path, body, headers, self._timeout_seconds),
                seed=path,
                what=f"no answer to {path}",
                where=self.address,
                mend="see whether the server runs, then resume the run",
            )
        except Refused as refusal:
            raise self._explained(refusal, path) from None

    def _explained(self, refusal: Refused, path: str) -> BadInput:
        mend = "check the address, and that it is a vLLM server"
        if refusal.status == 404 and path.startswith(("/server_info", "/reset_prefix_cache")):
            mend = "start the server with VLLM_SERVER_DEV_MODE=1 in its environment"
        elif refusal.status == 400:
            mend = "shorten the prompts (tasks.max_prompt_tokens), or start the server with a larger --max-model-len"
        return BadInput(f"the server refused {path}: {refusal.status} {refusal.message}", where=self.address, mend=mend)

    def _nonsense(self, answer: Any, path: str) -> MachineryFailed:
        return MachineryFailed(
            f"the answer to {path} is not of the documented form: {json.dumps(answer)[:200]}",
            where=self.address,
            mend="use a server version within the supported range",
        )


def _member(answer: Any, name: str, address: str) -> Any:
    if not isinstance(answer, dict) or name not in answer:
        raise MachineryFailed(
            f"the answer has no {name!r}: {json.dumps(answer)[:200]}", where=address, mend="is it a vLLM server?"
        )
    return answer[name]


def _logprobs_mode(answer: Any) -> str | None:
    """From `/server_info`: the whole configuration as a tree."""
    config = _member(answer, "vllm_config", "server_info")
    mode = (config.get("model_config") or {}).get("logprobs_mode") if isinstance(config, dict) else None
    return None if mode is None else str(mode)


def _major_minor(version: str, address: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        raise MachineryFailed(f"the server's version {version!r} is not a version", where=address)
    return int(found[1]), int(found[2])


def _seed(*parts: object) -> int:
    """A 31-bit seed."""
    return int(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8], 16) >> 1
