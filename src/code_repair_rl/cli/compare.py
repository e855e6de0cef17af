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
    from code_repair_rl.evaluation import Comparison, EqualTokens, EvalResult, Judged

_SHOWN_CHANGES = 10


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(compare)


def compare(
    before: str = typer.Argument(..., help="An evaluation: its JSON file, RUN:NAME, or a run with only one."),
    after: list[str] = typer.Argument(
        ..., help="The one to judge, or several. Each side may be a list, a,b,c: one evaluation per training seed."
    ),
    require_improvement: bool = typer.Option(
        False, "--require-improvement", help="Exit with 1 unless every AFTER is shown to be better at pass@1."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one object."),
) -> None:
    """Compare evaluations task by task, with intervals clustered by problem.

    Says what was shown, what was not, and the smallest difference that would have been found. With several AFTERs
    p values are corrected for their number (Holm). Results must have been asked the same: tasks, hint, temperature,
    length limit, seed, grader. An agent is compared with single answers at equal sampled tokens as well.
    """
    from code_repair_rl.evaluation import compare_each
    from code_repair_rl.evaluation.equal_tokens import sentence as in_words
    from code_repair_rl.evaluation.plain_json import without_nan

    befores = [read_evaluation(name) for name in before.split(",")]
    afters = [[read_evaluation(name) for name in one.split(",")] for one in after]
    found = compare_each(befores, afters)
    equal = [_at_equal_tokens(befores, one) for one in afters]
    if as_json:
        plain = [
            _plain(one) | without_nan({"equal_tokens": asdict(tokens) if tokens else None})
            for one, tokens in zip(found, equal, strict=True)
        ]
        typer.echo(json.dumps(plain[0] if len(plain) == 1 else {"comparisons": plain}, indent=1))
    else:
        for number, one in enumerate(found):
            if number:
                typer.echo()
            _show(one.comparison)
            if (tokens := equal[number]) is not None:
                typer.echo(in_words(tokens))
            if len(found) > 1 and not math.isnan(one.p_adjusted):
                typer.echo(f"p at pass@1, corrected for {len(found)} comparisons (Holm): {one.p_adjusted:.3g}")
    if require_improvement and not all(one.improved for one in found):
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


def _at_equal_tokens(before: list[EvalResult], after: list[EvalResult]) -> EqualTokens | None:
    """For an agent against single answers; None for everything else, and for results of earlier versions."""
    from code_repair_rl.evaluation import at_equal_tokens

    if len(before) != 1 or before[0].agent or not after[0].agent:
        return None
    if any(sample.holds_up is None for task in before[0].tasks for sample in task.samples):
        return None
    return at_equal_tokens(after[0], before[0])


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


def _plain(found: Judged) -> dict[str, Any]:
    from code_repair_rl.evaluation import sentences
    from code_repair_rl.evaluation.plain_json import without_nan

    plain: dict[str, Any] = without_nan(
        {"improved": found.improved, "p_adjusted": found.p_adjusted, "sentences": sentences(found.comparison)}
    )
    plain |= without_nan(asdict(found.comparison))
    return plain
