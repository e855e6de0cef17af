"""The report: one HTML file about one or several runs that needs no network and runs nobody's code but ours.

Figures and texts travel as compressed JSON and are put into the page as text nodes only; a content security policy in
the page forbids everything that comes from elsewhere, and every script but the two that it names by their hash.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation import EvalResult, difficulties
from code_repair_rl.home import write_atomically
from code_repair_rl.reporting.classification import classifications
from code_repair_rl.reporting.curves import metric_series, reward_against_truth, step_figures
from code_repair_rl.reporting.eval_data import Reported, comparisons, matrix, read_evaluations, table_row
from code_repair_rl.reporting.packing import packed, packed_bytes
from code_repair_rl.reporting.places import shown_environment, shown_path, without_absolute_paths
from code_repair_rl.reporting.rollout_data import RolloutBook
from code_repair_rl.reporting.token_text import TokenText, find_tokenizer
from code_repair_rl.runs import RolloutRow, RunDir, read_rows, report_times

_SCRIPTS = ("dom.js", "charts.js", "code.js", "rollout.js", "viewer.js", "tasks.js", "classification.js", "main.js")


def write_report(
    run_dirs: Sequence[RunDir | Path | str],
    out: Path | None = None,
    *,
    tokenizer: Path | None = None,
    warn: Callable[[str], None] | None = None,
) -> Path:
    """Write the report of one or several runs.

    Args:
        run_dirs: the runs; the first is what others are compared with. Runs that lie in the folder of one (the stages
            of a journey) belong to it and are shown, too.
        out: where to write; `report.html` in the first run by default.
        tokenizer: the model's `tokenizer.json`, for shading answers token by token where a run has none of its own.
        warn: told what could not be shown (it is in the report, too).

    Returns:
        The path of the HTML file.

    Raises:
        BadInput: not a run directory, or a file in it is damaged (named).
    """
    if not run_dirs:
        raise BadInput("there is no run to report on", mend="name a run directory")
    runs = _with_stages([run if isinstance(run, RunDir) else RunDir.open(run) for run in run_dirs])
    labels = _labels(runs)
    book = RolloutBook()
    described: list[dict[str, Any]] = []
    table: list[dict[str, Any]] = []
    results = []
    every: list[tuple[str, str, EvalResult]] = []
    classified: list[dict[str, Any]] = []
    for number, (run, label) in enumerate(zip(runs, labels, strict=True)):
        evaluations = read_evaluations(run)
        results.append(Reported(label, run.recipe(), evaluations.results))
        reference = _reference(evaluations.results)
        for name, result in evaluations.results.items():
            model, task_set = (shown_path(text, run.path) for text in (result.model, result.task_set))
            table.append(table_row(label, name, result, model, task_set, reference))
            every.append((label, name, result))
        found, unread = classifications(run, label)
        classified += found
        described.append(_describe(run, label, number, book, tokenizer, [*evaluations.notes, *unread]))
    compared, not_compared = comparisons(results)
    index = {
        "runs": described,
        "table": table,
        "comparisons": compared,
        "notCompared": not_compared,
        "matrix": matrix(every),
        "classification": classified,
        "rollouts": book.index(),
    }
    for note in [*(note for run_data in described for note in run_data["notes"]), *not_compared]:
        if warn is not None:
            warn(note)
    path = out if out is not None else runs[0].report_path
    write_atomically(path, _page(", ".join(labels), index, book.chunks()))
    return path


def _describe(
    run: RunDir, label: str, number: int, book: RolloutBook, tokenizer: Path | None, notes: Sequence[str]
) -> dict[str, Any]:
    tokenizer_file = find_tokenizer(run.path) or tokenizer
    token_text = TokenText(tokenizer_file) if tokenizer_file is not None else None
    steps = []
    judged: list[tuple[int, int, float, bool]] = []
    for step in run.rollout_steps():
        rows = run.rollouts(step)
        steps.append(step_figures(step, rows))
        judged += [
            (row.step, row.group, row.reward, row.passed)
            for row in rows
            if row.score is not None and row.reward is not None
        ]
        book.add(rows, run=number, source="train", token_text=token_text)
    for name in run.eval_names():
        for rows in _evaluation_rows(run, name):
            book.add(rows, run=number, source=name, token_text=token_text)
    sessions = run.environment()
    return {
        "label": label,
        "path": run.name,
        "recipe": without_absolute_paths(run.recipe(), run.path),
        "environment": shown_environment(sessions[-1]) if sessions else {},
        "sessions": len(sessions),
        "seconds": sum(_session_seconds(sessions, report_times(run.metrics_path))),
        "cutOff": any("status" not in session for session in sessions),
        "steps": steps,
        "truth": reward_against_truth(judged),
        "metrics": metric_series(run.metrics()),
        "notes": list(notes),
    }


def _reference(results: Mapping[str, EvalResult]) -> EvalResult | None:
    """The evaluation that tells how hard tasks are: the first for which they differ in that (`base` before others)."""
    ordered = sorted(results.values(), key=lambda result: result.name != "base")
    return next((result for result in ordered if len(set(difficulties(result).values())) > 1), None)


def _session_seconds(sessions: Sequence[Mapping[str, Any]], reports: Sequence[float]) -> Iterator[float]:
    """How long each session took; one that was cut off at least until its last report of figures."""
    begun = [float(session["started_unix_seconds"]) for session in sessions]
    for session, start, following in zip(sessions, begun, [*begun[1:], math.inf], strict=True):
        seen = max((time for time in reports if start <= time < following), default=start)
        yield float(session.get("ended_unix_seconds", seen)) - start


def _evaluation_rows(run: RunDir, name: str) -> Iterator[list[RolloutRow]]:
    for path in sorted(run.eval_samples_path(name).glob("*.parquet")):
        yield read_rows(path)


def _with_stages(runs: Sequence[RunDir]) -> list[RunDir]:
    """The runs, each followed by the runs within its folder, oldest first; none twice."""
    found: dict[Path, RunDir] = {}
    for run in runs:
        inside = sorted(run.path.glob("*/recipe.yaml"), key=lambda path: path.stat().st_mtime)
        for path in (run.path, *(path.parent for path in inside)):
            found.setdefault(path.resolve(), RunDir.open(path))
    return list(found.values())


def _labels(runs: Sequence[RunDir]) -> list[str]:
    """The folders' names, with their parent's where two are the same or one is but a number, numbered where that does
    not help either."""
    names = [run.name for run in runs]
    if len(set(names)) < len(names) or any(name.isdigit() for name in names):
        names = [f"{run.path.parent.name}/{run.name}" for run in runs]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, start=1)]
    return names


def _page(title: str, index: dict[str, Any], chunks: Sequence[str]) -> str:
    folder = resources.files("code_repair_rl.reporting") / "page"

    def read(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    script = "\n".join(read(name) for name in _SCRIPTS)
    plotly = _plotly_source()
    parts = {
        "{{allowed}}": f"{_source_hash(script.encode())} {_source_hash(plotly)}",
        "{{title}}": html.escape(title),
        "{{css}}": read("page.css"),
        "{{js}}": script,
        "{{index}}": packed(index),
        "{{chunks}}": "\n".join(
            f'<script type="text/plain" id="chunk-{number}">{chunk}</script>' for number, chunk in enumerate(chunks)
        ),
        "{{plotly}}": packed_bytes(plotly),
    }
    page = read("page.html")
    head, *rest = page.split("{{")
    # Put together piece by piece, so that a part's own text is never searched for another part's name.
    pieces = [head]
    for piece in rest:
        name, _, text = piece.partition("}}")
        pieces += [parts["{{" + name + "}}"], text]
    return "".join(pieces)


def _source_hash(script: bytes) -> str:
    """Names a script in the page's content security policy: these run, and nothing else does."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"


def _plotly_source() -> bytes:
    return (resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()
