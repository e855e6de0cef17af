"""One rollout as one row: its dataclass, its Parquet schema, and reading and writing tables of them."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from code_repair_rl.errors import BadInput
from code_repair_rl.home import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 4
"""Written into every file's metadata under `crrl_schema_version`; raised when columns are added or change their
meaning. Version 1 had no `turns`, version 2 nothing of `opening`, `ending_note` and `agent_counts`, version 3 neither
`finish_reason` nor `weights_version` of a turn."""

READABLE_VERSIONS = ("1", "2", "3", "4")

_VERSION_KEY = b"crrl_schema_version"
_MAPS = ("reward_terms", "files_before", "files_after", "agent_counts")


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRecord:
    """One test of a rollout's verdict, as it is stored and shown."""

    __test__ = False  # a name that pytest would collect

    name: str
    status: str
    """`passed`, `failed` or `missing`."""
    visible: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call of a tool that a model asked for."""

    name: str
    arguments: str
    """As the model wrote them: mostly JSON, not always valid."""
    call_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message of a conversation that went on after the prompt: what the model said, or what it was told."""

    role: str
    """`assistant` for what was sampled; `user` or `tool` for what the environment answered."""
    text: str
    start: int
    """The turn is `token_ids[start:end]` of its row; only an assistant's tokens were sampled and are trained on."""
    end: int
    tool_calls: tuple[ToolCall, ...] = ()
    """What an assistant's turn asked for."""
    call_id: str = ""
    """Which call a tool's turn answers."""
    finish_reason: str = ""
    """`stop` or `length`, of an assistant's turn; empty in files written before it was recorded."""
    weights_version: int = 0
    """Of an assistant's turn: how often the policy had been updated when it was sampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRow:
    """One sampled completion with everything that was made of it.

    Plain data only (enums as their values), so that this room needs no other.
    """

    step: int
    """Training step (from 1); 0 in an evaluation."""
    task_id: str
    problem: str
    """What clusters go by."""
    split: str
    group: int
    """Which group of the step; rows of one group share their prompt."""
    sample: int
    """Index within the group, from 0."""
    hint: str
    prompt: str
    """The prompt's text as the model saw it."""
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Log-probability of each token of `token_ids`, under the distribution it was drawn from."""
    text: str
    finish_reason: str
    """`stop` or `length`."""
    outcome: str
    passed: bool
    score: float | None
    """None: no verdict. Such a row leaves every statistic and is counted."""
    reward: float | None = None
    """Weighted total of the terms; None where there is no verdict, or no reward was asked for."""
    reward_terms: Mapping[str, float] = field(default_factory=dict)
    """Term name to its value before weighting."""
    advantage: float | None = None
    tests: tuple[TestRecord, ...] = ()
    edit_error: str | None = None
    tolerance: str | None = None
    evidence: tuple[str, ...] = ()
    wall_seconds: float = 0.0
    """Grading time in the sandbox."""
    isolation: str = "none"
    patch: str | None = None
    """Canonical text of the edit that was read from the answer; None where none could be read."""
    files_before: Mapping[str, str] = field(default_factory=dict)
    """The files that matter for showing this answer, before the edit."""
    files_after: Mapping[str, str] = field(default_factory=dict)
    """The same files after the edit; empty where it did not apply."""
    operator: str = ""
    """What made the task (mutation operator), for breakdowns; empty where unknown."""
    turns: tuple[Turn, ...] | None = None
    """The conversation after the prompt, in order, where it had more than one answer (`token_ids` then holds all of
    it, and `logprobs` 0 for tokens that were not sampled); None for a single answer."""

    ending: str | None = None
    """How an agent's attempt ended (`finished`, `out-of-turns` …); None where nobody but the model was asked."""
    ending_note: str = ""
    """What led to the ending, for people: what was not taken of an agent's changes, its last output, the error."""
    agent_counts: Mapping[str, int] = field(default_factory=dict)
    """Of an agent's attempt: `forks`, `rewrites`, `broken_tool_calls` (see `rollouts.episode.Episode`)."""
    opening: str | None = None
    """What an agent's program asked first, in its own words: a JSON object of `messages` and `tools`, as the chat API
    has them. None where the prompt is the task's."""
    sampled: tuple[bool, ...] = ()
    """For each token of `token_ids` whether the model drew it (the others came from the environment, and carry no
    loss); empty: all were drawn."""

    @property
    def key(self) -> str:
        """A short name that is unique within a run's training rollouts: `step/group/sample`."""
        return f"{self.step}/{self.group}/{self.sample}"

    @property
    def sampled_tokens(self) -> int:
        """How many of the tokens the model drew."""
        return sum(self.sampled) if self.sampled else len(self.token_ids)

    @property
    def uncut(self) -> tuple[bool, ...]:
        """For each token of `token_ids` whether the model drew it, in an answer that was not cut off by the limit."""
        drawn = self.sampled or (True,) * len(self.token_ids)
        cut = [
            (turn.start, turn.end)
            for turn in self.turns or ()
            if turn.role == "assistant" and (turn.finish_reason or self.finish_reason) != "stop"
        ]
        if self.turns is None and self.finish_reason != "stop":
            cut = [(0, len(drawn))]
        return tuple(mark and not any(a <= place < b for a, b in cut) for place, mark in enumerate(drawn))


@functools.cache
def schema() -> pa.Schema:
    """The Parquet schema, in the order of `RolloutRow`'s fields.

    `tests` and `turns` are JSON lists of objects; `reward_terms`, `files_before`, `files_after` and `agent_counts` are
    maps.
    """
    import pyarrow as pa

    text, ids = pa.string(), pa.list_(pa.int32())
    columns: dict[str, pa.DataType] = {
        "step": pa.int32(),
        "task_id": text,
        "problem": text,
        "split": text,
        "group": pa.int32(),
        "sample": pa.int32(),
        "hint": text,
        "prompt": text,
        "prompt_ids": ids,
        "token_ids": ids,
        "logprobs": pa.list_(pa.float32()),
        "text": text,
        "finish_reason": text,
        "outcome": text,
        "passed": pa.bool_(),
        "score": pa.float64(),
        "reward": pa.float64(),
        "reward_terms": pa.map_(text, pa.float64()),
        "advantage": pa.float64(),
        "tests": text,
        "edit_error": text,
        "tolerance": text,
        "evidence": pa.list_(text),
        "wall_seconds": pa.float64(),
        "isolation": text,
        "patch": text,
        "files_before": pa.map_(text, text),
        "files_after": pa.map_(text, text),
        "operator": text,
        "turns": text,
        "ending": text,
        "ending_note": text,
        "agent_counts": pa.map_(text, pa.int32()),
        "opening": text,
        "sampled": pa.list_(pa.bool_()),
    }
    nullable = {"score", "reward", "advantage", "edit_error", "tolerance", "patch", "turns", "ending", "opening"}
    fields = [pa.field(name, kind, nullable=name in nullable) for name, kind in columns.items()]
    return pa.schema(fields, metadata={_VERSION_KEY: str(SCHEMA_VERSION).encode()})


def write_rows(path: Path, rows: Sequence[RolloutRow]) -> None:
    """Write `rows` to `path` as Parquet (zstd), whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([_to_plain(row) for row in rows], schema=schema())
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())


def read_rows(path: Path) -> list[RolloutRow]:
    """The rows of one file.

    Raises:
        BadInput: absent, damaged, or not written by a version whose schema we know.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise BadInput("there is no such rollout file", where=str(path))
    try:
        # Read from memory: a file handle of pyarrow's own would treat `step-…` as a partition to be guessed.
        table = pq.read_table(io.BytesIO(path.read_bytes()))
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(
            f"damaged rollout file ({error})", where=str(path), mend="delete it and resume the run"
        ) from error
    version = (table.schema.metadata or {}).get(_VERSION_KEY, b"?").decode()
    if version not in READABLE_VERSIONS:
        raise BadInput(
            f"rollout schema version {version}, but this program reads {' and '.join(READABLE_VERSIONS)}",
            where=str(path),
            mend="read it with the version of code-repair-rl that wrote it",
        )
    return [_from_plain(plain) for plain in table.to_pylist()]


def _to_plain(row: RolloutRow) -> dict[str, Any]:
    plain = {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}
    plain["tests"] = json.dumps([dataclasses.asdict(test) for test in row.tests], ensure_ascii=False)
    if row.turns is not None:
        plain["turns"] = json.dumps([dataclasses.asdict(turn) for turn in row.turns], ensure_ascii=False)
    for name in _MAPS:
        plain[name] = list(plain[name].items())
    # Lone surrogates cannot be stored as UTF-8; a model's bytes can decode to them.
    return {name: _storable(value) for name, value in plain.items()}


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, (list, tuple)) and value and not isinstance(value[0], (int, float)):
        return [tuple(map(_storable, item)) if isinstance(item, tuple) else _storable(item) for item in value]
    return value


def _from_plain(plain: dict[str, Any]) -> RolloutRow:
    plain["tests"] = tuple(TestRecord(**test) for test in json.loads(plain["tests"]))
    if plain.get("turns") is not None:
        plain["turns"] = tuple(_turn(turn) for turn in json.loads(plain["turns"]))
    plain.setdefault("sampled", ())  # files written before there were answers of several turns
    for name in ("prompt_ids", "token_ids", "logprobs", "evidence", "sampled"):
        plain[name] = tuple(plain[name])
    plain.setdefault("agent_counts", {})
    for name in _MAPS:
        plain[name] = dict(plain[name])
    return RolloutRow(**plain)


def _turn(plain: dict[str, Any]) -> Turn:
    return Turn(**(plain | {"tool_calls": tuple(ToolCall(**call) for call in plain["tool_calls"])}))


def count_no_verdict(rows: Iterable[RolloutRow]) -> int:
    """How many rows have no verdict."""
    return sum(row.score is None for row in rows)
