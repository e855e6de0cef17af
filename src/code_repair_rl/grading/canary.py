"""A job that is known to pass: tells a broken machine from an answer that breaks its worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from code_repair_rl.grading.verdict import Outcome, Verdict, no_verdict
from code_repair_rl.tasks import Example, FunctionTests, RepositoryTests

_FILES = {"canary.py": "def canary(song):\n    return song[::-1]\n"}
_TESTS = FunctionTests(
    path="canary.py", entry_point="canary", hidden=(Example(call="canary([1, 2, 3])", expected="[3, 2, 1]"),)
)
_SONG = "from canary import canary\n\n\ndef test_song():\n    assert canary([1, 2]) == [2, 1]\n"
_TREE = {**_FILES, "tests/test_canary.py": _SONG}
_SUITE = RepositoryTests(fail_to_pass=("tests/test_canary.py::test_song",))


def canary_passes(check: Callable[[Mapping[str, str], FunctionTests], Verdict | None]) -> bool:
    """Whether the canary gets its verdict through `check`, which returns None where the machinery breaks."""
    verdict = check(_FILES, _TESTS)
    return verdict is not None and verdict.passed


def repository_canary_passes(run: Callable[[Mapping[str, str], RepositoryTests], Verdict | None]) -> bool:
    """The same where a repository's tests run."""
    verdict = run(_TREE, _SUITE)
    return verdict is not None and verdict.passed


def broke_twice(broken: Sequence[str], known_passes: bool, isolation: str) -> Verdict:
    """Ours to retry, theirs to score: where a known answer fares well, the cause lay with the answer."""
    if known_passes:
        evidence = ("the answer broke its worker twice, while a known answer was graded without trouble", *broken)
        return Verdict(Outcome.CRASHED, evidence=evidence, isolation=isolation)
    return no_verdict("; ".join(broken), isolation)
