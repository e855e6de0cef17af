"""Which tasks of a set, when not all are wanted: the same for the same seed, spread over the problems."""

from __future__ import annotations

import random
from collections.abc import Sequence

from code_repair_rl.tasks.task import Task


def draw(tasks: Sequence[Task], count: int | None, seed: int) -> list[Task]:
    """`count` of the tasks (all, where `count` is None or larger), in the order of a draw by `seed`.

    Problems take turns, because tasks of one problem are not independent: many problems with few tasks each say more
    than few with many. A larger count begins with the tasks of a smaller one.
    The sides of a pair are drawn together.
    """
    rng = random.Random(f"draw/{seed}")
    by_problem: dict[str, dict[str, list[Task]]] = {}
    for task in sorted(tasks, key=lambda task: task.task_id):
        together = str(task.origin.detail.get("pair", f"\0{task.task_id}"))
        by_problem.setdefault(task.problem, {}).setdefault(together, []).append(task)
    piles = [list(by_problem[problem].values()) for problem in sorted(by_problem)]
    rng.shuffle(piles)
    for pile in piles:
        rng.shuffle(pile)
    depth = max(map(len, piles), default=0)
    turns = [task for turn in range(depth) for pile in piles if turn < len(pile) for task in pile[turn]]
    return turns if count is None else turns[:count]
