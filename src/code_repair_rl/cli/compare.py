"""`crrl compare`: is the second evaluation better than the first, and is that real."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from code_repair_rl.errors import BadInput

if TYPE_CHECKING:
    from code_repair_rl.evaluation import Comparison, EvalResult

_SHOWN_CHANGES = 10


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(compare)


def compare(
    before: str = typer.Argument(..., help="An evaluation: its JSON file, RUN:NAME, or a run with only one."),
    after: str = typer.Argument(..., help="The one to judge. Both may be lists, a,b,c: one pair per training seed."),
    require_improvement: bool = typer.Option(
        False, "--require-improvement", help="Exit with 1 unless AFTER is shown to be better at pass@1."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one object."),
) -> None:
    """Compare two evaluations task by task, with intervals clustered by problem.

    Says what was shown, what was not, and the smallest difference that would have been found.
    """
    from code_repair_rl.evaluation import compare_pooled

    befores, afters = before.split(","), after.split(",")
    if len(befores) != len(afters):
        raise BadInput(
            f"{len(befores)} evaluations before and {len(afters)} after",
            where="command line",
            mend="name as many on both sides, in the same order of seeds",
        )
    pairs = [(read_evaluation(a), read_evaluation(b)) for a, b in zip(befores, afters, strict=True)]
    found = compare_pooled(pairs)
    if as_json:
        typer.echo(json.dumps(_plain(found), indent=1))
    else:
        _show(found)
    if require_improvement and not found.improved:
        raise typer.Exit(1)


def read_evaluation(named: str) -> EvalResult:
    """The evaluation that a file, `RUN:NAME`, or a run with a single evaluation names.

    Raises:
        BadInput: none of these.
    """
    from code_repair_rl.evaluation import EvalResult
    from code_repair_rl.runs import RunDir

    if Path(named).is_file():
        return EvalResult.read(Path(named))
    folder, _, name = named.rpartition(":")
    if folder:
        run = RunDir.open(folder)
        return EvalResult.from_json(run.read_eval(name), where=str(run.eval_path(name)))
    if Path(named).is_dir():
        run = RunDir.open(named)
        names = run.eval_names()
        if len(names) == 1:
            return EvalResult.read(run.eval_path(names[0]))
        there = ", ".join(names) or "none"
        raise BadInput(f"the run has not one evaluation but: {there}", where=named, mend=f"say {named}:NAME")
    raise BadInput("no such evaluation", where=named, mend="name its JSON file, or RUN:NAME")


def _show(found: Comparison) -> None:
    from code_repair_rl.evaluation import sentences

    console = Console(highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for column in ("", found.before, found.after, "difference", "95 % interval", "p", "detectable"):
        table.add_column(column)
    for k, one in found.pass_at.items():
        table.add_row(
            f"pass@{k}",
            f"{100 * one.before:.1f} %",
            f"{100 * one.after:.1f} %",
            f"{100 * one.estimate.value:+.1f}",
            f"{100 * one.estimate.low:+.1f} to {100 * one.estimate.high:+.1f}",
            "–" if math.isnan(one.p_value) else f"{one.p_value:.3g}",
            "–" if math.isnan(one.smallest_detectable) else f"{100 * one.smallest_detectable:.1f}",
        )
    console.print(table)
    console.print()
    for sentence in sentences(found):
        console.print(sentence, markup=False)
    for title, changes in (("gained", found.gained), ("lost", found.lost)):
        if changes:
            shown = ", ".join(
                f"{c.task_id} {100 * c.before:.0f}→{100 * c.after:.0f} %" for c in changes[:_SHOWN_CHANGES]
            )
            more = f" and {len(changes) - _SHOWN_CHANGES} more" if len(changes) > _SHOWN_CHANGES else ""
            console.print(f"{title}: {shown}{more}", markup=False)


def _plain(found: Comparison) -> dict[str, Any]:
    from code_repair_rl.evaluation import sentences

    return {"improved": found.improved, "sentences": sentences(found), **_without_nan(asdict(found))}


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value
