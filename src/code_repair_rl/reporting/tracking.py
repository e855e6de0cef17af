"""Experiment trackers as run listeners: Weights & Biases, and trackio as the local alternative.

Neither is imported, and nothing is sent, unless a recipe asks for it. A resumed run goes on under the same id, which is
kept in the run directory (`tracking.json`).
"""

from __future__ import annotations

import difflib
import html
import json
import math
import os
import statistics
import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from code_repair_rl.errors import BadInput
from code_repair_rl.home import write_atomically
from code_repair_rl.runs import FINISHED, RolloutRow, RunDir, SilentListener

TABLE_ROWS = 64
"""Completions per step that go into the tracker's table; all of them are in the run directory."""

TABLE_COLUMNS = (
    "task",
    "group",
    "sample",
    "outcome",
    "reward",
    "advantage",
    "tokens",
    "turns",
    "tool_calls",
    "diff",
    "answer",
    "failures",
)
"""Followed by one column for each term of the reward, `reward/NAME`, before weighting."""

GROUP_OF_THE_REST = "rollouts"
"""The group of metrics whose name has none."""


def rollout_figures(rows: Sequence[RolloutRow]) -> dict[str, float]:
    """What a tracker is told of one step's rollouts besides the run's own metrics, names in groups."""
    seconds = sorted(row.wall_seconds for row in rows if row.score is not None)
    groups: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row.reward is not None:
            groups[row.group].append(row.reward)
    figures = {f"outcomes/{name}": float(count) for name, count in Counter(row.outcome for row in rows).items()}
    figures |= tool_figures(rows)
    if rows:
        figures["rates/no_verdict"] = sum(row.score is None for row in rows) / len(rows)
    if groups:
        flat = [max(rewards) - min(rewards) < 1e-9 for rewards in groups.values()]
        figures["groups/without_variance"] = sum(flat) / len(flat)
        figures["groups/reward_std"] = statistics.fmean(statistics.pstdev(rewards) for rewards in groups.values())
    if seconds:
        figures["sandbox/seconds_p50"] = seconds[len(seconds) // 2]
        figures["sandbox/seconds_p95"] = seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))]
        figures["sandbox/seconds_max"] = seconds[-1]
    return figures


def tool_figures(rows: Sequence[RolloutRow]) -> dict[str, float]:
    """How agents used their tools, in the group `tools`; nothing where no conversation went on after its answer."""
    conversations = [row.turns for row in rows if row.turns is not None]
    if not conversations:
        return {}
    said = [[turn for turn in turns if turn.role == "assistant"] for turns in conversations]
    calls = [[call for turn in turns for call in turn.tool_calls] for turns in said]
    flat = [call for of_one in calls for call in of_one]
    figures = {
        "tools/turns": statistics.fmean(len(turns) for turns in said),
        "tools/turns_max": float(max(map(len, said))),
        "tools/calls": statistics.fmean(map(len, calls)),
        "tools/rollouts_with_calls": sum(map(bool, calls)) / len(calls),
    }
    if flat:
        figures["tools/unreadable_arguments"] = sum(not _is_json(call.arguments) for call in flat) / len(flat)
    figures |= {
        f"tools/calls_of/{name}": count / len(calls) for name, count in Counter(call.name for call in flat).items()
    }
    return figures


def grouped(metrics: Mapping[str, float]) -> dict[str, float]:
    """The same metrics, those without a group in the group `rollouts`: trackers fold their charts by group."""
    return {name if "/" in name else f"{GROUP_OF_THE_REST}/{name}": value for name, value in metrics.items()}


def coloured_diff(row: RolloutRow) -> str:
    """A rollout's edit as HTML: removed lines red, added ones green, everything escaped."""
    lines: list[str] = []
    for path in sorted({*row.files_before, *row.files_after}) if row.files_after else []:
        before, after = row.files_before.get(path, ""), row.files_after.get(path, "")
        lines += difflib.unified_diff(before.splitlines(), after.splitlines(), path, path, lineterm="")
    if not lines:
        return "<i>no edit that applies</i>" if not row.files_after else "<i>nothing changed</i>"
    colours = {"+": "#17753a", "-": "#b3261e", "@": "#5d6672"}
    spans = (
        f'<span style="color:{colours[line[0]]}">{html.escape(line)}</span>'
        if line[:1] in colours
        else html.escape(line)
        for line in lines
    )
    return "<pre>" + "\n".join(spans) + "</pre>"


class WandbListener(SilentListener):
    """Tells Weights & Biases of a run: metrics, a table of completions per step, artifacts of evaluations and model.

    Args:
        project: the project's name there.
        mode: `offline` writes below the run directory only; `online` sends.
    """

    def __init__(self, project: str, mode: Literal["offline", "online"] = "offline") -> None:
        self._project, self._mode = project, mode
        self._run: Any = None
        self._run_dir: RunDir | None = None

    def on_start(self, run_dir: RunDir, total_steps: int) -> None:
        """Begin, or go on under the id of the first time.

        Raises:
            BadInput: wandb is not installed.
        """
        try:
            import wandb
        except ImportError as error:
            raise BadInput("wandb is not installed", mend="pip install 'code-repair-rl[wandb]'") from error
        self._run_dir = run_dir
        # Its own chatter would break the live display; errors still show.
        os.environ.setdefault("WANDB_SILENT", "true")
        self._run = wandb.init(
            project=self._project,
            name=shown_name(run_dir),
            group=group_of(run_dir),
            id=tracking_id(run_dir, "wandb"),
            resume="allow",
            mode=self._mode,
            dir=str(run_dir.path),
            config={**run_dir.recipe(), "total_steps": total_steps},
            settings=wandb.Settings(console="off", x_disable_stats=self._mode == "offline"),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log them; every one is drawn over `step`."""
        if self._run is not None:
            self._run.log({"step": step, **grouped(metrics)})

    def on_rollouts(self, step: int, rows: Sequence[RolloutRow]) -> None:
        """Log counts and latencies, and a table of the first completions."""
        if self._run is None:
            return
        import wandb

        terms = term_names(rows)
        table = wandb.Table(columns=[*TABLE_COLUMNS, *(f"reward/{name}" for name in terms)])
        for row in rows[:TABLE_ROWS]:
            table.add_data(*table_row(row, terms, lambda text: wandb.Html(text, inject=False)))
        self._run.log({"step": step, **rollout_figures(rows), "completions": table})

    def on_eval(self, name: str, result: Mapping[str, Any]) -> None:
        """Log the headline figures, and the evaluation's file as an artifact."""
        if self._run is None or self._run_dir is None:
            return
        import wandb

        self._run.log(eval_figures(name, result))
        path = self._run_dir.eval_path(name)
        if path.is_file():
            artifact = wandb.Artifact(f"{self._run.id}-eval-{name}", type="evaluation")
            artifact.add_file(str(path))
            self._run.log_artifact(artifact)

    def on_end(self, status: str) -> None:
        """Log where the model is, and close."""
        if self._run is None or self._run_dir is None:
            return
        import wandb

        self._run.summary["status"] = status
        model = self._run_dir.path / "model"
        if status == FINISHED and model.is_dir():
            # By reference: weights are not copied into the tracker's folder, nor uploaded unasked.
            artifact = wandb.Artifact(f"{self._run.id}-model", type="model")
            artifact.add_reference(model.as_uri(), checksum=False)
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=0 if status == FINISHED else 1)
        self._run = None


class TrackioListener(SilentListener):
    """Tells trackio of a run: metrics and figures into its local data base (`trackio show` draws them)."""

    def __init__(self, project: str) -> None:
        """Log to `project`."""
        self._project = project
        self._active = False

    def on_start(self, run_dir: RunDir, total_steps: int) -> None:
        """Begin, or go on under the same name.

        Raises:
            BadInput: trackio is not installed, or its environment variables would send the run somewhere.
        """
        try:
            import trackio
        except ImportError as error:
            raise BadInput("trackio is not installed", mend="pip install 'code-repair-rl[trackio]'") from error
        sending = [
            name for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID") if name in os.environ
        ]
        if sending:
            raise BadInput("trackio would send this run elsewhere", where=", ".join(sending), mend="unset it")
        trackio.init(
            project=self._project,
            name=f"{shown_name(run_dir)}-{tracking_id(run_dir, 'trackio')}",
            config={**run_dir.recipe(), "total_steps": total_steps},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self._active = True

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log them."""
        self._log(dict(grouped(metrics)), step)

    def on_rollouts(self, step: int, rows: Sequence[RolloutRow]) -> None:
        """Log counts, latencies and a table of the first completions."""
        if not self._active:
            return
        import pandas as pd  # type: ignore[import-untyped,unused-ignore]
        import trackio

        terms = term_names(rows)
        frame = pd.DataFrame(
            [table_row(row, terms, str) for row in rows[:TABLE_ROWS]],
            columns=[*TABLE_COLUMNS, *(f"reward/{name}" for name in terms)],
            dtype=object,  # else what is absent would become a number that is none
        )
        self._log({**rollout_figures(rows), "completions": trackio.Table(dataframe=frame)}, step)

    def on_eval(self, name: str, result: Mapping[str, Any]) -> None:
        """Log the headline figures."""
        self._log(eval_figures(name, result), None)

    def on_end(self, status: str) -> None:
        """Close."""
        if self._active:
            import trackio

            trackio.finish()
            self._active = False

    def _log(self, values: dict[str, Any], step: int | None) -> None:
        if self._active and values:
            import trackio

            trackio.log(values, step=step)


def group_of(run_dir: RunDir) -> str | None:
    """What a run is one of: the journey that it is a stage of, or the sweep that it is a number of."""
    above = run_dir.path.parent
    return above.name if run_dir.name.isdigit() or (above / "recipe.yaml").is_file() else None


def shown_name(run_dir: RunDir) -> str:
    """The folder's name, behind its group's where it has one: `demo-grpo`, `sweep-0`."""
    group = group_of(run_dir)
    return run_dir.name if group is None else f"{group}-{run_dir.name}"


def tracking_id(run_dir: RunDir, tracker: str) -> str:
    """The id under which `tracker` knows this run: made once, then read from `tracking.json`."""
    path = run_dir.path / "tracking.json"
    known: dict[str, str] = {}
    if path.is_file():
        try:
            known = json.loads(path.read_text())
        except ValueError as error:
            raise BadInput(
                f"is not JSON ({error})", where=str(path), mend="delete it; trackers then begin anew"
            ) from error
    if tracker not in known:
        known[tracker] = uuid.uuid4().hex[:8]
        write_atomically(path, json.dumps(known, indent=1) + "\n")
    return known[tracker]


def term_names(rows: Sequence[RolloutRow]) -> list[str]:
    """The terms of the reward that any of these rollouts has."""
    return sorted({name for row in rows for name in row.reward_terms})


def table_row(row: RolloutRow, terms: Sequence[str], as_html: Any) -> list[Any]:
    """One completion in the order of `TABLE_COLUMNS`, then its `terms`."""
    failures = "\n".join(f"{test.name}: {test.detail}" for test in row.tests if test.status != "passed")
    return [
        row.task_id,
        row.group,
        row.sample,
        row.outcome,
        row.reward,
        row.advantage,
        row.sampled_tokens,
        sum(turn.role == "assistant" for turn in row.turns) if row.turns is not None else 1,
        ", ".join(call.name for turn in row.turns or () for call in turn.tool_calls),
        as_html(coloured_diff(row)),
        row.text,
        failures[:2000],
        *(row.reward_terms.get(name) for name in terms),
    ]


def eval_figures(name: str, result: Mapping[str, Any]) -> dict[str, float]:
    """What `eval/NAME.json` sums up, names in groups: pass@k with its interval, format, apply, precision, outcomes."""
    found = result.get("summary")
    if not isinstance(found, Mapping):
        return {}
    figures: dict[str, float | None] = {}
    for k, estimate in found.get("pass_at", {}).items():
        figures |= {
            f"eval/{name}/pass@{k}{end}": estimate[key]
            for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))
        }
    for rate in ("format_rate", "apply_rate", "right_place_rate", "edit_precision", "truncated_rate"):
        if rate in found:
            figures[f"eval/{name}/{rate}"] = found[rate]["value"]
    figures[f"eval/{name}/mean_tokens"] = found.get("mean_tokens")
    figures |= {f"eval/{name}/outcomes/{outcome}": count for outcome, count in found.get("outcomes", {}).items()}
    return {key: float(value) for key, value in figures.items() if value is not None and math.isfinite(value)}


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
