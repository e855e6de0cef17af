"""New inputs made from inputs that tests use: the same types, values and lengths within what was seen.

Staying within what was seen keeps most unwritten preconditions (positive, non-empty, letters only) without knowing
them. What remains odd is run through the reference solution like any other input, and its answer is what counts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

_MOST_TEXT = 160
"""Longest `repr` of arguments or of a result, in characters, that makes a readable example."""

_MOST_INTEGER = 10**15


def is_plain(value: Any) -> bool:
    """Whether a value is None, a number, text, or lists, tuples and dicts of them, so that its `repr` gives it back."""
    if value is None or type(value) in (bool, str):
        return True
    if type(value) is int:
        return abs(value) <= _MOST_INTEGER
    if type(value) is float:
        return math.isfinite(value)
    if type(value) in (list, tuple):
        return all(is_plain(element) for element in value)
    if type(value) is dict:
        return all(is_plain(key) and is_plain(element) for key, element in value.items())
    return False


def is_short(value: Any) -> bool:
    """Whether the value's `repr` is short enough for an example."""
    return len(repr(value)) <= _MOST_TEXT


def variations(seen: Sequence[tuple[Any, ...]], rng: random.Random, count: int) -> Iterator[tuple[Any, ...]]:
    """Up to `count` argument tuples that differ from all seen ones and from each other."""
    known = {repr(arguments) for arguments in seen}
    found = 0
    for _ in range(count * 8):
        if found == count or not seen:
            return
        arguments = _varied(rng.choice(seen), seen, rng)
        if repr(arguments) not in known and is_plain(arguments) and is_short(arguments):
            known.add(repr(arguments))
            found += 1
            yield arguments


def _varied(base: tuple[Any, ...], seen: Sequence[tuple[Any, ...]], rng: random.Random) -> tuple[Any, ...]:
    if not base:
        return base
    place = rng.randrange(len(base))
    alike = [arguments[place] for arguments in seen if len(arguments) > place]
    taken = len(base) > 1 and rng.random() < 0.3
    new = rng.choice(alike) if taken else _changed(base[place], alike, rng)
    return (*base[:place], new, *base[place + 1 :])


def _changed(value: Any, alike: Sequence[Any], rng: random.Random) -> Any:
    """The value with one change; `alike` are the values seen in its place."""
    if type(value) is bool:
        return not value
    if type(value) is int:
        return _integer(value, alike, rng)
    if type(value) is float:
        return _real(value, alike, rng)
    if type(value) is str:
        return _text(value, alike, rng)
    if type(value) in (list, tuple):
        return type(value)(_sequence(list(value), alike, rng))
    if type(value) is dict and value:
        key = rng.choice(list(value))
        if rng.random() < 0.3:
            return {name: element for name, element in value.items() if name != key}
        others = [element for one in alike if type(one) is dict for element in one.values()]
        return {**value, key: _changed(value[key], others, rng)}
    return value


def _integer(value: int, alike: Sequence[Any], rng: random.Random) -> int:
    numbers = [one for one in alike if type(one) is int]
    low, high = min(numbers, default=value), max(numbers, default=value)
    if rng.random() < 0.5:
        return min(max(value + rng.choice((-1, 1)), low), high)
    return rng.randint(low, min(high, low + 1000) if rng.random() < 0.7 else high)


def _real(value: float, alike: Sequence[Any], rng: random.Random) -> float:
    numbers = [one for one in alike if type(one) is float]
    low, high = min(numbers, default=value), max(numbers, default=value)
    return round(rng.uniform(low, high), 1)


def _text(value: str, alike: Sequence[Any], rng: random.Random) -> str:
    others = [one for one in alike if type(one) is str]
    letters = sorted({letter for one in others for letter in one})
    if not letters:
        return value
    change = rng.randrange(5)
    if change == 0 or not value:
        other = rng.choice(others)
        return value[: len(value) // 2] + other[len(other) // 2 :]
    place = rng.randrange(len(value))
    if change == 1:
        return value[:place] + value[place + 1 :]
    if change == 2:
        return value[:place] + rng.choice(letters) + value[place:]
    if change == 3:
        other_place = rng.randrange(len(value))
        parts = list(value)
        parts[place], parts[other_place] = parts[other_place], parts[place]
        return "".join(parts)
    return value[:place] + rng.choice(letters) + value[place + 1 :]


def _sequence(value: list[Any], alike: Sequence[Any], rng: random.Random) -> list[Any]:
    elements = [element for one in alike if type(one) in (list, tuple) for element in one]
    longest = max((len(one) for one in alike if type(one) in (list, tuple)), default=len(value))
    shortest = min((len(one) for one in alike if type(one) in (list, tuple)), default=len(value))
    change = rng.randrange(6)
    if change == 0 and len(value) > shortest:
        place = rng.randrange(len(value))
        return value[:place] + value[place + 1 :]
    if (change == 1 or not value) and elements and len(value) < longest:
        place = rng.randint(0, len(value))
        return [*value[:place], rng.choice(elements), *value[place:]]
    if change == 2:
        return rng.sample(value, len(value))
    if not value:
        return value
    place = rng.randrange(len(value))
    if change == 3:
        return [*value[:place], rng.choice(elements), *value[place + 1 :]]
    return [*value[:place], _changed(value[place], elements, rng), *value[place + 1 :]]
