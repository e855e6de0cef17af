"""Another chance for attempts that say nothing of the policy: those that our own machinery lost, or could not judge."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from code_repair_rl.errors import MachineryFailed
from code_repair_rl.rollouts.ask import Answer, row_of, verdict_columns
from code_repair_rl.rollouts.episode import Ending
from code_repair_rl.runs import RolloutRow
from code_repair_rl.tasks import Task

if TYPE_CHECKING:
    from code_repair_rl.grading import Grader, Verdict

Attempt = Callable[[Sequence[Task], int, str], Sequence[Sequence[Answer]]]
"""Attempts tasks so many times each, and grades what comes of it; the text tells this chance from every other, and
belongs into the seed."""


def another_chance(
    rows: Sequence[RolloutRow], tasks: Mapping[str, Task], grader: Grader, attempt: Attempt
) -> list[RolloutRow]:
    """Recorded rows, those without a verdict replaced: answers are judged again, lost attempts are made again.

    Args:
        rows: of one batch.
        tasks: by id.
        grader: judges.
        attempt: makes the attempts that were lost; not called where none was.
    """
    found = list(rows)
    unjudged = [n for n, row in enumerate(found) if row.score is None and row.ending != Ending.INFRASTRUCTURE]
    if unjudged:
        verdicts = grader.grade_many([(tasks[found[n].task_id], found[n].text) for n in unjudged])
        for place, verdict in zip(unjudged, verdicts, strict=True):
            found[place] = with_verdict(found[place], verdict)
    lost: dict[str, list[int]] = {}
    for place, row in enumerate(found):
        if row.ending == Ending.INFRASTRUCTURE:
            lost.setdefault(row.task_id, []).append(place)
    which = " ".join(found[place].key for places in lost.values() for place in places)
    for count in sorted({len(places) for places in lost.values()}):
        asked = [task_id for task_id, places in lost.items() if len(places) == count]
        for task_id, answers in zip(asked, attempt([tasks[one] for one in asked], count, which), strict=True):
            for place, answer in zip(lost[task_id], answers, strict=True):
                old = found[place]
                found[place] = row_of(
                    answer, step=old.step, group=old.group, sample=old.sample, hint=old.hint, prompt=old.prompt
                )
    return found


def with_verdict(row: RolloutRow, verdict: Verdict) -> RolloutRow:
    """The same answer under another verdict; everything sampled stays as it is."""
    return dataclasses.replace(row, **verdict_columns(verdict))


def require_a_verdict(rows: Sequence[RolloutRow], what: str) -> None:
    """Stop where nothing works, before more is spent.

    Raises:
        MachineryFailed: not one of the rows has a verdict; says why most of them have none.
    """
    if not rows or any(row.score is not None for row in rows):
        return
    reasons = Counter((row.ending_note or " ".join(row.evidence)).strip() or row.outcome for row in rows)
    reason, count = reasons.most_common(1)[0]
    raise MachineryFailed(
        f"none of {len(rows)} attempts got a verdict; of {count}: {reason[-600:]}",
        where=what,
        mend="mend that, and run the same command again: what was lost is attempted anew",
    )
