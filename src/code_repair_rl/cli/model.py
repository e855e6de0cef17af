"""`crrl model`: fetch the embedded model, list what is at hand, merge adapters and export."""

from __future__ import annotations

import json

import typer
from rich.console import Console
from rich.table import Table

model_app = typer.Typer(name="model", help="Fetch, list and export models.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add the `model` group to the application."""
    app.add_typer(model_app)


@model_app.command("fetch")
def fetch(as_json: bool = typer.Option(False, "--json", help="Print an object with the folder.")) -> None:
    """Fetch the embedded model (SmolLM2-135M-Instruct, Apache-2.0) and convert it; done once, used offline after."""
    from code_repair_rl.models import EMBEDDED_MODEL, fetch_embedded_model

    with Console(stderr=True).status("fetching and converting the embedded model (98 MB, about half a minute)"):
        folder = fetch_embedded_model()
    typer.echo(
        json.dumps({"name": EMBEDDED_MODEL, "folder": str(folder)}) if as_json else f"{EMBEDDED_MODEL}: {folder}"
    )


@model_app.command("list")
def list_models(as_json: bool = typer.Option(False, "--json", help="Print a list of objects.")) -> None:
    """Show the models that are usable by name without a network."""
    from code_repair_rl.models import EMBEDDED_MODEL, TINY_MODEL, embedded_model_folder

    folder = embedded_model_folder()
    rows = [
        {"name": EMBEDDED_MODEL, "ready": folder is not None, "folder": str(folder) if folder else None},
        {"name": TINY_MODEL, "ready": True, "folder": None},
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table("name", "ready", "where")
    table.add_row(EMBEDDED_MODEL, "yes" if folder else "no", str(folder) if folder else "run `crrl model fetch`")
    table.add_row(TINY_MODEL, "yes", "built in: random weights, for trying the wiring")
    console = Console()
    console.print(table)
    console.print("Any folder written by save_pretrained, and any hub id owner/name, can be named as well.")
