"""Rollouts for the viewer: short columns to filter and sort by, and the long rest in chunks that open on demand."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from code_repair_rl.reporting.packing import packed, rounded
from code_repair_rl.reporting.token_text import TokenText
from code_repair_rl.runs import RolloutRow

CHUNK_ROWS = 250
"""Rollouts per chunk: opening one decompresses its chunk, some 100 kB."""

DETAIL_LIMIT = 4_000
"""Characters of one test's failure or one piece of evidence that are shown; the whole is in the Parquet file."""


@dataclass(slots=True)
class _Interned:
    """A list of distinct values, each named by its place."""

    values: list[Any] = field(default_factory=list)
    _places: dict[Any, int] = field(default_factory=dict)

    def place(self, key: Any, value: Any = None) -> int:
        found = self._places.get(key)
        if found is None:
            found = self._places[key] = len(self.values)
            self.values.append(key if value is None else value)
        return found


@dataclass(slots=True)
class _Chunk:
    rows: list[dict[str, Any]] = field(default_factory=list)
    prompts: _Interned = field(default_factory=_Interned)
    trees: _Interned = field(default_factory=_Interned)


class RolloutBook:
    """Collects rollouts, one at a time, holding only compressed chunks and short columns."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        self._names = {name: _Interned() for name in ("source", "task", "problem", "operator", "hint", "outcome")}
        self._chunk = _Chunk()
        self._packed: list[str] = []
        self._operations: dict[tuple[str, str], list[list[Any]]] = {}

    def __len__(self) -> int:
        return len(self._columns["step"])

    def add(self, rows: Iterable[RolloutRow], *, run: int, source: str, token_text: TokenText | None) -> None:
        """Add rollouts of run number `run`; `source` is `train` or an evaluation's name."""
        for row in rows:
            self._add_columns(row, run, source)
            self._chunk.rows.append(self._detail(row, token_text))
            if len(self._chunk.rows) == CHUNK_ROWS:
                self._close_chunk()

    def index(self) -> dict[str, Any]:
        """The columns, with names in place of repeated strings."""
        return {
            "count": len(self),
            "chunkRows": CHUNK_ROWS,
            "columns": self._columns,
            "names": {name: interned.values for name, interned in self._names.items()},
        }

    def chunks(self) -> list[str]:
        """All chunks, packed, in order."""
        if self._chunk.rows:
            self._close_chunk()
        return self._packed

    def _add_columns(self, row: RolloutRow, run: int, source: str) -> None:
        tokens = row.sampled_tokens
        values: dict[str, Any] = {
            "run": run,
            "step": row.step,
            "group": row.group,
            "sample": row.sample,
            "reward": rounded(row.reward),
            "advantage": rounded(row.advantage),
            "tokens": tokens,
            "logprob": rounded(sum(row.logprobs) / tokens, 3) if tokens else None,  # 0 for tokens not sampled
        }
        named = {
            "source": source,
            "task": row.task_id,
            "problem": row.problem,
            "operator": row.operator,
            "hint": row.hint,
            "outcome": row.outcome,
        }
        values |= {name: self._names[name].place(value) for name, value in named.items()}
        for name, column in self._columns.items():
            column.append(values[name])

    def _detail(self, row: RolloutRow, token_text: TokenText | None) -> dict[str, Any]:
        tree = tuple(sorted(row.files_before.items()))
        return {
            "prompt": self._chunk.prompts.place(row.prompt),
            "text": row.text,
            # A conversation's tokens are shaded turn by turn.
            "lengths": token_text.lengths(row.token_ids, row.text) if token_text and row.turns is None else None,
            "logprobs": _hundredths(row.logprobs) if row.turns is None else [],
            "finish": row.finish_reason,
            "tree": self._chunk.trees.place(tree, dict(tree)),
            "edits": self._edits(row.files_before, row.files_after),
            "patch": row.patch if not row.files_after else None,
            "error": row.edit_error,
            "tolerance": row.tolerance,
            "evidence": [_short(line) for line in row.evidence],
            "tests": [[t.name, t.status, t.visible, _short(t.detail)] for t in row.tests],
            "terms": {name: rounded(value) for name, value in row.reward_terms.items()},
            "seconds": rounded(row.wall_seconds, 3),
            "isolation": row.isolation,
            "passed": row.passed,
            "score": row.score,
            "turns": _turns(row, token_text),
            "ending": row.ending,
        }

    def _edits(self, before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, list[list[Any]]] | None:
        """Per changed file the operations that turn it into the file afterwards; None where the edit did not apply."""
        if not after:
            return None
        changed = sorted(path for path in {**before, **after} if before.get(path) != after.get(path))
        return {path: self._line_operations(before.get(path, ""), after.get(path, "")) for path in changed}

    def _line_operations(self, before: str, after: str) -> list[list[Any]]:
        known = self._operations.get((before, after))
        if known is None:
            known = line_operations(before, after)
            self._operations[before, after] = known
        return known

    def _close_chunk(self) -> None:
        chunk = {"rows": self._chunk.rows, "prompts": self._chunk.prompts.values, "trees": self._chunk.trees.values}
        self._packed.append(packed(chunk))
        self._chunk = _Chunk()
        self._operations.clear()


_COLUMNS = (
    "run",
    "source",
    "step",
    "group",
    "sample",
    "task",
    "problem",
    "operator",
    "hint",
    "outcome",
    "reward",
    "advantage",
    "tokens",
    "logprob",
)


def line_operations(before: str, after: str) -> list[list[Any]]:
    """`[[start, end, lines], …]`: lines `start` to `end` (from 0, end excluded) of `before` become `lines`."""
    one, other = before.split("\n"), after.split("\n")
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=len(one) > 2000)
    return [[i1, i2, other[j1:j2]] for tag, i1, i2, j1, j2 in matcher.get_opcodes() if tag != "equal"]


def _turns(row: RolloutRow, token_text: TokenText | None) -> list[dict[str, Any]] | None:
    """Each turn with what its sampled tokens wrote and how likely they were; None for a single answer."""
    if row.turns is None:
        return None
    found = []
    for turn in row.turns:
        said: dict[str, Any] = {
            "role": turn.role,
            "text": _short(turn.text),
            "calls": [[call.name, _short(call.arguments)] for call in turn.tool_calls],
            "tokens": turn.end - turn.start,
        }
        if turn.role == "assistant" and token_text is not None:
            lengths = token_text.lengths(row.token_ids[turn.start : turn.end], turn.text)
            if lengths is not None and said["text"] == turn.text:
                said |= {"lengths": lengths, "logprobs": _hundredths(row.logprobs[turn.start : turn.end])}
        found.append(said)
    return found


def _hundredths(logprobs: Sequence[float]) -> list[int | None]:
    """Log-probabilities in hundredths, which are enough to shade by; a remote model's may be unknown."""
    return [round(100 * value) if isfinite(value) else None for value in logprobs]


def _short(text: str) -> str:
    return text if len(text) <= DETAIL_LIMIT else text[:DETAIL_LIMIT] + f" … ({len(text) - DETAIL_LIMIT} more)"
