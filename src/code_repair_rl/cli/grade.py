"""`crrl grade`: verdicts on answers that anyone wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from code_repair_rl.cli.batch_progress import step_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from code_repair_rl.grading import Verdict
    from code_repair_rl.grading.answers import Answer


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("grade")(grade)


def grade(
    tasks: str = typer.Option(..., "--tasks", "-t", help="A built set's name, or a task file (JSON Lines)."),
    answers: Path = typer.Option(
        ..., "--answers", "-a", help='Answers: lines of {"task_id": …, "text": …}, or SWE-bench\'s predictions.jsonl.'
    ),
    out: Path | None = typer.Option(
        None, "--out", "-o", help="Write the verdicts to this file as well (JSON Lines).", dir_okay=False
    ),
    backend: str = typer.Option("auto", help="Sandbox to run in. `unsafe_local` isolates nothing."),
    workers: int = typer.Option(2, min=1, help="How many answers are graded at once."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object per answer, in the answers' order."),
    cache: bool = typer.Option(True, help="Keep verdicts on disk: a second run goes on where the first one ended."),
) -> None:
    """Grade answers: apply each one's edit, run the task's tests in a sandbox, say what came of it.

    Verdicts are cached by content, so an interrupted run is simply started again. Exits with 3 where an answer got no
    verdict because the machinery failed.
    """
    from code_repair_rl.grading import Grader, Outcome
    from code_repair_rl.grading.answers import read_answers, with_tasks
    from code_repair_rl.home import home
    from code_repair_rl.tasks import load_tasks

    read = read_answers(answers)
    pairs = with_tasks(read, load_tasks(tasks), str(answers))
    with (
        step_progress() as report,
        Grader(backend, workers=workers, cache=home() / "verdicts" if cache else None) as grader,
    ):
        verdicts = grader.grade_many(pairs, progress=lambda done: report("grading", done, len(pairs)))
    rows = [_row(answer, verdict) for answer, verdict in zip(read, verdicts, strict=True)]
    _print(rows, verdicts, as_json, out)
    if any(verdict.outcome is Outcome.NO_VERDICT for verdict in verdicts):
        raise typer.Exit(3)


def _row(answer: Answer, verdict: Verdict) -> dict[str, Any]:
    from code_repair_rl.grading.cache import verdict_to_json

    return {
        "task_id": answer.task_id,
        "model": answer.model,
        "passed": verdict.passed,
        "score": verdict.score,
        **verdict_to_json(verdict),
    }


def _print(rows: list[dict[str, Any]], verdicts: Sequence[Verdict], as_json: bool, out: Path | None) -> None:
    import json
    from collections import Counter

    from code_repair_rl.home import write_atomically

    lines = [json.dumps(row) for row in rows]
    if out is not None:
        write_atomically(out, "".join(line + "\n" for line in lines))
    if as_json:
        for line in lines:
            typer.echo(line)
        return
    counts = Counter(verdict.outcome.value for verdict in verdicts)
    for outcome, count in counts.most_common():
        typer.echo(f"{count:6d}  {outcome}")
    typer.echo(f"{len(rows):6d}  answers, {sum(verdict.passed for verdict in verdicts)} passed")
