"""`metrics.jsonl`: one JSON object a line, appended durably, read back past a torn end."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from code_repair_rl.errors import BadInput

STEP_SECONDS = "time/step_seconds"
"""The metric by which a run says that an optimiser step is done, and how long it took; it adds up to a run's training
time, over kills and resumes."""


@dataclass(frozen=True, slots=True)
class MetricsRow:
    """Everything that was reported for one step in one phase; of a value reported twice, the later."""

    step: int
    phase: str
    unix_seconds: float
    """Wall clock of the last report, seconds since 1970."""
    values: Mapping[str, float]


def append_metrics(path: Path, step: int, values: Mapping[str, float], *, phase: str) -> None:
    """Append one line and force it to disk.

    Values that are not finite are stored as null: JSON has no word for them. A torn last line, left by a kill, is cut
    off first.
    """
    line = json.dumps(
        {
            "step": step,
            "phase": phase,
            "unix_seconds": round(time.time(), 3),
            "values": {name: float(value) if math.isfinite(value) else None for name, value in values.items()},
        }
    )
    with path.open("a+b") as file:
        _cut_torn_end(file.fileno())
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _cut_torn_end(handle: int) -> None:
    end = os.fstat(handle).st_size
    position = end
    while position > 0:
        start = max(0, position - 4096)
        block = os.pread(handle, position - start, start)
        newline = block.rfind(b"\n")
        if newline >= 0:
            position = start + newline + 1
            break
        position = start
    if position < end:
        os.ftruncate(handle, position)


def read_metrics(path: Path) -> list[MetricsRow]:
    """All rows in order of step; reports of one step and phase are merged, the later value wins.

    A run that was killed and resumed reports some steps twice; the merge keeps what the resumed run said.

    Raises:
        BadInput: a line other than a torn last one is not what we wrote; names file and line.
    """
    merged: dict[tuple[int, str], MetricsRow] = {}
    for row in _reports(path):
        earlier = merged.get((row.step, row.phase))
        values = {**earlier.values, **row.values} if earlier else row.values
        merged[row.step, row.phase] = MetricsRow(row.step, row.phase, row.unix_seconds, values)
    return sorted(merged.values(), key=lambda row: row.step)


def training_seconds(rows: Iterable[MetricsRow], until_step: int | None = None) -> float:
    """How long the recorded optimiser steps took together, sampling and grading included."""
    return sum(row.values.get(STEP_SECONDS, 0.0) for row in rows if until_step is None or row.step <= until_step)


def report_times(path: Path) -> list[float]:
    """When each report was made, seconds since 1970, in order of the file: those that a resumed run made again, too.

    Raises:
        BadInput: as for `read_metrics`.
    """
    return [row.unix_seconds for row in _reports(path)]


def _reports(path: Path) -> Iterator[MetricsRow]:
    if not path.exists():
        return
    *whole, _torn = path.read_bytes().split(b"\n")
    for number, raw in enumerate(whole, start=1):
        yield _read_line(raw, where=f"{path}:{number}")


def _read_line(raw: bytes, *, where: str) -> MetricsRow:
    try:
        found = json.loads(raw)
        values = {str(k): math.nan if v is None else float(v) for k, v in found["values"].items()}
        return MetricsRow(int(found["step"]), str(found["phase"]), float(found["unix_seconds"]), values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"not a metrics line ({type(error).__name__}: {error})", where=where, mend="delete the line"
        ) from error
