"""The order in which tasks are asked: one shuffled pass after the other, the same for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from code_repair_rl.errors import BadInput
from code_repair_rl.tasks import Task


class TaskStream:
    """An endless, reproducible stream of training tasks.

    Each pass over the tasks is a permutation drawn from the seed and the number of the pass. A task whose last measured
    pass rate lies outside `difficulty` is passed over while a pass still has others (curriculum by measured pass rate):
    what is always or never solved teaches nothing.

    Args:
        tasks: at least one.
        seed: of the permutations.
        difficulty: the lowest and the highest pass rate that is still asked again, both included.
        shuffled: whether a pass is a permutation; if not, every pass goes through the tasks in the order given.

    Raises:
        BadInput: no tasks.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        seed: int,
        difficulty: tuple[float, float] = (0.0, 1.0),
        *,
        shuffled: bool = True,
    ) -> None:
        if not tasks:
            raise BadInput(
                "there is no task to train on", mend="build the set, or raise tasks.limit or tasks.max_prompt_tokens"
            )
        self._tasks = tuple(tasks)
        self._seed = seed
        self._difficulty = difficulty
        self._shuffled = shuffled
        self._position = 0
        self._pass_rates: dict[str, float] = {}
        self._epoch_order: tuple[int, list[int]] | None = None

    def take(self, count: int) -> list[Task]:
        """The next `count` tasks."""
        return [self._next() for _ in range(count)]

    def observe(self, task_id: str, pass_rate: float) -> None:
        """Note the pass rate just measured on a task."""
        self._pass_rates[task_id] = pass_rate

    def state(self) -> str:
        """All that is needed to go on from here, as JSON."""
        return json.dumps({"position": self._position, "pass_rates": self._pass_rates}, sort_keys=True)

    def restore(self, state: str) -> None:
        """Go on from where `state` was taken."""
        data = json.loads(state)
        self._position, self._pass_rates = int(data["position"]), dict(data["pass_rates"])

    def _next(self) -> Task:
        for _ in range(len(self._tasks)):
            task = self._at(self._position)
            self._position += 1
            low, high = self._difficulty
            if low <= self._pass_rates.get(task.task_id, low) <= high:
                return task
        task = self._at(self._position)  # a whole pass had nothing in bounds: take what comes
        self._position += 1
        return task

    def _at(self, position: int) -> Task:
        epoch, place = divmod(position, len(self._tasks))
        return self._tasks[self._order(epoch)[place]]

    def _order(self, epoch: int) -> list[int]:
        if self._epoch_order is None or self._epoch_order[0] != epoch:
            order = list(range(len(self._tasks)))
            if self._shuffled:
                random.Random(f"{self._seed}/{epoch}").shuffle(order)
            self._epoch_order = (epoch, order)
        return self._epoch_order[1]
