"""The command-line application: its commands, and how errors leave it."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from code_repair_rl import __version__
from code_repair_rl.cli.processes import leave_status
from code_repair_rl.errors import CrrlError

app = typer.Typer(
    name="crrl",
    help="Teach language models to repair code with reinforcement learning, rewarded by tests that really ran.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"crrl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def _commands() -> None:
    """Let every command module add its commands."""
    from code_repair_rl.cli import (
        classify,
        compare,
        demo,
        doctor,
        edits,
        eval,
        fix,
        grade,
        model,
        plan,
        report,
        rollout,
        serve,
        tasks,
        train,
    )

    demo.add_to(app)
    model.add_to(app)
    tasks.add_to(app)
    doctor.add_to(app)
    edits.add_to(app)
    fix.add_to(app)
    classify.add_to(app)
    grade.add_to(app)
    train.add_to(app)
    rollout.add_to(app)
    serve.add_to(app)
    eval.add_to(app)
    compare.add_to(app)
    report.add_to(app)
    plan.add_to(app)


_commands()


def main() -> None:
    """Run `crrl`; a `CrrlError` becomes one message on standard error and its exit code."""
    try:
        app()
    except CrrlError as error:
        leave_status(error)
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print("[bold red]error:[/bold red]", end=" ")
        console.print(str(error), markup=False)
        sys.exit(error.exit_code)
    except SystemExit as end:  # typer makes an interrupt an exit
        if end.code == 130:
            more = " with resume=true" if sys.argv[1:2] in (["sft"], ["grpo"]) else ""
            sys.stderr.write(f"\ninterrupted; run the same command again{more} to go on\n")
        raise
