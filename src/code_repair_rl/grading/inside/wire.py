"""Values as plain tagged data: what may cross between the two jails of a function check, and how.

JSON carries None, bool, str, small integers and finite floats as themselves; everything else is a list that begins
with a one-letter tag. Types are exact: an instance of a subclass is refused, because its `__eq__` could be anything.
Identity and aliasing are not preserved.
"""

from __future__ import annotations

import json
import math
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

MOST_BYTES = 8 << 20
"""Of one message."""
MOST_DEPTH = 64
MOST_ITEMS = 200_000
"""Of one value, all levels together; also what an iterator is read up to."""
MOST_BITS = 1 << 17
"""Of one integer."""
_SMALL = 1 << 53

_ITERATORS = frozenset(
    {
        type(iter([])), type(iter(())), type(iter({})), type(iter({}.items())), type(iter({}.values())),
        type(iter(set())), type(iter("")), type(iter(b"")), type(iter(range(0))), type(reversed([])),
        types.GeneratorType, map, filter, zip, enumerate,
    }
)  # fmt: skip


class CannotCross(Exception):  # noqa: N818 - reads as what it is
    """A value that is not plain data, or too large to send."""


class BadMessage(Exception):  # noqa: N818 - reads as what it is
    """A message that no honest peer sends."""


def encode(value: Any) -> Any:
    """`value` as JSON-ready data.

    Raises:
        CannotCross: it is not plain data.
    """
    return _encode(value, 0, [MOST_ITEMS])


def _encode(value: Any, depth: int, budget: list[int]) -> Any:
    kind = type(value)
    budget[0] -= 1
    if budget[0] < 0:
        raise CannotCross(f"more than {MOST_ITEMS} items")
    if depth > MOST_DEPTH:
        raise CannotCross(f"nested deeper than {MOST_DEPTH}")
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        if -_SMALL < value < _SMALL:
            return value
        if value.bit_length() > MOST_BITS:
            raise CannotCross(f"an integer of more than {MOST_BITS} bits")
        return ["i", hex(value)]
    if kind is float:
        return value if math.isfinite(value) else ["f", repr(value)]
    if kind is list:
        return ["l", [_encode(item, depth + 1, budget) for item in value]]
    if kind is tuple:
        return ["t", [_encode(item, depth + 1, budget) for item in value]]
    if kind is dict:
        pairs = value.items()
        return ["d", [[_encode(key, depth + 1, budget), _encode(item, depth + 1, budget)] for key, item in pairs]]
    if kind is set or kind is frozenset:
        return ["s" if kind is set else "z", [_encode(item, depth + 1, budget) for item in value]]
    if kind is bytes:
        return ["b", value.hex()]
    if kind is complex:
        return ["c", [_encode(value.real, depth, budget), _encode(value.imag, depth, budget)]]
    if kind is range:
        return ["r", [_encode(part, depth, budget) for part in (value.start, value.stop, value.step)]]
    if kind in _ITERATORS:
        items = []
        for item in value:
            items.append(_encode(item, depth + 1, budget))
        return ["g", items]
    raise CannotCross(f"a value of type {kind.__module__}.{kind.__qualname__}")


def decode(data: Any) -> Any:
    """The value that `encode` made `data` from.

    Raises:
        BadMessage: no value encodes to this.
    """
    try:
        return _decode(data, 0)
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, RecursionError) as error:
        raise BadMessage(f"not an encoded value: {type(error).__name__}") from error


def _decode(data: Any, depth: int) -> Any:
    if data is None or type(data) in (bool, str, int, float):
        return data
    if type(data) is not list or len(data) != 2 or depth > MOST_DEPTH + 1:
        raise ValueError
    tag, body = data
    if tag == "l":
        return [_decode(item, depth + 1) for item in _items(body)]
    if tag == "t":
        return tuple([_decode(item, depth + 1) for item in _items(body)])
    if tag == "d":
        return {_decode(key, depth + 1): _decode(item, depth + 1) for key, item in _items(body)}
    if tag == "s":
        return {_decode(item, depth + 1) for item in _items(body)}
    if tag == "z":
        return frozenset([_decode(item, depth + 1) for item in _items(body)])
    if tag == "i":
        if len(body) > MOST_BITS // 4 + 3:
            raise ValueError
        return int(body, 16)
    if tag == "f" and body in ("nan", "inf", "-inf"):
        return float(body)
    if tag == "b":
        return bytes.fromhex(body)
    if tag == "c":
        real, imaginary = (_decode(part, depth + 1) for part in _items(body))
        return complex(real, imaginary)
    if tag == "r":
        start, stop, step = (_decode(part, depth + 1) for part in _items(body))
        return range(start, stop, step)
    if tag == "g":
        return iter([_decode(item, depth + 1) for item in _items(body)])
    raise ValueError


def _items(body: Any) -> list[Any]:
    if type(body) is not list:
        raise ValueError
    return body


def send(connection: socket.socket, message: Any) -> None:
    """One message.

    Raises:
        CannotCross: it is larger than `MOST_BYTES`.
        OSError: nobody listens.
    """
    data = json.dumps(message).encode()
    if len(data) > MOST_BYTES:
        raise CannotCross(f"more than {MOST_BYTES} bytes in one message")
    connection.sendall(len(data).to_bytes(4, "big") + data)


def receive(connection: socket.socket) -> Any:
    """One message.

    Raises:
        EOFError: the peer is gone.
        BadMessage: it is too large or not JSON.
        OSError: the connection broke or timed out.
    """
    size = int.from_bytes(_exactly(connection, 4), "big")
    if size > MOST_BYTES:
        raise BadMessage("a message beyond the limit")
    try:
        return json.loads(_exactly(connection, size))
    except (ValueError, RecursionError) as error:
        raise BadMessage("a message that is not JSON") from error


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(min(size - len(data), 1 << 20))
        if not chunk:
            raise EOFError
        data = data + chunk if data else chunk
    return data
