from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.grading import Grader, Outcome, TestResult, TestStatus, Verdict
from code_repair_rl.grading.cache import VerdictCache, key_of, verdict_from_json, verdict_to_json
from code_repair_rl.tasks import Environment, RepositoryTests
from tests.grading.sample import BAD, GOOD, answer, function_task

VERDICT = Verdict(Outcome.FAILED, (TestResult("a", TestStatus.FAILED, True, "why"),), evidence=("e",), wall_seconds=0.5)

verdicts = st.builds(
    Verdict,
    outcome=st.sampled_from(Outcome),
    tests=st.lists(st.builds(TestResult, st.text(), st.sampled_from(TestStatus), st.booleans(), st.text())).map(tuple),
    edit_error=st.none() | st.text(),
    tolerance=st.none() | st.text(),
    evidence=st.lists(st.text()).map(tuple),
    wall_seconds=st.floats(0, 100),
    isolation=st.text(),
)


@given(verdicts)
def test_verdicts_survive_json(verdict: Verdict) -> None:
    assert verdict_from_json(json.loads(json.dumps(verdict_to_json(verdict)))) == verdict


def test_what_was_kept_is_found_by_another_process(tmp_path: Path) -> None:
    VerdictCache(tmp_path).put("ab12", VERDICT)
    found = VerdictCache(tmp_path).get("ab12")
    assert found is not None and found.cached and found.tests == VERDICT.tests


def test_a_no_verdict_is_never_kept(tmp_path: Path) -> None:
    cache = VerdictCache(tmp_path)
    cache.put("ab12", Verdict(Outcome.NO_VERDICT))
    assert cache.get("ab12") is None and not list(tmp_path.rglob("*.json"))


def test_a_damaged_entry_counts_as_absent(tmp_path: Path) -> None:
    VerdictCache(tmp_path).put("ab12", VERDICT)
    (entry,) = tmp_path.rglob("*.json")
    whole = entry.read_text()
    forged = whole.replace('"failed"', '"passed"')
    for damaged in ("", "{", whole[:-9], "[]", forged, whole.replace("ab12", "ab13"), '{"key": "ab12"}'):
        entry.write_text(damaged)
        assert VerdictCache(tmp_path).get("ab12") is None, damaged


def test_a_cache_that_cannot_be_written_costs_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    VerdictCache(tmp_path / "file").put("ab12", VERDICT)


def test_the_key_covers_whatever_the_verdict_depends_on() -> None:
    task = function_task()
    keys = {
        key_of(task, {"mean.py": GOOD}, "a"),
        key_of(task, {"mean.py": GOOD}, "b"),
        key_of(task, {"mean.py": GOOD + " "}, "a"),
        key_of(task, {"mean.py": GOOD, "x": ""}, "a"),
        key_of(function_task(seed=1), {"mean.py": GOOD}, "a"),
        key_of(task.model_copy(update={"files": {"mean.py": BAD + "\n"}}), {"mean.py": GOOD}, "a"),
        key_of(task.model_copy(update={"oracle": {"mean.py": None}}), {"mean.py": GOOD}, "a"),
    }
    assert len(keys) == 7
    assert key_of(task.model_copy(update={"task_id": "other"}), {"mean.py": GOOD}, "a") in keys


def test_what_a_repositorys_tests_import_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    task = function_task()
    elsewhere = RepositoryTests(fail_to_pass=("x",), environment=Environment(image="i", folder="/x"))
    tasks = [
        task,
        *(task.model_copy(update={"tests": tests}) for tests in (RepositoryTests(fail_to_pass=("x",)), elsewhere)),
    ]
    before = [key_of(one, {}, "a") for one in tasks]
    monkeypatch.setattr("code_repair_rl.grading.cache._installed", lambda: "another pytest")
    assert [key_of(one, {}, "a") == key for one, key in zip(tasks, before, strict=True)] == [True, False, True]


def test_a_second_grader_does_not_run_what_the_first_has_graded(tmp_path: Path) -> None:
    task = function_task()
    with Grader(workers=1, cache=tmp_path) as first:
        ran = first.grade(task, answer(GOOD))
    with Grader(workers=1, cache=tmp_path) as second:
        found = second.grade(task, answer(GOOD))
        assert second._all[0].function._candidate is None, "no jail was started"
    assert found.cached and not ran.cached and found.outcome is Outcome.PASSED
