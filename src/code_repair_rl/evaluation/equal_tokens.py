"""An agent against single answers at equal sampled tokens: is it the feedback that helps, or only the second chance?

The rival has everything that the agent has but its memory: it draws independent answers to the bare task, stops at the
first that holds up by all that may be seen (it changes the code, and the visible tests pass), and has as many answers
as cost it, on average over all tasks, the tokens that the agent drew.

From n recorded answers of a task, s of them holding up and c of those passing, what the rival does with at most m is
known exactly as the mean over all orders in which they could have come: it passes with probability c/s (1 - C(n-s, m) /
C(n, m)), and looks at an answer as its j-th where the j - 1 before it do not hold up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation.estimates import Estimate, difference, rate
from code_repair_rl.evaluation.result import EvalResult, SampleResult
from code_repair_rl.grading import Outcome

ENOUGH = 0.98
"""Of the agent's tokens: with less, the recorded single answers are too few to spend as much."""


@dataclass(frozen=True, slots=True)
class EqualTokens:
    """What was found; rates are over attempts, intervals clustered by problem."""

    answers: float
    """The rival's limit, m, as a mean: a mixture of two whole numbers that meets the agent's tokens."""
    tokens: float
    """Per attempt, of the agent and of the rival alike (less where even all recorded answers cost less)."""
    agent_tokens: float
    agent: Estimate
    rival: Estimate
    difference: Estimate
    """Agent minus rival, of the same tasks."""
    best_of: Estimate
    """Of the rival, were it to know the hidden tests (pass@m): what nobody could reach by choosing better."""
    apart: tuple[float, ...] = ()
    """Agent minus rival, of each task that has a verdict on both sides, in order."""


def at_equal_tokens(agent: EvalResult, single: EvalResult) -> EqualTokens:
    """Compare an agent's evaluation with single answers of the same model to the same tasks.

    Raises:
        BadInput: the two are not of the same tasks, or not an agent and single answers, or the single answers were
            recorded before it was noted which of them hold up.
    """
    _require(agent, single)
    tasks = [
        (task.problem, _known(task.samples), _known(other.samples))
        for task, other in zip(agent.tasks, single.tasks, strict=True)
    ]
    tasks = [(problem, one, other) for problem, one, other in tasks if one and other]
    if not tasks:
        raise BadInput("no task has a verdict on both sides", where=f"{agent.name}, {single.name}")
    agent_tokens = _mean([_mean([sample.tokens for sample in one]) for _, one, _ in tasks])
    most = max(len(other) for _, _, other in tasks)
    costs = [0.0, *(_mean([_tokens(other, m) for _, _, other in tasks]) for m in range(1, most + 1))]
    lower, share = _limit(costs, agent_tokens)
    mixture = [(m, weight) for m, weight in ((lower, 1.0 - share), (lower + 1, share)) if weight > 0]
    problems = [problem for problem, _, _ in tasks]
    mine = [_mean([sample.passed for sample in one]) for _, one, _ in tasks]
    theirs = [sum(weight * _passes(other, m) for m, weight in mixture) for _, _, other in tasks]
    apart = [a - b for a, b in zip(mine, theirs, strict=True)]
    best = [sum(weight * _any_passes(other, m) for m, weight in mixture) for _, _, other in tasks]
    return EqualTokens(
        answers=sum(m * weight for m, weight in mixture),
        tokens=sum(costs[m] * weight for m, weight in mixture),
        agent_tokens=agent_tokens,
        agent=rate(mine, problems),
        rival=rate(theirs, problems),
        difference=difference(apart, problems),
        best_of=rate(best, problems),
        apart=tuple(apart),
    )


def sentence(found: EqualTokens) -> str:
    """What was found, in words."""
    apart = found.difference
    missing = "" if found.tokens >= ENOUGH * found.agent_tokens else " (more single answers are needed to match them)"
    return (
        f"At {found.tokens:.0f} sampled tokens per attempt{missing}: {100 * found.agent.value:.1f} % with the agent, "
        f"{100 * found.rival.value:.1f} % with up to {found.answers:.1f} single answers that the visible tests choose "
        f"among; difference {100 * apart.value:+.1f} points ({100 * apart.low:+.1f} to {100 * apart.high:+.1f})."
    )


def _limit(costs: Sequence[float], budget: float) -> tuple[int, float]:
    """The whole number of answers that the budget pays for, and the share of attempts that may have one more."""
    last = len(costs) - 1
    lower = max(m for m in range(len(costs)) if costs[m] <= budget)
    if lower == last:
        return last, 0.0
    return lower, (budget - costs[lower]) / (costs[lower + 1] - costs[lower])


def _passes(samples: Sequence[SampleResult], m: int) -> float:
    """The chance that the first answer that holds up is among `m` (or all there are), and passes."""
    m = min(m, len(samples))
    held = sum(_held(sample) for sample in samples)
    if m == 0 or held == 0:
        return 0.0
    return sum(sample.passed for sample in samples) / held * _any(len(samples), held, m)


def _any_passes(samples: Sequence[SampleResult], m: int) -> float:
    return _any(len(samples), sum(sample.passed for sample in samples), min(m, len(samples)))


def _any(n: int, wanted: int, m: int) -> float:
    """The chance that `m` of `n` hold at least one of the `wanted`."""
    return 1.0 - math.comb(n - wanted, m) / math.comb(n, m)


def _tokens(samples: Sequence[SampleResult], m: int) -> float:
    """Tokens that at most `m` answers cost, on average over all orders."""
    n, held = len(samples), sum(_held(sample) for sample in samples)
    m = min(m, n)

    def looked_at(sample: SampleResult) -> float:
        others_held = held - _held(sample)
        return sum(math.comb(n - 1 - others_held, j) / math.comb(n - 1, j) for j in range(m)) / n

    return sum(sample.tokens * looked_at(sample) for sample in samples)


def _held(sample: SampleResult) -> bool:
    """Whether an answer holds up; older evaluations said so of code that does not compile, too."""
    return bool(sample.holds_up) and sample.outcome != Outcome.SYNTAX_ERROR


def _known(samples: Sequence[SampleResult]) -> list[SampleResult]:
    return [sample for sample in samples if sample.verdict]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def can_be_compared(agent: EvalResult, single: EvalResult) -> bool:
    """Whether `at_equal_tokens` takes the two."""
    try:
        _require(agent, single)
    except BadInput:
        return False
    return True


def _require(agent: EvalResult, single: EvalResult) -> None:
    if not agent.agent or single.agent:
        raise BadInput(
            "an agent's evaluation is compared with one of single answers", where=f"{agent.name}, {single.name}"
        )
    differing = [
        name for name in ("tasks_sha256", "temperature", "hint") if getattr(agent, name) != getattr(single, name)
    ]
    if differing:
        raise BadInput(
            f"{agent.name} and {single.name} were not asked the same: they differ in {', '.join(differing)}",
            mend="use the same tasks, temperature and hint",
        )
    if any(sample.holds_up is None for task in single.tasks for sample in task.samples):
        raise BadInput(
            "it was not noted which answers the visible tests let pass", where=single.name, mend="evaluate it anew"
        )
