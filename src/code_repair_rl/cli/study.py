"""`crrl study`: one unit of the study of rewards, or all that are not finished."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from code_repair_rl.cli.train import HYDRA_ARGUMENTS


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(context_settings=HYDRA_ARGUMENTS)
    def study(
        context: typer.Context,
        unit: str = typer.Option("", "--unit", help="One of the shipped recipes study/…; empty: one after the other."),
        seed: int = typer.Option(0, "--seed", help="Of the unit."),
        folder: Path = typer.Option(Path("runs/study"), "--folder", help="Where the runs lie."),
        results: Path = typer.Option(Path("docs/results"), "--results", help="Where the small JSON files go."),
    ) -> None:
        """Which reward teaches repair? Train and judge a unit: one recipe, one seed, within an hour on two cores.

        Finished units are skipped, interrupted ones go on. Further arguments are `key=value` for the recipe.
        `python scripts/keep_result.py` writes the tables from all the files there are.
        """
        from code_repair_rl.cli.watch import ConsoleWatcher
        from code_repair_rl.errors import BadInput
        from code_repair_rl.pipelines.study import UNITS, run_unit
        from code_repair_rl.recipes import compose

        if unit and unit not in UNITS:
            raise BadInput("the study has no such unit", where=unit, mend=f"name one of {', '.join(UNITS)}")
        for name in [unit] if unit else UNITS:
            recipe = compose(f"study/{name}", [f"seed={seed}", *context.args])
            with ConsoleWatcher(Console(stderr=True, highlight=False), recipe) as watcher:
                Console(highlight=False).print(str(run_unit(recipe, folder, results, watcher)))
