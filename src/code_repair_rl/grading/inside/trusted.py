"""The trusted side of a function check: runs the tests, with a proxy in the place of the function under test.

The namespace is the oracle's own module, so that tests find the helpers they use; only the entry point is the proxy.
Everything that decides the verdict happens here. What comes over the connection is data, never code.
"""

from __future__ import annotations

import ast
import math
import random
import traceback
import types

from code_repair_rl.grading.inside import tree, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

MOST_CALLS = 100_000
_DETAIL_CHARACTERS = 400
_RELATIVE_TOLERANCE, _ABSOLUTE_TOLERANCE = 1e-6, 1e-12
_WARM_TASKS = 256

_NEVER_RAISED = {"AssertionError", "StopIteration", "StopAsyncIteration"}
_RAISABLE = {
    name: kind
    for name, kind in vars(__import__("builtins")).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and name not in _NEVER_RAISED
}
"""What a test may see the function raise. Anything else (SystemExit, AssertionError, skips) fails the test."""


class CandidateFailed(BaseException):
    """The call did not end in a value or in an exception that a test may expect. Not an `Exception`: a test that
    expects "some exception" must not be satisfied by it."""


class Stop(BaseException):
    """No further call can be made."""


class Session:
    """What happened so far in one check."""

    def __init__(self, connection: socket.socket, most_calls: int) -> None:
        self.connection = connection
        self.most_calls = most_calls
        self.calls = 0
        self.reason = ""
        """Why no further call can be made: `gone`, `tampered`, `memory`, `calls`."""
        self.evidence = ""
        self.tests: list[dict[str, Any]] = []
        self._mark = 0
        self._seen: dict[str, int] = {}

    def stop(self, reason: str, evidence: str) -> Stop:
        """Record the first reason."""
        if not self.reason:
            self.reason, self.evidence = reason, evidence
        return Stop(evidence)

    def record(self, name: str, passed: bool, visible: bool, detail: str = "") -> None:
        """One test that ran to its end."""
        detail = "" if passed else detail[:_DETAIL_CHARACTERS]
        self.tests.append({"name": name, "passed": passed, "visible": visible, "detail": detail})

    def asserted(self, line: int, source: str, error: BaseException | None) -> None:
        """An assertion of the check ran to its end: a test of its own if it called the candidate since the last."""
        detail = "" if error is None else f"{source}: {type(error).__name__}: {error}".removesuffix(": ")
        if self.calls == self._mark:
            if error is not None and self.tests:
                self.tests[-1].update(passed=False, detail=detail[:_DETAIL_CHARACTERS])
            elif error is not None:
                raise error
            return
        self._mark = self.calls
        self._seen[str(line)] = self._seen.get(str(line), 0) + 1
        count = self._seen[str(line)]
        self.record(f"check:{line}" + (f"#{count}" if count > 1 else ""), error is None, False, detail)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the candidate."""
        if self.reason:
            raise Stop(self.evidence)
        self.calls += 1
        if self.calls > self.most_calls:
            raise self.stop("calls", "the tests made more calls than with the known-good answer")
        sent = {"args": wire.encode(args), "kwargs": wire.encode(kwargs)}
        try:
            wire.send(self.connection, sent)
            answer = wire.receive(self.connection)
        except (EOFError, OSError) as error:
            raise self.stop("gone", "the process of the answer ended during a call") from error
        except wire.BadMessage as error:
            raise self.stop("tampered", str(error)) from error
        return self._unpacked(answer, args, kwargs)

    def _unpacked(self, answer: Any, args: Any, kwargs: Any) -> Any:
        try:
            if type(answer) is not dict:
                raise wire.BadMessage("not an answer to a call")
            if "value" in answer:
                value = wire.decode(answer["value"])
                for now, then in ((args, answer.get("args")), (kwargs, answer.get("kwargs"))):
                    if then is not None:
                        _bring_back(now, wire.decode(then))
                return value
        except wire.BadMessage as error:
            raise self.stop("tampered", str(error)) from error
        why = str(answer.get("why", ""))[:_DETAIL_CHARACTERS]
        if "cannot_cross" in answer:
            raise CandidateFailed(f"it returned {str(answer['cannot_cross'])[:200]}, which is not plain data")
        raised = answer.get("raised")
        if raised == "MemoryError":
            raise self.stop("memory", "a call ended in MemoryError")
        kind = _RAISABLE.get(raised) if type(raised) is str else None
        if kind is None:
            raise CandidateFailed(f"it raised {str(raised)[:100]}: {why}")
        raise _made(kind, why)


def _made(kind: type[Exception], why: str) -> Exception:
    message = why.partition(": ")[2]
    try:
        return kind(message)
    except TypeError:
        return ValueError(message)


def _bring_back(now: Any, then: Any) -> None:
    """Arguments that the candidate changed in place are changed here too."""
    if type(now) is not type(then):
        return
    if type(now) is tuple:
        for here, there in zip(now, then, strict=False):
            _bring_back(here, there)
    elif type(now) is list:
        now[:] = then
    elif type(now) is dict:
        now.clear()
        now.update(then)
    elif type(now) is set:
        now.clear()
        now |= then


def same(value: Any, expected: Any) -> bool:
    """Equal as a test would want it: by `==`, but nan equals nan, and floats within 1e-6 relative.

    Containers must be of the same type (a list is not a tuple); numbers compare across int, float and bool as `==`
    does.
    """
    if isinstance(value, float) or isinstance(expected, float):
        if type(value) not in (bool, int, float) or type(expected) not in (bool, int, float):
            return False
        if value == expected:
            return True
        try:
            if math.isnan(value) and math.isnan(expected):
                return True
            return math.isclose(value, expected, rel_tol=_RELATIVE_TOLERANCE, abs_tol=_ABSOLUTE_TOLERANCE)
        except OverflowError:
            return False
    if type(value) in (list, tuple):
        if type(value) is not type(expected) or len(value) != len(expected):
            return False
        return all(same(one, other) for one, other in zip(value, expected, strict=True))
    if type(value) is dict:
        if type(expected) is not dict or value.keys() != expected.keys():
            return False
        return all(same(item, expected[key]) for key, item in value.items())
    return bool(value == expected)


class _Instrumented(ast.NodeTransformer):
    """Makes every assertion of a check report itself, and go on after a failure.

    An assertion whose failure the check itself might handle (within `try` or `with`) still raises.
    """

    def __init__(self) -> None:
        self._guards = 0

    def visit_Try(self, node: ast.Try) -> ast.AST:
        self._guards += 1
        node.body = [self.visit(child) for child in node.body]
        self._guards -= 1
        for field in ("handlers", "orelse", "finalbody"):
            setattr(node, field, [self.visit(child) for child in getattr(node, field)])
        return node

    def visit_With(self, node: ast.With) -> ast.AST:
        self._guards += 1
        self.generic_visit(node)
        self._guards -= 1
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        source = repr(ast.unparse(node)[:200])
        report = ast.parse(f"__crrl_asserted__({node.lineno}, {source}, None)").body[0]
        body: list[ast.stmt] = [node, report]
        if self._guards:
            wrapped: ast.stmt = ast.If(test=ast.Constant(True), body=body, orelse=[])
        else:
            handler = ast.parse(
                "try:\n    pass\nexcept __crrl_failures__ as __crrl_error__:\n"
                f"    __crrl_asserted__({node.lineno}, {source}, __crrl_error__)"
            ).body[0]
            assert isinstance(handler, ast.Try)
            handler.body = body
            wrapped = handler
        return ast.fix_missing_locations(ast.copy_location(wrapped, node))


_compiled: dict[str, types.CodeType] = {}
_finders: dict[str, tree.TreeFinder] = {}
"""Trees of one file, by its text."""


def _finder(payload: dict[str, Any]) -> tree.TreeFinder:
    return _finders.get(payload["files"][payload["path"]]) or tree.TreeFinder(payload["files"])


def warm(payload: dict[str, Any]) -> None:
    """Compile a task's check and module once, in the server that all its jobs are forked from. Nothing is run."""
    module = payload["files"].get(payload["path"], "")
    if len(payload["files"]) == 1 and module not in _finders:
        if len(_finders) >= _WARM_TASKS:
            _finders.clear()
        try:
            finder = tree.TreeFinder(payload["files"])
            finder.code(payload["path"])
            _finders[module] = finder
        except (KeyError, SyntaxError, ValueError, RecursionError):
            return
    source = payload["check"]
    if source and source not in _compiled:
        if len(_compiled) >= _WARM_TASKS:
            _compiled.clear()
        try:
            parsed = _Instrumented().visit(ast.parse(source, "<check>"))
            _compiled[source] = compile(parsed, "<check>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError):
            return


def main(payload: dict[str, Any], connection: socket.socket, result: socket.socket) -> None:
    """Run the tests of one task against the candidate at the other end of `connection`."""
    session = Session(connection, payload["calls"] if payload["calls"] is not None else MOST_CALLS)
    broken = ""
    greeting: Any = {}
    try:
        namespace = _namespace(payload, session)
        greeting = _greeting(session)
        if greeting.get("ready") is True:
            _examples(payload, session, namespace)
            _check(payload, session, namespace)
    except Stop:
        pass
    except CandidateFailed as error:
        session.evidence = session.evidence or str(error)
        broken = "failed"
    except BaseException as error:
        lines = traceback.format_exception_only(type(error), error)
        session.evidence = session.evidence or lines[-1].strip()[:_DETAIL_CHARACTERS]
        broken = "raised"
    connection.close()
    found = {
        "greeting": greeting,
        "tests": session.tests,
        "calls": session.calls,
        "stopped": session.reason,
        "ended": broken or "returned",
        "evidence": session.evidence,
    }
    wire.send(result, found)


def _namespace(payload: dict[str, Any], session: Session) -> dict[str, Any]:
    module = tree.load(_finder(payload), payload["path"])
    setattr(module, payload["entry_point"], session.call)
    namespace = dict(vars(module))
    namespace["__crrl_asserted__"] = session.asserted
    namespace["__crrl_failures__"] = (Exception, CandidateFailed)
    return namespace


def _greeting(session: Session) -> dict[str, Any]:
    try:
        greeting = wire.receive(session.connection)
    except (EOFError, OSError) as error:
        raise session.stop("gone", "the process of the answer ended while its code was imported") from error
    except wire.BadMessage as error:
        raise session.stop("tampered", str(error)) from error
    if type(greeting) is not dict:
        raise session.stop("tampered", "not a greeting")
    kept = {key: value if value is True else str(value)[:500] for key, value in greeting.items() if type(key) is str}
    return {key: kept[key] for key in ("ready", "broken", "why") if key in kept}


def _examples(payload: dict[str, Any], session: Session, namespace: dict[str, Any]) -> None:
    for group in ("visible", "hidden"):
        for index, (call, expected) in enumerate(payload[group]):
            random.seed(payload["seed"])
            name, shown = f"{group}[{index}]", group == "visible"
            wanted = eval(expected, dict(namespace))
            before = session.calls
            try:
                value = eval(call, dict(namespace))
            except (Exception, CandidateFailed) as error:
                session.record(name, False, shown, f"{call}: {type(error).__name__}: {error}; expected {expected}")
                continue
            if session.calls == before:
                session.record(name, False, shown, f"{call} does not call {payload['entry_point']}")
                continue
            held = same(value, wanted)
            session.record(name, held, shown, "" if held else f"{call} gave {_shown(value)}, expected {expected}")


def _shown(value: Any) -> str:
    try:
        return repr(value)[:200]
    except ValueError:
        return f"a {type(value).__name__} too large to show"


def _check(payload: dict[str, Any], session: Session, namespace: dict[str, Any]) -> None:
    source = payload["check"]
    if not source:
        return
    random.seed(payload["seed"])
    code = _compiled.get(source) or compile(source, "<check>", "exec", dont_inherit=True)
    tests_before, calls_before = len(session.tests), session.calls
    exec(code, namespace)
    session._mark = session.calls
    namespace["check"](session.call)
    if len(session.tests) == tests_before and session.calls > calls_before:
        session.record("check", True, False)
