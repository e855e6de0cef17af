"""The search: places in turn, each distinct result tested once, a pass that repeats itself, an honest tally."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from code_repair_rl.pipelines.fix import Search, Suspect, Tally, Why, copied_project, question, repair
from code_repair_rl.rollouts import Sampling
from code_repair_rl.sandbox import Cause, JobResult, select_backend
from tests.pipelines.fix.reciting import RecitingEngine, block, suspicious

BROKEN = '''\
class Account:
    def balance(self, moves):
        """Add up the moves."""
        total = 0
        for move in moves:
            total -= move
        return total
'''
CHECK = "from account import Account\nassert Account().balance([1, 2]) == 3\n"
PLACES = [Suspect("account.py", (number,), Why.STATEMENT) for number in (4, 5, 6, 7)]
MEND = block("    total -= move", "    total += move")


def _search(
    tmp_path: Path,
    answers: Callable[[str, int], list[str]],
    *,
    samples: int = 32,
    source: str = BROKEN,
    check: str = CHECK,
    places: list[Suspect] = PLACES,
) -> tuple[object, Tally, RecitingEngine]:
    (tmp_path / "account.py").write_text(source)
    (tmp_path / "check.py").write_text(check)
    engine = RecitingEngine(answers)
    with copied_project(tmp_path, "python check.py", select_backend()) as project:
        search = Search(samples=samples, sampling=Sampling(temperature=1.0, seed=5))
        found, tally = repair(project, engine, {"account.py": source}, places, search, failing_seconds=0.1)
    return found, tally, engine


def test_the_first_answer_that_passes_is_the_repair(tmp_path: Path) -> None:
    found, tally, _ = _search(
        tmp_path, lambda prompt, n: [MEND if suspicious(prompt).strip() == "total -= move" else ""] * n
    )
    assert found is not None
    assert found.after == BROKEN.replace("-=", "+=")
    assert found.suspect.numbers == (6,)
    assert tally == Tally(sampled=32, unreadable=24, repeated=7, tested=1)


def test_every_fate_of_an_answer_is_counted_and_each_result_is_tested_once(tmp_path: Path) -> None:
    answers = [
        "no edit at all",
        block("nowhere to be found", "x"),
        block("    total -= move", "    total -= move"),
        block("    total -= move", "    total -= (move"),
        block("    total -= move", "    total *= move"),
        block("total -= move", "total *= move"),
        "*** Delete account.py\n",
        block("    return total", "    return -total\n    # never reached"),
    ]
    found, tally, _ = _search(
        tmp_path, lambda _, n: answers[:n], samples=8, places=PLACES[:1], check="raise SystemExit(1)"
    )
    assert found is None
    assert tally == Tally(sampled=8, unreadable=3, unchanged=1, invalid=1, repeated=1, tested=2)


def test_places_have_their_turns_until_the_samples_are_spent(tmp_path: Path) -> None:
    _, tally, engine = _search(tmp_path, lambda _, n: [""] * n, samples=42)
    assert tally.sampled == 42
    assert sum(count for _, count in engine.asked) == 42
    counts = {line.strip(): 0 for line in BROKEN.splitlines()[3:]}
    for prompt, count in engine.asked:
        counts[suspicious(prompt).strip()] += count
    assert all(count >= 8 for count in counts.values())
    assert engine.seeds == list(range(5, 5 + len(engine.seeds)))  # another batch, other answers


def test_with_more_places_than_samples_each_of_the_first_gets_one(tmp_path: Path) -> None:
    source = "def f():\n" + "".join(f"    x{n} = {n}\n" for n in range(2, 60))
    places = [Suspect("account.py", (number,), Why.STATEMENT) for number in range(2, 60)]
    _, _, engine = _search(tmp_path, lambda _, n: [""] * n, samples=10, source=source, places=places)
    assert [count for _, count in engine.asked] == [1] * 10
    assert len({prompt for prompt, _ in engine.asked}) == 10


def test_an_answer_that_hangs_is_ended_and_the_search_goes_on(tmp_path: Path) -> None:
    answers = [block("    return total", "    while True: pass"), MEND]
    found, tally, _ = _search(tmp_path, lambda _, n: answers, samples=2, places=PLACES[2:3])
    assert found is not None
    assert tally.timed_out == 1
    assert tally.tested == 2


class _Wavering:
    """A project whose command succeeds every other time."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self, changed: Mapping[str, str], *, wall_seconds: float, trace: tuple[str, ...] = ()) -> JobResult:
        self.runs += 1
        return JobResult(1 - self.runs % 2, b"", b"", 0.1, Cause.FINISHED)


def test_a_pass_that_does_not_repeat_itself_is_no_repair() -> None:
    project = _Wavering()
    engine = RecitingEngine(lambda _, n: [MEND] * n)
    search = Search(samples=4)
    found, tally = repair(project, engine, {"account.py": BROKEN}, PLACES[2:3], search, failing_seconds=0.1)
    assert found is None
    assert (tally.tested, project.runs) == (1, 2)


@pytest.mark.parametrize("told", ["", "What it is for."])
def test_the_docstring_is_the_description_unless_another_is_given(told: str) -> None:
    task = question({"account.py": BROKEN}, PLACES[2], told)
    assert task.description == (told or "Add up the moves.")
    assert ("Add up" in task.files["account.py"]) is bool(told)
    assert task.hints.suspicious_lines[0].text == "        total -= move"
    assert task.files["account.py"].startswith("def balance")
