"""What a comparison could show, told before it is made: from one evaluation, or from assumptions.

The difference of a task is (answers that pass after - before) / samples. Its variance has two parts: the drawing of
answers, E[p(1-p)] / samples on either side, independent between tasks; and how much the true gain differs from problem
to problem, which all tasks of a problem share. So a larger set of the same problems, or more samples, removes the
first part only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from code_repair_rl.evaluation.comparison import POWER, detection_power, smallest_detectable
from code_repair_rl.evaluation.estimates import bell_mccaffrey
from code_repair_rl.evaluation.result import EvalResult

GAIN_SPREAD = 0.15
"""Standard deviation, between problems, of the true gain, where no comparison is at hand to tell it: an assumption.
`docs/results/cpu-hour-seed*.json` show 0.09 to 0.16 from SFT to GRPO over 35 problems, 0.12 in the middle."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a paired comparison of pass@1 on a set of tasks could show."""

    tasks: int
    problems: int
    samples: int
    standard_error: float
    df: float
    smallest_detectable: float
    """The true difference that is found in 80 % of the repeats."""

    def power(self, true_difference: float) -> float:
        """The probability of finding a true difference."""
        return detection_power(true_difference, self.standard_error, self.df)


def plan(problems: Sequence[str], samples: int, answer_variance: float, gain_spread: float = GAIN_SPREAD) -> Plan:
    """Plan a comparison.

    Args:
        problems: of each task.
        samples: answers per task, on either side.
        answer_variance: mean over tasks of p(1-p), of one model (at most 1/4).
        gain_spread: standard deviation, between problems, of the true gain.

    Raises:
        ValueError: fewer than two problems.
    """
    sizes = np.array(list(Counter(problems).values()), dtype=np.float64)
    if len(sizes) < 2:
        raise ValueError("a comparison needs at least two problems")
    total = sizes.sum()
    per_task = 2 * answer_variance / samples
    variance = float((sizes**2 * gain_spread**2 + sizes * per_task).sum() / total**2)
    error, df = math.sqrt(variance), bell_mccaffrey(sizes / total)
    return Plan(
        tasks=int(total),
        problems=len(sizes),
        samples=samples,
        standard_error=error,
        df=df,
        smallest_detectable=smallest_detectable(error, df, POWER),
    )


def plan_from(result: EvalResult, gain_spread: float = GAIN_SPREAD) -> Plan | None:
    """What comparing another model with this one, on the same tasks and with as many answers, could show.

    None where it cannot be told: fewer than two problems, or not two verdicts on any task.
    """
    known = [task for task in result.tasks if task.graded >= 2]
    if not known or len({task.problem for task in result.tasks}) < 2:
        return None
    # c (n - c) / (n (n - 1)) is unbiased for p (1 - p).
    unbiased = [t.passed * (t.graded - t.passed) / (t.graded * (t.graded - 1)) for t in known]
    return plan([t.problem for t in result.tasks], result.samples, sum(unbiased) / len(unbiased), gain_spread)


def planning_line(found: Plan) -> str:
    """The plan in one sentence."""
    return (
        f"On these {found.tasks} tasks of {found.problems} problems, {found.samples} answers each, a comparison would"
        f" find a true difference of {100 * found.smallest_detectable:.1f} points in 80 % of its repeats"
        f" (one of 10 points in {100 * found.power(0.1):.0f} %)."
    )


def signal_line(result: EvalResult) -> str | None:
    """How many of the tasks would teach a policy something: groups in which every answer fares alike do not.

    None where no task has two verdicts.
    """
    known = [task for task in result.tasks if task.graded >= 2]
    if not known:
        return None
    never = sum(task.passed == 0 for task in known)
    always = sum(task.passed == task.graded for task in known)
    sometimes = len(known) - never - always
    return (
        f"{sometimes} of {len(known)} tasks ({100 * sometimes / len(known):.0f} %) were solved by some of their"
        f" {result.samples} answers and not by others, {never} by none, {always} by all: only the first teach in GRPO."
    )
