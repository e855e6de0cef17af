"""A draw is the seed's, spreads over problems, and a larger one begins with a smaller."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.tasks import Kind, Origin, Split, Task
from code_repair_rl.tasks.draw import draw


def tasks_of(sizes: list[int]) -> list[Task]:
    return [
        Task(
            task_id=f"p{problem}/{number}",
            kind=Kind.REPAIR,
            files={"a.py": "x = 1\n"},
            description="",
            oracle={"a.py": "x = 2\n"},
            split=Split.TEST,
            problem=f"p{problem}",
            origin=Origin(source="test"),
            licence="MIT",
        )
        for problem, size in enumerate(sizes)
        for number in range(size)
    ]


sizes = st.lists(st.integers(1, 5), min_size=1, max_size=6)


@given(sizes, st.integers(0, 40), st.integers(0, 3))
def test_problems_take_turns(problem_sizes: list[int], count: int, seed: int) -> None:
    drawn = draw(tasks_of(problem_sizes), count, seed)
    assert len(drawn) == min(count, sum(problem_sizes))
    taken = Counter(task.problem for task in drawn)
    most = max(taken.values(), default=0)
    for problem, size in enumerate(problem_sizes):
        assert taken[f"p{problem}"] >= min(size, most - 1)


@given(sizes, st.integers(0, 10), st.integers(0, 10), st.integers(0, 3))
def test_a_larger_draw_begins_with_a_smaller_one_whatever_the_order_given(
    problem_sizes: list[int], small: int, more: int, seed: int
) -> None:
    tasks = tasks_of(problem_sizes)
    assert draw(tasks, small + more, seed)[:small] == draw(tasks[::-1], small, seed)


def test_another_seed_draws_others_and_none_draws_all() -> None:
    tasks = tasks_of([5] * 6)
    assert draw(tasks, 10, 0) != draw(tasks, 10, 1)
    assert sorted(task.task_id for task in draw(tasks, None, 0)) == sorted(task.task_id for task in tasks)


def test_the_sides_of_a_pair_are_drawn_together() -> None:
    tasks = [
        one.model_copy(update={"origin": Origin(source="test", detail={"pair": f"{place // 2}"})})
        for place, one in enumerate(tasks_of([8, 8, 8]))
    ]
    drawn = draw(tasks, 12, seed=1)
    assert set(Counter(task.origin.detail["pair"] for task in drawn).values()) == {2}
