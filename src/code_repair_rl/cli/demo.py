"""`crrl demo`: the whole journey of a recipe on this machine, and what it showed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from code_repair_rl.cli.train import HYDRA_ARGUMENTS, sorted_arguments

if TYPE_CHECKING:
    from code_repair_rl.pipelines.journey import Outcome


def add_to(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(context_settings=HYDRA_ARGUMENTS)
    def demo(
        context: typer.Context,
        fresh: bool = typer.Option(False, "--fresh", help="Remove what an earlier demo made, and train anew."),
        unsafe_local: bool = typer.Option(
            False, "--unsafe-local", help="Run model-written code WITHOUT isolation; every result is stamped so."
        ),
        base_of: Path | None = typer.Option(
            None, "--base-of", help="Take the base model's answers from this run, made with another training seed."
        ),
        warm_start_of: Path | None = typer.Option(
            None, "--warm-start-of", help="Take the fine-tuned model, and the base's answers, from this run."
        ),
    ) -> None:
        """Teach a small real model to repair code, on this machine's CPU, and show what it learned.

        Fetches the model, makes the tasks, fine-tunes on known-good edits (SFT), trains with tests as the reward
        (GRPO), evaluates all three models on problems that no training task shares, and writes a report.

        Run again, it shows the result at once; interrupted, it goes on. Further arguments are `key=value`, as for
        `crrl grpo`: `recipe=NAME` (default `demo`), `run=FOLDER` (default `runs/RECIPE`), any key of the recipe.
        """
        from code_repair_rl.cli.watch import ConsoleWatcher
        from code_repair_rl.errors import BadInput
        from code_repair_rl.models import settled
        from code_repair_rl.pipelines.journey import require_possible, run_journey, start_anew
        from code_repair_rl.recipes import compose

        arguments = sorted_arguments(context.args)
        overrides = list(arguments.overrides)
        if unsafe_local:
            overrides.append("sandbox.backend=unsafe_local")
        recipe = compose(arguments.recipe, overrides)
        folder = arguments.run or Path("runs") / recipe.name
        recipe = settled(recipe, None if fresh else folder)
        if base_of is not None and warm_start_of is not None:
            raise BadInput("--warm-start-of takes the base over, too", mend="leave --base-of out")
        require_possible(recipe, folder, base_of, warm_start_of, fresh=fresh)  # before anything is removed
        if fresh:
            start_anew(folder)
        with ConsoleWatcher(Console(stderr=True, highlight=False), recipe) as watcher:
            outcome = run_journey(recipe, folder, watcher, base_of=base_of, warm_start_of=warm_start_of)
        show(outcome, Console(highlight=False))


def show(outcome: Outcome, console: Console) -> None:
    """Print the table, and in plain sentences what was and what was not shown."""
    from code_repair_rl.cli.eval import show_results
    from code_repair_rl.evaluation import sentences

    show_results(outcome.results, console)
    console.print()
    for comparison in outcome.comparisons:
        console.print(sentences(comparison)[0], soft_wrap=True)
    console.print(f"\nReport: [bold]{outcome.report}[/bold]", soft_wrap=True)
    console.print(
        f"Repair a file of yours: crrl fix FILE --tests 'pytest -q' --model {outcome.report.parent}/grpo/model",
        soft_wrap=True,
        markup=False,
    )
