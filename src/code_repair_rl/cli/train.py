"""`crrl sft` and `crrl grpo`: train one stage of a recipe; arguments go to Hydra as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from code_repair_rl.cli.processes import in_a_job, is_first, run_job
from code_repair_rl.errors import BadInput

if TYPE_CHECKING:
    from code_repair_rl.recipes import Recipe

HYDRA_ARGUMENTS = {"ignore_unknown_options": True, "allow_extra_args": True}
"""Settings of a command whose arguments go to Hydra."""
_ARGUMENTS = """

**Arguments** are `key=value` in Hydra's grammar, on top of a recipe:

- `recipe=NAME` — a shipped recipe (`demo`, `cpu-hour` …) or the path of a .yaml file; default `demo`
- `run=FOLDER` — where the run is kept; default `runs/RECIPE-STAGE`
- `resume=true` — go on with the run that is there
- `model.name=…`, `tasks.hint=…`, `{stage}.learning_rate=…` … — any key of the recipe
- `--multirun` — every combination of `a=1,2 b=3,4`, each in `FOLDER/0`, `FOLDER/1` …
"""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What stands on the command line, sorted."""

    recipe: str
    run: Path | None
    resume: bool
    multirun: bool
    overrides: tuple[str, ...]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""

    @app.command(
        context_settings=HYDRA_ARGUMENTS,
        help="Fine-tune a model on known-good edits, or on curated conversations (`data=FILE`, see `crrl curate`)."
        + _ARGUMENTS.format(stage="sft"),
    )
    def sft(context: typer.Context) -> None:
        _train("sft", context.args)

    @app.command(
        context_settings=HYDRA_ARGUMENTS,
        help="Train a model with GRPO, rewarded by the tests." + _ARGUMENTS.format(stage="grpo"),
    )
    def grpo(context: typer.Context) -> None:
        _train("grpo", context.args)


def sorted_arguments(given: Sequence[str]) -> Arguments:
    """Our own arguments apart from those for Hydra.

    Raises:
        BadInput: an option that is not ours, or a value that is neither true nor false.
    """
    own = {"recipe": "demo", "run": "", "resume": "false"}
    overrides: list[str] = []
    multirun = False
    for argument in given:
        key, equals, value = argument.partition("=")
        if argument in ("--multirun", "-m"):
            multirun = True
        elif argument.startswith("-"):
            raise BadInput(f"there is no option {argument}", where="command line", mend="give recipe keys as key=value")
        elif equals and key in own:
            own[key] = value
        else:
            overrides.append(argument)
    if own["resume"].lower() not in ("true", "false"):
        raise BadInput(f"resume is {own['resume']!r}", where="command line", mend="say resume=true or resume=false")
    run = Path(own["run"]) if own["run"] else None
    return Arguments(own["recipe"], run, own["resume"].lower() == "true", multirun, tuple(overrides))


def _train(stage: str, given: Sequence[str]) -> None:
    from code_repair_rl.pipelines.parts import require_parts
    from code_repair_rl.recipes import compose, expand

    if stage == "sft":
        given = [f"sft.{argument}" if argument.startswith("data=") else argument for argument in given]
    arguments = sorted_arguments(given)
    combinations = expand(arguments.overrides) if arguments.multirun else [list(arguments.overrides)]
    recipes = [compose(arguments.recipe, overrides) for overrides in combinations]
    for recipe in recipes:  # all of a sweep, before its first run begins
        require_parts(recipe, tasks=False)
    console = Console(stderr=True, highlight=False, quiet=not is_first())
    for number, recipe in enumerate(recipes):
        folder = arguments.run or Path("runs") / f"{recipe.name}-{stage}"
        if arguments.multirun:
            folder = folder / str(number)
            console.print(f"[bold]{number + 1} of {len(recipes)}:[/bold] {' '.join(combinations[number])}")
        if recipe.launch.processes > 1 and not in_a_job():
            _refuse_to_overwrite(folder, arguments.resume)
            run_job(stage, arguments.recipe, combinations[number], folder, recipe.launch.processes)
            continue
        if not in_a_job():  # of a job, the launching process has looked, or the first one has made the folder by now
            _refuse_to_overwrite(folder, arguments.resume)
        model = _run_stage(stage, recipe, folder, console)
        console.print(f"the model is in [bold]{model}[/bold]; `crrl report {folder}` shows how it came about")


def _run_stage(stage: str, recipe: Recipe, folder: Path, console: Console) -> Path:
    from code_repair_rl.pipelines.stages import run_grpo, run_sft
    from code_repair_rl.reporting import listeners
    from code_repair_rl.runs import CompositeListener

    if not is_first():
        return (
            run_sft(recipe, folder, CompositeListener())
            if stage == "sft"
            else run_grpo(recipe, folder, CompositeListener())
        )
    with listeners(recipe.tracking, console=console, title=f"{recipe.name}: {stage}") as listener:
        return run_sft(recipe, folder, listener) if stage == "sft" else run_grpo(recipe, folder, listener)


def _refuse_to_overwrite(folder: Path, resume: bool) -> None:
    if (folder / "recipe.yaml").exists() and not resume:
        raise BadInput(
            "a run is there already",
            where=str(folder),
            mend="add resume=true to go on, or name another with run=FOLDER",
        )
