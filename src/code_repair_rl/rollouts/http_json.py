"""JSON over HTTP to a model's server: one exchange, and which failures may pass. Redirections are refused: they would
carry a key along."""

from __future__ import annotations

import http.client
import json
import random
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeVar

from code_repair_rl.errors import MachineryFailed

_T = TypeVar("_T")

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP statuses after which the same request may succeed later (529: overloaded)."""
LONGEST_PAUSE_SECONDS = 60.0
_LONGEST_ANSWER_BYTES = 256 << 20


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Refused(Exception):  # noqa: N818 - a value that is thrown
    """The server said no for good."""

    status: int
    message: str


class Later(Exception):  # noqa: N818 - a value that is thrown
    """A failure that may pass."""

    def __init__(self, problem: str, after_seconds: float | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.after_seconds = after_seconds


@dataclass(slots=True)
class Patience:
    """How often an exchange that failed is tried again, and what waits in between: a second, doubling up to a minute,
    or as long as the server says."""

    attempts: int
    pause: Callable[[float], object]
    """Given seconds."""
    retries: int = 0
    """How many exchanges had to be repeated so far."""

    def insist(
        self,
        send: Callable[[], _T],
        *,
        seed: int | str,
        what: str,
        where: str,
        mend: str,
        stopped: Callable[[], bool] = lambda: False,
    ) -> _T:
        """What `send` gives, as soon as it does not raise `Later`.

        Args:
            send: one exchange; what else it raises goes on to the caller.
            seed: of the pauses, which are spread, so that many that failed together do not come back together.
            what: was asked for, `where` of whom, and the `mend`: for the error.
            stopped: asked before each attempt whether it is still wanted.

        Raises:
            MachineryFailed: no attempt succeeded.
        """
        pauses = random.Random(seed)
        problem = "nothing was sent"
        for attempt in range(self.attempts):
            if stopped():
                break
            try:
                return send()
            except Later as later:
                problem = later.problem
                if attempt + 1 < self.attempts:
                    self.retries += 1
                    doubling = min(LONGEST_PAUSE_SECONDS, 2.0**attempt) * (0.75 + pauses.random() / 2)
                    self.pause(doubling if later.after_seconds is None else later.after_seconds)
        raise MachineryFailed(f"{what} after {self.attempts} attempts; the last: {problem}", where=where, mend=mend)


def opener_for(address: str) -> urllib.request.OpenerDirector:
    """An opener without redirections, and without a proxy where the address is this machine."""
    handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
    if is_loopback(urllib.parse.urlsplit(address).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def exchange(
    opener: urllib.request.OpenerDirector,
    url: str,
    body: Mapping[str, Any] | None,
    headers: Mapping[str, str],
    timeout_seconds: float,
) -> Any:
    """Send `body` (POST; None: GET) and give the answer's JSON; an empty answer is None.

    Raises:
        Refused: a status that will not change.
        Later: no answer, a status that may change, or no JSON.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=dict(headers), method="GET" if body is None else "POST")
    try:
        try:
            with opener.open(request, timeout=timeout_seconds) as response:
                raw = response.read(_LONGEST_ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            message = message_of(error.read(65536))
            if error.code in RETRIED:
                raise Later(f"{error.code} {message}", retry_after(error.headers.get("Retry-After"))) from None
            raise Refused(error.code, message) from None
    except (OSError, ValueError, http.client.HTTPException) as error:  # refused, reset, timed out, cut off
        raise Later(f"{type(error).__name__}: {getattr(error, 'reason', error)}") from None
    if not raw.strip():
        return None
    try:
        return json.loads(raw)
    except ValueError:
        raise Later(f"not JSON: {raw[:200]!r}") from None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def message_of(raw: bytes) -> str:
    """What a server's error says, in whatever form."""
    text = raw.decode(errors="replace").strip()
    try:
        found = json.loads(text)
        error = found.get("error", found) if isinstance(found, dict) else found
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except ValueError:
        pass
    return text[:500] or "(no message)"


def retry_after(value: str | None) -> float | None:
    """Seconds; dates, which the header may hold too, are passed over."""
    try:
        return min(LONGEST_PAUSE_SECONDS, max(0.0, float(value))) if value else None
    except ValueError:
        return None
