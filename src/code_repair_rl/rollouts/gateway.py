"""The gateway: the policy behind an OpenAI-compatible endpoint, every sampled token recorded at its source.

    with Gateway(engine, sampling=Sampling(...)) as gateway:
        session = gateway.open_session()
        agent = pool.submit(run_an_agent, gateway.base_url(session), gateway.token)   # speaks HTTP, in a jail
        gateway.serve_while([agent])                                                  # torch stays on this thread
        chain = gateway.close_session(session).longest()      # its turns are the exact tokens

One thread speaks HTTP; requests wait in one queue. The thread that calls `serve_while` takes those that came in, in
their order, as one micro-batch: it joins each to its session's tokens, samples, records and hands back. So torch and
the tokenizer see one thread only, and the same requests in the same order of each session get the same answers.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import queue
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.rollouts.chat_format import chat_format
from code_repair_rl.rollouts.chat_request import ChatRequest, RequestError
from code_repair_rl.rollouts.completion import Completion, Engine, PromptTooLong, Sampling
from code_repair_rl.rollouts.episode import Ending
from code_repair_rl.rollouts.sessions import Choice, Prepared, Session, SessionEnded, SessionLimits

_log = logging.getLogger(__name__)

MODEL_NAME = "policy"
"""What clients call the model."""

_GATHER_SECONDS = 0.01
"""How long a first request waits for others to share its batch."""
_MOST_ROWS = 64
_START_SECONDS = 20.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@runtime_checkable
class SeededEngine(Protocol):
    """An engine that samples several prompts at once, each by its own seed and as often as asked."""

    def generate_each(
        self,
        prompts: Sequence[Sequence[int]],
        counts: Sequence[int],
        sampling: Sampling,
        seeds: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """For each prompt so many completions; one depends on its prompt's seed, not on what else is asked."""
        ...


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request got."""

    choices: tuple[Choice, ...]
    prompt_tokens: int
    """0 where the engine tells none."""


@dataclass(eq=False, slots=True)
class _Pending:
    """A request that waits for its answer."""

    session: Session
    request: ChatRequest
    answer: Future[Answered]


class Gateway:
    """See the module. A context manager; nothing listens outside of it."""

    def __init__(
        self,
        engine: Engine,
        *,
        sampling: Sampling | None = None,
        model: str = MODEL_NAME,
        token: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        most_rows: int = _MOST_ROWS,
        open_access: bool = False,
        allow_remote: bool = False,
    ) -> None:
        """Set the gateway up; it listens from `start` on.

        Args:
            engine: whose answers are given; it needs `generate_each` and a chat format. A `RemoteEngine` passes
                conversations on; its answers are recorded as text.
            sampling: of every answer, whatever clients ask; its seed is where the sessions' seeds come from.
            model: the one model name that is served.
            token: what clients authenticate with; a fresh one by default.
            host: address to listen on, besides the Unix socket.
            port: 0 takes any free one.
            most_rows: answers sampled in one batch at most.
            open_access: answer `/v1` without a session too. Such answers are not recorded.
            allow_remote: listen on an address that other machines reach.

        Raises:
            BadInput: the engine cannot be served, or the address is not this machine's own and was not allowed.
        """
        if not isinstance(engine, SeededEngine):
            raise BadInput(f"{type(engine).__name__} cannot be served: it does not sample by token ids")
        if host not in _LOOPBACK and not allow_remote:
            raise BadInput(
                f"listening on {host} would let other machines in", where="host",
                mend="leave it at 127.0.0.1, or say that remote clients are wanted",
            )  # fmt: skip
        self.engine = engine
        self.sampling = sampling or Sampling()
        self.model = model
        self.token = token or secrets.token_urlsafe(32)
        self.open_access = open_access
        self.requests = self.batches = 0
        """Answered so far."""
        self._sampler: SeededEngine = engine
        self._chat = chat_format(engine)
        self._most_rows = most_rows
        self._address = (host, port)
        self._sessions: dict[str, Session] = {}
        self._waiting: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._held: _Pending | None = None
        self._lock = threading.Lock()
        self._sampling = threading.Lock()
        """Held while the engine samples."""
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._folder: Path | None = None

    def __enter__(self) -> Gateway:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        return self._address[1]

    @property
    def socket_path(self) -> Path:
        """The Unix socket that it listens on; its folder is nobody else's.

        Raises:
            MachineryFailed: it does not listen.
        """
        if self._folder is None:
            raise MachineryFailed("the gateway was not started")
        return self._folder / "gateway.sock"

    def base_url(self, session: Session) -> str:
        """What a client of the session is given as its base URL."""
        host = f"[{self._address[0]}]" if ":" in self._address[0] else self._address[0]
        return f"http://{host}:{self.port}{path_of(session)}"

    def open_session(
        self, *, seed: int | None = None, limits: SessionLimits | None = None, session_id: str | None = None
    ) -> Session:
        """A new session under a name that cannot be guessed.

        Args:
            seed: of its answers; the gateway's own sampling's by default.
            limits: when it ends.
            session_id: its name, for tests.
        """
        sampling = self.sampling if seed is None else replace(self.sampling, seed=seed)
        session = Session(session_id or secrets.token_hex(16), self._chat, sampling, limits)
        with self._lock:
            self._sessions[session.id] = session
        return session

    def close_session(self, session: Session, why: str = "the session was closed") -> Session:
        """Forget a session: it gets no more answers, and what waits for one is turned away."""
        session.close(Ending.FINISHED, why)
        with self._lock:
            self._sessions.pop(session.id, None)
        return session

    def session(self, session_id: str) -> Session | None:
        """The open session of that name."""
        with self._lock:
            return self._sessions.get(session_id)

    def passing_session(self) -> Session:
        """A session for one request that nobody records."""
        return Session("", self._chat, replace(self.sampling, seed=secrets.randbits(62)))

    def admits(self, authorization: str) -> bool:
        """Whether an `Authorization` header holds the token."""
        kind, _, given = authorization.partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.token.encode())

    def submit(self, session: Session, request: ChatRequest) -> Future[Answered]:
        """Queue a request; cancelling the future before its batch begins takes it back."""
        pending = _Pending(session, request, Future())
        self._waiting.put(pending)
        return pending.answer

    def serve_while(self, work: Sequence[Future[Any]]) -> None:
        """Answer requests on this thread until all of `work` is done."""
        for one in work:
            one.add_done_callback(lambda _: self._waiting.put(None))
        self.serve_until(lambda: all(one.done() for one in work))

    def serve_until(self, done: Callable[[], bool]) -> None:
        """Answer requests on this thread until `done()`; looked at after every batch and twice a second."""
        while not done():
            batch = self._next_batch()
            if batch:
                self._answer(batch)

    def start(self) -> None:
        """Listen on the loopback address and on the Unix socket.

        Raises:
            MachineryFailed: the address cannot be had, or the server did not come up.
        """
        import uvicorn

        from code_repair_rl.rollouts.gateway_http import application

        # The path of a Unix socket has at most 107 bytes (unix(7)).
        place = tempfile.gettempdir() if len(tempfile.gettempdir()) < 64 else "/tmp"
        self._folder = Path(tempfile.mkdtemp(prefix=f"crrl-gateway-{os.getpid()}-", dir=place))
        try:
            listening = [_tcp(self._address), _unix(self.socket_path)]
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise MachineryFailed(
                f"cannot listen on {self._address[0]}:{self._address[1]} ({error.strerror})", mend="choose another port"
            ) from error
        self._address = (self._address[0], listening[0].getsockname()[1])
        config = uvicorn.Config(application(self), log_level="warning", access_log=False, lifespan="off", workers=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": listening}, name="crrl-gateway", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.close()
                raise MachineryFailed("the gateway's server did not come up")
            time.sleep(0.005)

    def close(self) -> None:
        """End the server, turn waiting requests away, and remove the socket."""
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            self.close_session(session, "the gateway was closed")
        with contextlib.suppress(queue.Empty):
            while True:
                pending = self._waiting.get_nowait()
                if pending is not None:
                    _deliver(pending, RequestError("the gateway was closed", status=503, kind="server_error"))
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(timeout=2.0)
            self._server.force_exit = True
            self._thread.join(timeout=_START_SECONDS)
            self._server = self._thread = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _next_batch(self) -> list[_Pending]:
        """The requests that are there, in the order they came, up to the most rows."""
        batch: list[_Pending] = []
        rows = 0
        deadline = None
        while True:
            try:
                left = 0.5 if deadline is None else deadline - time.monotonic()
                pending = self._held or self._waiting.get(timeout=max(0.0, left))
            except queue.Empty:
                return batch
            self._held = None
            if pending is None:
                return batch
            if batch and rows + pending.request.choices > self._most_rows:
                self._held = pending
                return batch
            batch.append(pending)
            rows += pending.request.choices
            if not self.open_access and len(batch) >= len(self._sessions) and self._waiting.empty():
                return batch  # agents ask one thing at a time: nobody is left who could
            deadline = deadline or time.monotonic() + _GATHER_SECONDS

    def _answer(self, batch: Sequence[_Pending]) -> None:
        ready: list[tuple[_Pending, Prepared]] = []
        for pending in batch:
            if not pending.answer.set_running_or_notify_cancel():
                continue
            try:
                ready.append((pending, pending.session.prepare(pending.request.messages, pending.request.tools)))
            except Exception as error:
                _deliver(pending, _refusal(error, pending.session))
        groups: dict[tuple[float, int], list[tuple[_Pending, Prepared]]] = {}
        for pending, prepared in ready:
            temperature = pending.session.sampling.temperature
            groups.setdefault((temperature, prepared.max_new_tokens), []).append((pending, prepared))
        for group in groups.values():
            self._sample(group)
        self.batches += bool(ready)

    def _sample(self, group: Sequence[tuple[_Pending, Prepared]]) -> None:
        """Answer requests of one temperature and length together; where that fails, find out which of them it was."""
        found = self._completions(group)
        if found is None:  # out here, nothing holds what the failed batch had allocated
            for one in group:
                self._sample([one])
            return
        if not found:
            return
        version = int(getattr(self.engine, "weights_version", 0))
        for (pending, prepared), completions in zip(group, found, strict=True):
            try:
                choices = pending.session.record(
                    prepared, completions, stops=pending.request.stops, weights_version=version
                )
            except Exception as error:
                _deliver(pending, _refusal(error, pending.session))
                continue
            self.requests += 1
            _deliver(pending, Answered(tuple(choices), len(completions[0].prompt_ids)))

    def _completions(self, group: Sequence[tuple[_Pending, Prepared]]) -> list[list[Completion]] | None:
        """What the engine samples; empty where that failed and everybody was told, None where each had better ask by
        itself."""
        sampling = replace(group[0][0].session.sampling, max_new_tokens=group[0][1].max_new_tokens)
        try:
            with self._sampling, self._noting_delays():
                return self._sampler.generate_each(
                    [prepared.prompt_ids for _, prepared in group],
                    [pending.request.choices for pending, _ in group],
                    sampling,
                    [prepared.seed for _, prepared in group],
                )
        except Exception as error:
            if len(group) > 1 and not isinstance(error, MachineryFailed):
                return None
            if isinstance(error, PromptTooLong):
                ((pending, _),) = group
                _deliver(pending, _refusal(pending.session.fill(error.what), pending.session))
                return []
            _log.exception("the engine failed")
            for pending, _ in group:
                pending.session.fail(f"the engine failed: {error}")
                _deliver(pending, _refusal(error, pending.session))
            return []

    @contextlib.contextmanager
    def _noting_delays(self) -> Iterator[None]:
        """Where the model's server had to be asked again, all sessions have lost time that was not theirs."""
        before = getattr(self.engine, "retries", 0)
        try:
            yield
        finally:
            if getattr(self.engine, "retries", 0) > before:
                with self._lock:
                    for session in self._sessions.values():
                        session.delayed = True

    def await_batch(self) -> None:
        """Wait until the batch that is being sampled, if any, has come to its end and left its traces in the
        sessions."""
        with self._sampling:
            pass


def path_of(session: Session) -> str:
    """The path of a session's base URL."""
    return f"/s/{session.id}/v1"


def _deliver(pending: _Pending, answer: Answered | RequestError) -> None:
    with contextlib.suppress(InvalidStateError):  # cancelled in the meantime
        if isinstance(answer, RequestError):
            pending.answer.set_exception(answer)
        else:
            pending.answer.set_result(answer)


def _refusal(error: Exception, session: Session) -> RequestError:
    """An error as the client is told it."""
    if isinstance(error, SessionEnded):
        codes = {Ending.CONTEXT_FULL: "context_length_exceeded", Ending.OUT_OF_TURNS: "turn_limit_reached"}
        return RequestError(str(error), code=codes.get(error.ending, "session_closed"), param="messages")
    if isinstance(error, BadInput):
        return RequestError(error.what, param="messages")
    session.fail(f"{type(error).__name__}: {error}")
    return RequestError("the server failed to answer", status=500, kind="server_error", code="internal_error")


def _tcp(address: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(address)
    return listening


def _unix(path: Path) -> socket.socket:
    """A Unix socket that every uid may speak to: jails run under their own, and only they are given it."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    path.chmod(0o666)
    return listening
