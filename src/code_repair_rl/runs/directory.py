"""The run directory: its layout in one class, every write atomic or append-only.

RUN/recipe.yaml                      the resolved recipe
RUN/environment.json                 one entry for each time the run was started or resumed
RUN/metrics.jsonl                    one object a line
RUN/rollouts/step-000012.parquet     every completion of a step
RUN/checkpoints/step-000012/         weights and trainer state, with a manifest
RUN/checkpoints/best.json            which checkpoint validation chose
RUN/eval/NAME.json                   one evaluation
RUN/eval/NAME.samples/*.parquet      its completions
RUN/report.html
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.home import write_atomically
from code_repair_rl.runs.checkpoints import Checkpoint, adopt_checkpoint, folder_name, list_checkpoints, new_checkpoint
from code_repair_rl.runs.differences import changed_keys
from code_repair_rl.runs.environment import describe_environment
from code_repair_rl.runs.metrics import MetricsRow, append_metrics, read_metrics
from code_repair_rl.runs.rows import RolloutRow, read_rows, write_rows

FINISHED = "finished"
"""The status of a run that came to its end."""

_EVAL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_STEP_FILE = re.compile(r"step-(\d{6,})\.parquet")


@dataclass(frozen=True, slots=True)
class RunDir:
    """One run on disk. Make it with `create` or `open`."""

    path: Path

    @classmethod
    def create(cls, path: Path | str, recipe: Mapping[str, Any], *, resume: bool) -> RunDir:
        """Begin a run in `path`, or go on with the one that is there.

        Args:
            path: made if absent.
            recipe: the resolved recipe, plain data; its `seed`, if any, goes into `environment.json`.
            resume: go on where a run is there already (and begin one where there is none). One that came to its end
                gets no new session.

        Raises:
            BadInput: a run is there and `resume` is false; or it was made by another recipe (names the keys); or the
                folder holds something else.
        """
        run = cls(Path(path).absolute())
        text = _recipe_text(recipe)
        if run.recipe_path.exists():
            if not resume:
                raise BadInput("a run is there already", where=str(run.path), mend="resume it, or name another folder")
            changed = changed_keys(run.recipe(), _recipe_from(text, where="recipe"))
            if changed:
                raise BadInput(
                    f"this run was begun with another recipe; changed: {', '.join(changed)}",
                    where=str(run.recipe_path),
                    mend="resume with the recipe it was begun with, or name another folder",
                )
        elif run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
            raise BadInput("is not a run directory and not empty", where=str(run.path), mend="name another folder")
        else:
            try:
                run.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise BadInput(f"cannot be made ({error.strerror})", where=str(run.path)) from error
            write_atomically(run.recipe_path, text)
        sessions = run.environment()
        if not sessions or sessions[-1].get("status") != FINISHED:  # else there is nothing left to do
            seed = recipe.get("seed")
            run._write_sessions([*sessions, describe_environment(seed if isinstance(seed, int) else None)])
        return run

    @classmethod
    def open(cls, path: Path | str) -> RunDir:
        """An existing run, to read.

        Raises:
            BadInput: there is no run.
        """
        run = cls(Path(path).absolute())
        if not run.recipe_path.is_file():
            raise BadInput("is not a run directory (it has no recipe.yaml)", where=str(path))
        return run

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @property
    def recipe_path(self) -> Path:
        """`recipe.yaml`."""
        return self.path / "recipe.yaml"

    @property
    def metrics_path(self) -> Path:
        """`metrics.jsonl`."""
        return self.path / "metrics.jsonl"

    @property
    def report_path(self) -> Path:
        """`report.html`."""
        return self.path / "report.html"

    @property
    def checkpoints_path(self) -> Path:
        """`checkpoints/`."""
        return self.path / "checkpoints"

    def recipe(self) -> dict[str, Any]:
        """The resolved recipe, as plain data."""
        return _recipe_from(_read_text(self.recipe_path), where=str(self.recipe_path))

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the run for one writer, without what a killed one left half written.

        Raises:
            BadInput: another process is writing to it now.
        """
        import filelock

        lock = filelock.FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise BadInput(
                "another process is working on this run", where=str(self.path), mend="wait for it"
            ) from error
        try:
            self._clear_leftovers()
            yield
        finally:
            lock.release()

    def _clear_leftovers(self) -> None:
        """Remove folders that were never finished; give back a model or checkpoint that was just being replaced."""
        for replaced in [*self.path.glob(".model.old.*/was"), *self.checkpoints_path.glob(".step-*.old.*/was")]:
            place = replaced.parent.parent / replaced.parent.name[1:].partition(".old.")[0]
            if not place.exists():
                replaced.replace(place)
        for name in (".checkpoint.*", ".model.*", "checkpoints/.step-*"):
            for leftover in self.path.glob(name):
                shutil.rmtree(leftover, ignore_errors=True)

    # -- environment ---------------------------------------------------------------------------------------------

    def environment(self) -> list[dict[str, Any]]:
        """One entry for each time the run was started, oldest first."""
        path = self.path / "environment.json"
        if not path.exists():
            return []
        sessions = _read_json(path).get("sessions")
        if not isinstance(sessions, list):
            raise BadInput("has no list `sessions`", where=str(path))
        return sessions

    def record_end(self, status: str) -> None:
        """Note how the current session ended (`finished`, `interrupted`, `failed`), unless that is known."""
        sessions = self.environment()
        if sessions and "status" not in sessions[-1]:
            sessions[-1] |= {"ended_unix_seconds": round(time.time(), 3), "status": status}
            self._write_sessions(sessions)

    def _write_sessions(self, sessions: list[dict[str, Any]]) -> None:
        _write_json(self.path / "environment.json", {"schema_version": 1, "sessions": sessions})

    # -- metrics and rollouts ------------------------------------------------------------------------------------

    def append_metrics(self, step: int, values: Mapping[str, float], *, phase: str = "train") -> None:
        """Append one line to `metrics.jsonl`, durably."""
        append_metrics(self.metrics_path, step, values, phase=phase)

    def metrics(self) -> list[MetricsRow]:
        """All metrics in order of step; see `read_metrics`."""
        return read_metrics(self.metrics_path)

    def rollout_path(self, step: int) -> Path:
        """`rollouts/step-NNNNNN.parquet`."""
        return self.path / "rollouts" / f"{folder_name(step)}.parquet"

    def write_rollouts(self, step: int, rows: Sequence[RolloutRow]) -> None:
        """Write the rollouts of one step, whole or not at all; replaces what was there."""
        write_rows(self.rollout_path(step), rows)

    def rollouts(self, step: int) -> list[RolloutRow]:
        """The rollouts of one step.

        Raises:
            BadInput: none were recorded, or the file is damaged.
        """
        return read_rows(self.rollout_path(step))

    def rollout_steps(self) -> list[int]:
        """The steps whose rollouts are recorded, ascending."""
        folder = self.path / "rollouts"
        names = (_STEP_FILE.fullmatch(entry.name) for entry in folder.iterdir()) if folder.is_dir() else ()
        return sorted(int(match[1]) for match in names if match)

    def all_rollouts(self) -> Iterator[RolloutRow]:
        """Every training rollout, step by step."""
        for step in self.rollout_steps():
            yield from self.rollouts(step)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def checkpoint(self, step: int) -> AbstractContextManager[Path]:
        """A scratch folder that becomes `checkpoints/step-NNNNNN` (with its manifest) when the block ends well."""
        return new_checkpoint(self.checkpoints_path, step)

    def adopt_checkpoint(self, step: int, folder: Path) -> Checkpoint:
        """Move a folder that a trainer wrote (on the same disk) to `checkpoints/step-NNNNNN`, adding its manifest."""
        return adopt_checkpoint(self.checkpoints_path, step, folder)

    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints, oldest first, good or damaged."""
        return list_checkpoints(self.checkpoints_path)

    def latest_good_checkpoint(self, warn: Callable[[str], None] | None = None) -> Checkpoint | None:
        """The newest undamaged checkpoint; damaged ones on the way are named to `warn` (standard error) and skipped."""
        tell = warn or (lambda line: print(f"warning: {line}", file=sys.stderr))
        for candidate in reversed(self.checkpoints()):
            damage = candidate.damage()
            if damage is None:
                return candidate
            tell(f"skipping damaged checkpoint {candidate.path}: {damage}")
        return None

    def mark_best(self, step: int, values: Mapping[str, float]) -> None:
        """Say which checkpoint validation chose, and on which figures."""
        _write_json(self.checkpoints_path / "best.json", {"step": step, "values": dict(values)})

    def best_checkpoint(self) -> Checkpoint | None:
        """The checkpoint that validation chose, or None where none was marked.

        Raises:
            BadInput: it is gone or damaged.
        """
        path = self.checkpoints_path / "best.json"
        if not path.exists():
            return None
        step = _read_json(path).get("step")
        if not isinstance(step, int):
            raise BadInput("has no whole number `step`", where=str(path))
        best = Checkpoint(step, self.checkpoints_path / folder_name(step))
        damage = best.damage()
        if damage is not None:
            raise BadInput(f"the best checkpoint is damaged: {damage}", where=str(best.path))
        return best

    def prune_checkpoints(self, keep: int) -> list[int]:
        """Delete all but the newest `keep` checkpoints and the best one; the steps that went."""
        path = self.checkpoints_path / "best.json"
        best = _read_json(path).get("step") if path.exists() else None
        found = self.checkpoints()
        gone = [c for c in found[: max(0, len(found) - keep)] if c.step != best]
        for checkpoint in gone:
            shutil.rmtree(checkpoint.path)
        return [checkpoint.step for checkpoint in gone]

    # -- evaluations ---------------------------------------------------------------------------------------------

    def eval_path(self, name: str) -> Path:
        """`eval/NAME.json`.

        Raises:
            BadInput: the name is not letters, digits, `.`, `_` and `-`.
        """
        if not _EVAL_NAME.fullmatch(name):
            raise BadInput("an evaluation's name is made of letters, digits, `.`, `_` and `-`", where=repr(name))
        return self.path / "eval" / f"{name}.json"

    def eval_samples_path(self, name: str) -> Path:
        """`eval/NAME.samples/`, the folder of its completions."""
        return self.eval_path(name).with_suffix(".samples")

    def write_eval(self, name: str, result: Mapping[str, Any]) -> None:
        """Write `eval/NAME.json`."""
        _write_json(self.eval_path(name), result)

    def adopt_samples(self, name: str, other: RunDir) -> None:
        """Take over the completions of another run's evaluation `name`, so that it is not sampled again here.

        Completions that are here already stay. What they were asked stands beside them, and whoever reads them back
        compares it.

        Raises:
            BadInput: the other run has none.
        """
        theirs, ours = other.eval_samples_path(name), self.eval_samples_path(name)
        if not theirs.is_dir():
            raise BadInput("there are no completions of that evaluation", where=str(theirs), mend="name another run")
        _copy_whole(theirs, ours)

    def adopt_stage(self, name: str, other: RunDir, *, judged: bool = True) -> None:
        """Take over a stage, `NAME/` without its checkpoints, and what its model was found to be, from another run.

        Where it comes from is kept (`adopted`). What is here already stays, so that the next call makes good what one
        left that was cut off.

        Args:
            name: of the stage, and of the evaluation of its model.
            other: the run.
            judged: whether its evaluation is taken over as well.

        Raises:
            BadInput: the other run has not judged it.
        """
        found = other.read_eval(name)
        _write_json(self.path / f"{name}.adopted.json", {"run": str(other.path.resolve())})
        _copy_whole(other.path / name, self.path / name)
        if judged:
            self.adopt_samples(name, other)
            if (labels := other.path / "classification" / f"{name}.json").is_file():
                write_atomically(self.path / "classification" / labels.name, labels.read_bytes())
            self.write_eval(name, found)

    def adopted(self, name: str) -> str | None:
        """The run that this one's stage was taken over from; None where it is its own, or not there."""
        path = self.path / f"{name}.adopted.json"
        return str(_read_json(path)["run"]) if path.is_file() else None

    def read_eval(self, name: str) -> dict[str, Any]:
        """What `eval/NAME.json` holds.

        Raises:
            BadInput: there is no such evaluation (names those there are), or the file is damaged.
        """
        path = self.eval_path(name)
        if not path.is_file():
            there = ", ".join(self.eval_names()) or "none"
            raise BadInput(f"there is no evaluation of that name; there are: {there}", where=str(path))
        return _read_json(path)

    def eval_names(self) -> list[str]:
        """The names of all evaluations, oldest first."""
        paths = sorted((self.path / "eval").glob("*.json"), key=lambda p: (p.stat().st_mtime, p.name))
        return [path.stem for path in paths]


def _recipe_text(recipe: Mapping[str, Any]) -> str:
    import yaml

    try:
        return yaml.safe_dump(_plain(recipe), sort_keys=False, allow_unicode=True)
    except yaml.YAMLError as error:
        raise BadInput(f"the recipe holds something that is not plain data ({error})", where="recipe") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.value if isinstance(value, Enum) else value


def _recipe_from(text: str, *, where: str) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"is not YAML ({error})", where=where) from error
    if not isinstance(found, dict):
        raise BadInput("is not a mapping of keys", where=where)
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot be read ({error})", where=str(path)) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_read_text(path))
    except ValueError as error:
        raise BadInput(f"is not JSON ({error})", where=str(path), mend="delete it and run again") from error
    if not isinstance(found, dict):
        raise BadInput("is not a JSON object", where=str(path))
    return found


_CHECKPOINTS = shutil.ignore_patterns("checkpoints")


def _copy_whole(source: Path, destination: Path) -> None:
    """Copy a folder unless there is one: the whole of it, or nothing."""
    if destination.exists():
        return
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{destination.name}.", dir=destination.parent) as scratch:
        shutil.copytree(source, Path(scratch) / "copied", ignore=_CHECKPOINTS).rename(destination)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    try:
        write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise MachineryFailed(f"cannot be written ({error.strerror or error})", where=str(path)) from error
