"""The order of tasks is the seed's, and goes on where it stopped."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.errors import BadInput
from code_repair_rl.tasks import Kind, Origin, Split, Task
from code_repair_rl.training.task_stream import TaskStream


def task(number: int) -> Task:
    return Task(
        task_id=f"t{number}",
        kind=Kind.REPAIR,
        files={"a.py": "x = 1\n"},
        description="",
        oracle={"a.py": "x = 2\n"},
        split=Split.TRAIN,
        problem=f"p{number}",
        origin=Origin(source="test"),
        licence="MIT",
    )


def ids(tasks: list[Task]) -> list[str]:
    return [one.task_id for one in tasks]


def test_every_pass_asks_every_task_once_in_another_order() -> None:
    stream = TaskStream([task(n) for n in range(20)], seed=1)
    first, second = ids(stream.take(20)), ids(stream.take(20))
    assert sorted(first) == sorted(second)
    assert first != second
    assert set(Counter(first).values()) == {1}


@given(st.integers(0, 30), st.integers(1, 30), st.integers(0, 5))
def test_a_restored_stream_goes_on_as_the_first_would(before: int, after: int, seed: int) -> None:
    tasks = [task(n) for n in range(7)]
    stream = TaskStream(tasks, seed, (0.1, 0.9))
    for one in stream.take(before):
        stream.observe(one.task_id, 0.0 if one.task_id == "t3" else 0.5)
    restored = TaskStream(tasks, seed, (0.1, 0.9))
    restored.restore(stream.state())
    assert ids(restored.take(after)) == ids(stream.take(after))


def test_what_is_always_solved_is_passed_over() -> None:
    stream = TaskStream([task(n) for n in range(4)], seed=0, difficulty=(0.0, 0.9))
    stream.observe("t2", 1.0)
    assert "t2" not in ids(stream.take(12))
    stream.observe("t2", 0.5)
    assert "t2" in ids(stream.take(4))


def test_where_everything_is_out_of_bounds_the_stream_still_flows() -> None:
    stream = TaskStream([task(n) for n in range(3)], seed=0, difficulty=(0.4, 0.6))
    for number in range(3):
        stream.observe(f"t{number}", 1.0)
    assert len(stream.take(5)) == 5


def test_no_tasks_is_refused() -> None:
    with pytest.raises(BadInput, match="no task"):
        TaskStream([], seed=0)


def test_a_curriculum_is_gone_through_in_its_order() -> None:
    tasks = [task(n) for n in range(4)]
    stream = TaskStream(tasks, seed=0, shuffled=False)
    assert stream.take(6) == [*tasks, *tasks[:2]]
