"""`crrl report`: one HTML file about one or several runs."""

from __future__ import annotations

import json
from pathlib import Path

import typer


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report)


def report(
    runs: list[Path] = typer.Argument(..., help="Run directories; runs within them are shown, too."),
    out: Path | None = typer.Option(
        None, "--out", "-o", help="Where to write; report.html in the first run.", dir_okay=False
    ),
    tokenizer: Path | None = typer.Option(
        None,
        "--tokenizer",
        help="tokenizer.json of the model, to shade answers where a run holds none; default: the embedded model's.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print an object with the file's path and size."),
) -> None:
    """Write one HTML file with curves, comparisons and every rollout. It needs no network."""
    from rich.console import Console

    from code_repair_rl.models import embedded_model_folder
    from code_repair_rl.reporting import write_report

    console = Console(stderr=True, highlight=False)
    notes: list[str] = []
    if tokenizer is None and (embedded := embedded_model_folder()) is not None:
        # Where it is not the model's own, the pieces do not spell the answers, and bars are drawn instead.
        tokenizer = embedded / "tokenizer.json"
    with console.status("writing the report"):
        path = write_report(runs, out, tokenizer=tokenizer, warn=notes.append)
    for note in notes:
        console.print(f"note: {note}", markup=False)
    if as_json:
        typer.echo(json.dumps({"path": str(path), "bytes": path.stat().st_size, "notes": notes}))
    else:
        typer.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser")
