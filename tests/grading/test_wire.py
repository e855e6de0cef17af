"""What crosses between the jails: the same value of the same type, or nothing."""

from __future__ import annotations

import json
import math
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_repair_rl.grading.inside import wire

_hashable = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
values = st.recursive(
    _hashable | st.complex_numbers(allow_nan=False) | st.builds(range, st.integers(-9, 9), st.integers(-9, 9)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(_hashable, inner, max_size=4)
        | st.sets(_hashable, max_size=4)
    ),
    max_leaves=12,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def exact(value: object) -> object:
    """A value with the types of all its parts, comparable."""
    if isinstance(value, (list, tuple)):
        return type(value), [exact(item) for item in value]
    if isinstance(value, dict):
        return dict, [(exact(key), exact(item)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(exact(item)) for item in value)
    return type(value), repr(value)


@settings(max_examples=300)
@given(values)
def test_values_arrive_as_they_were_sent(value: object) -> None:
    arrived = wire.decode(json.loads(json.dumps(wire.encode(value))))
    assert exact(arrived) == exact(value)


@settings(max_examples=300)
@given(json_values)
def test_whatever_is_sent_decodes_or_is_refused(data: object) -> None:
    try:
        wire.decode(data)
    except wire.BadMessage:
        return


def test_special_floats_cross() -> None:
    assert math.isnan(wire.decode(wire.encode(math.nan)))
    assert wire.decode(wire.encode([math.inf, -math.inf])) == [math.inf, -math.inf]
    assert math.copysign(1, wire.decode(json.loads(json.dumps(wire.encode(-0.0))))) == -1


def test_iterators_arrive_as_iterators() -> None:
    for made in (iter([1, 2]), (n for n in (1, 2)), map(int, "12"), filter(None, [1, 2]), iter({1: 0, 2: 0})):
        arrived = wire.decode(wire.encode(made))
        assert iter(arrived) is arrived and list(arrived) == [1, 2]


class _Int(int):
    pass


@pytest.mark.parametrize(
    "value",
    [_Int(3), object(), print, _Int, type("L", (list,), {})(), memoryview(b""), bytearray(b"")],
)
def test_what_is_not_plain_data_does_not_cross(value: object) -> None:
    with pytest.raises(wire.CannotCross):
        wire.encode([value])


def test_an_integer_is_capped_by_its_bits() -> None:
    largest = (1 << wire.MOST_BITS) - 1
    assert wire.decode(json.loads(json.dumps(wire.encode(-largest)))) == -largest
    with pytest.raises(wire.CannotCross):
        wire.encode(largest + 1)


def test_depth_and_size_are_capped() -> None:
    deep: list[object] = []
    for _ in range(wire.MOST_DEPTH + 2):
        deep = [deep]
    endless = iter(int, 1)
    for value in (deep, [0] * (wire.MOST_ITEMS + 1), (0 for _ in range(1 << 62))):
        with pytest.raises(wire.CannotCross):
            wire.encode(value)
    with pytest.raises(wire.CannotCross):
        wire.encode(endless)


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_any_bytes_on_the_line_are_a_message_or_refused(data: bytes) -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(data)
        one.shutdown(socket.SHUT_WR)
        with pytest.raises((wire.BadMessage, EOFError)):
            while True:
                wire.receive(other)


def test_messages_cross_whole() -> None:
    one, other = socket.socketpair()
    message = {"value": "x" * 3_000_000}
    with one, other:
        sender = threading.Thread(target=wire.send, args=(one, message))
        sender.start()
        assert wire.receive(other) == message
        sender.join()


def test_a_message_beyond_the_limit_is_neither_sent_nor_read() -> None:
    one, other = socket.socketpair()
    with one, other:
        with pytest.raises(wire.CannotCross):
            wire.send(one, "x" * (wire.MOST_BYTES + 1))
        one.sendall((wire.MOST_BYTES + 1).to_bytes(4, "big"))
        with pytest.raises(wire.BadMessage):
            wire.receive(other)
