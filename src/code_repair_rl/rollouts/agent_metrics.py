"""What agents did, in figures: turns, endings, edits that could be read, tools."""

from __future__ import annotations

from collections.abc import Sequence

from code_repair_rl.edits import holds_an_edit
from code_repair_rl.rollouts.episode import Episode
from code_repair_rl.runs import RolloutRow


def answers_of(row: RolloutRow) -> tuple[str, ...]:
    """The texts of a row's answers, in order."""
    if row.turns is None:
        return (row.text,)
    return tuple(turn.text for turn in row.turns if turn.role == "assistant")


def attempt_terms(episode: Episode, max_turns: int) -> dict[str, float]:
    """Terms of a reward that look at how an attempt was made, each in [0, 1].

    `turns` is 1 for a single answer and 0 for as many as were allowed. `habits` is the mean share, over the answers, of
    those that could be read (a tool call, or without tools an edit) and of those that did not repeat an earlier one.
    """
    count = len(episode.turns)
    if count == 0:
        return {"turns": 0.0, "habits": 0.0}
    if episode.tools:
        readable = 1.0 - min(episode.broken_tool_calls, count) / count
    else:
        readable = sum(holds_an_edit(turn.text) for turn in episode.turns) / count
    fresh = len({turn.text.strip() for turn in episode.turns}) / count
    spent = (count - 1) / (max_turns - 1) if max_turns > 1 else 0.0
    return {"turns": 1.0 - min(1.0, spent), "habits": (readable + fresh) / 2}


def agent_metrics(rows: Sequence[RolloutRow]) -> dict[str, float]:
    """Figures of the rows that an agent left, by name; empty where there are none.

    `agent/pass_within_K` is the share of attempts, of those with a verdict, that passed with at most K answers.
    """
    rows = [row for row in rows if row.ending is not None]
    if not rows:
        return {}
    counts = [len(answers_of(row)) for row in rows]
    known = [(row.passed, count) for row, count in zip(rows, counts, strict=True) if row.score is not None]
    answers = [text for row in rows for text in answers_of(row)]
    calls = [len(turn.tool_calls) for row in rows for turn in row.turns or ()]
    metrics = {
        "agent/turns": sum(counts) / len(rows),
        "agent/readable_edits": sum(map(holds_an_edit, answers)) / max(len(answers), 1),
        "agent/environment_tokens": sum(len(row.token_ids) - row.sampled_tokens for row in rows) / len(rows),
        "agent/tool_calls": sum(calls) / len(rows),
        **{
            f"agent/{name}": sum(row.agent_counts.get(name, 0) for row in rows) / len(rows)
            for name in ("forks", "rewrites", "broken_tool_calls")
            if any(name in row.agent_counts for row in rows)
        },
    }
    for name in sorted({row.ending for row in rows if row.ending}):
        metrics[f"agent/ending/{name}"] = sum(row.ending == name for row in rows) / len(rows)
    if known:
        for most in range(1, max(counts) + 1):
            within = sum(passed and count <= most for passed, count in known)
            metrics[f"agent/pass_within_{most}"] = within / len(known)
    return metrics
