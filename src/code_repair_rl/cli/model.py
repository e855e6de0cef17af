"""`crrl model`: fetch the embedded model, list what is at hand, merge adapters and export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from code_repair_rl.models.export import Card, CardResult

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


@model_app.command("export")
def export(
    source: str = typer.Argument(help="A run directory, or a model or adapter folder."),
    destination: Path = typer.Argument(help="The folder to write; must not exist."),
    dtype: str = typer.Option("float32", help="Precision of the weights: float32, bfloat16 or float16."),
    licence: str | None = typer.Option(None, help="Licence for the card; known for the embedded model."),
    title: str | None = typer.Option(None, help="Title of the card; the run's or folder's name by default."),
    push: str | None = typer.Option(None, metavar="OWNER/NAME", help="Also push to the hub. Nothing is sent without."),
    private: bool = typer.Option(True, "--private/--public", help="Who can see what is pushed."),
    as_json: bool = typer.Option(False, "--json", help="Print an object with the folder and the address."),
) -> None:
    """Merge adapters, write an ordinary transformers folder with a model card, and push it if asked."""
    from code_repair_rl.errors import BadInput
    from code_repair_rl.models.export import export_model, push_model

    if dtype not in ("float32", "bfloat16", "float16"):
        raise BadInput(f"unknown dtype {dtype!r}", mend="use float32, bfloat16 or float16")
    model, card = _described(source, title, licence)
    with Console(stderr=True).status("writing the model"):
        folder = export_model(model, destination, card, dtype=dtype)
    address = push_model(folder, push, private=private) if push else None
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "address": address}))
        return
    typer.echo(f"exported to {folder}" + (f" and pushed to {address}" if address else ""))


def _described(source: str, title: str | None, licence: str | None) -> tuple[str, Card]:
    """The model that a source means, and its card: recipe and evaluations are told where it is a run directory."""
    from code_repair_rl.errors import BadInput
    from code_repair_rl.models import EMBEDDED_MODEL
    from code_repair_rl.models.export import EMBEDDED_LICENCE, Card
    from code_repair_rl.runs import RunDir

    folder = Path(source).expanduser()
    if not (folder / "recipe.yaml").is_file():
        base = source if source == EMBEDDED_MODEL or not folder.is_dir() else folder.name
        known = EMBEDDED_LICENCE if base == EMBEDDED_MODEL else "unknown"
        return source, Card(title=title or base, base=base, licence=licence or known)
    run = RunDir.open(folder)
    if (run.path / "grpo" / "recipe.yaml").is_file():  # a whole journey: what it is about is its last stage
        title, run = title or run.name, RunDir.open(run.path / "grpo")
    model = run.path / "model"
    if not model.is_dir():
        raise BadInput("this run has no model yet", where=str(run.path), mend="let it finish: run it again to go on")
    recipe = run.recipe()
    base = _first_base(str(recipe.get("model", {}).get("name", "unknown")))
    card = Card(
        title=title or run.name,
        base=base,
        licence=licence or (EMBEDDED_LICENCE if base == EMBEDDED_MODEL else "unknown"),
        recipe=run.recipe_path.read_text(encoding="utf-8"),
        task_set=str(recipe.get("tasks", {}).get("name", "")),
        results=[found for place in (run.path, run.path.parent) for found in _results_in(place, model)],
    )
    return str(model), card


def _first_base(name: str) -> str:
    """What the chain of runs began with: a stage's model may be the result of the stage before."""
    from code_repair_rl.runs import RunDir

    path = Path(name)
    while path.name == "model" and (path.parent / "recipe.yaml").is_file():
        path = Path(str(RunDir.open(path.parent).recipe().get("model", {}).get("name", "unknown")))
    return str(path)


def _results_in(folder: Path, model: Path) -> list[CardResult]:
    """The evaluations of this very model that a run directory holds."""
    from code_repair_rl.evaluation.result import EvalResult, summary
    from code_repair_rl.models.export import CardResult
    from code_repair_rl.runs import RunDir

    if not (folder / "recipe.yaml").is_file():
        return []
    run = RunDir.open(folder)
    results = []
    for name in run.eval_names():
        found = EvalResult.read(run.eval_path(name))
        if Path(found.model).absolute() != model.absolute():
            continue
        figures = summary(found)
        results.append(
            CardResult(
                task_set=found.task_set,
                split=found.split,
                hint=found.hint,
                pass_at={k: (estimate.value, estimate.low, estimate.high) for k, estimate in figures.pass_at.items()},
                tasks=figures.tasks,
                problems=figures.problems,
                isolated=not found.stamped_unsafe,
            )
        )
    return results
