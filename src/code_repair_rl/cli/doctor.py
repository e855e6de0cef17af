"""`crrl doctor`: what works on this machine, what does not, and the mend."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from code_repair_rl.doctor import Check


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor")(doctor)


def doctor(as_json: bool = typer.Option(False, "--json", help="Print an object with every check.")) -> None:
    """Try what the project needs on this machine: what works, what does not, and the mend.

    What only other uses need is shown as absent. Ends with 0 where everything that the demo needs works, else with 1.
    """
    from code_repair_rl.doctor import examine, works

    with Console(stderr=True).status("trying everything, about ten seconds"):
        checks = examine()
    well = works(checks)
    if as_json:
        typer.echo(json.dumps({"works": well, "checks": [dataclasses.asdict(check) for check in checks]}, indent=2))
    else:
        console = Console(highlight=False)
        console.print(_table(checks))
        broken = [check.name for check in checks if check.needed and check.status == "missing"]
        console.print(
            "Everything that `crrl demo` needs works."
            if well
            else f"`crrl demo` cannot run here yet: {', '.join(broken)}. Mend from the top and ask again."
        )
    if not well:
        raise typer.Exit(1)


def _table(checks: list[Check]) -> Table:
    colour = {"ok": "green", "warn": "yellow", "missing": "red"}
    table = Table.grid(padding=(0, 2))
    for column in range(3):
        table.add_column(overflow="fold", no_wrap=column < 2)
    for check in checks:
        absent = check.status == "missing" and not check.needed
        shade = "dim" if absent else colour[check.status]
        found = Text(check.found, style="dim" if absent else "")
        if check.mend:
            found.append(f"\nmend: {check.mend}", style=shade)
        table.add_row(Text("absent" if absent else check.status, style=shade), check.name, found)
    return table
