"""Which tasks of a set, when not all are wanted: the same for the same seed, spread over the problems."""

from __future__ import annotations

import random
from collections.abc import Sequence

from code_repair_rl.tasks.task import Task


def draw(tasks: Sequence[Task], count: int | None, seed: int) -> list[Task]:
    """`count` of the tasks (all, where `count` is None or larger), in the order of a draw by `seed`.

    Problems take turns, because tasks of one problem are not independent: many problems with few tasks each say more
    than few with many. A larger count begins with the tasks of a smaller one.
    """
    rng = random.Random(f"draw/{seed}")
    by_problem: dict[str, list[Task]] = {}
    for task in sorted(tasks, key=lambda task: task.task_id):
        by_problem.setdefault(task.problem, []).append(task)
    piles = [by_problem[problem] for problem in sorted(by_problem)]
    rng.shuffle(piles)
    for pile in piles:
        rng.shuffle(pile)
    depth = max(map(len, piles), default=0)
    turns = [pile[turn] for turn in range(depth) for pile in piles if turn < len(pile)]
    return turns if count is None else turns[:count]
