"""The candidate's side of a function check: loads the answer, then answers calls.

Knows the answer's files, the name of the function and, call by call, its arguments; no expected value, no test. What
this process says is believed by nobody: whatever it sends counts as the function's return value.
"""

from __future__ import annotations

import random

from code_repair_rl.grading.inside import tree, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any


def main(payload: dict[str, Any], connection: socket.socket) -> None:
    """Serve calls until the other side hangs up."""
    random.seed(0)
    function = _function(payload, connection)
    if function is None:
        return
    wire.send(connection, {"ready": True})
    while True:
        try:
            message = wire.receive(connection)
        except EOFError:
            return
        wire.send(connection, _called(function, message))


def _function(payload: dict[str, Any], connection: socket.socket) -> Any:
    files, path, entry_point = payload["files"], payload["path"], payload["entry_point"]
    if path not in files:
        wire.send(connection, {"broken": "missing", "why": f"there is no file {path}"})
        return None
    try:
        finder = tree.TreeFinder(files)
        finder.code(path)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        wire.send(connection, {"broken": "syntax", "why": _told(error)})
        return None
    try:
        module = tree.load(finder, path)
    except BaseException as error:
        wire.send(connection, {"broken": "import", "why": _told(error)})
        return None
    function = getattr(module, entry_point, None)
    if not callable(function):
        wire.send(connection, {"broken": "missing", "why": f"{path} defines no function {entry_point}"})
        return None
    return function


def _called(function: Any, message: Any) -> dict[str, Any]:
    args = wire.decode(message["args"])
    kwargs = wire.decode(message["kwargs"])
    try:
        value = wire.encode(function(*args, **kwargs))
        return {"value": value, "args": _changed(message["args"], args), "kwargs": _changed(message["kwargs"], kwargs)}
    except wire.CannotCross as error:
        return {"cannot_cross": str(error)}
    except BaseException as error:
        return {"raised": _name(error), "why": _told(error)}


def _changed(before: Any, now: Any) -> Any:
    """The arguments `now`, encoded; None where the call left them as `before`, their encoding, has them.

    Iterators among the arguments are used up by now and count as left alone.
    """
    values = now.values() if type(now) is dict else now
    if not any(type(value) in (list, dict, set, tuple) for value in values):
        return None
    after = wire.encode(now)
    return None if after == before else after


def _name(error: BaseException) -> str:
    """The nearest builtin exception type."""
    for kind in type(error).__mro__:
        if kind.__module__ == "builtins":
            return kind.__name__
    return "BaseException"


def _told(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except BaseException:
        return type(error).__name__
