"""`crrl tasks`: make, look at and check tasks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from code_repair_rl.cli.batch_progress import step_progress
from code_repair_rl.errors import BadInput

if TYPE_CHECKING:
    from code_repair_rl.synthesis import BuildReport
    from code_repair_rl.tasks import HintLevel, Task

tasks_app = typer.Typer(name="tasks", help="Make, look at and check tasks.", no_args_is_help=True)

_NAME = typer.Argument(help="The name of a built set, or the path of a JSON Lines file.", metavar="NAME_OR_PATH")
_JSON = typer.Option(False, "--json", help="Print JSON for scripts.")
_BACKEND = typer.Option("auto", "--backend", help="The sandbox that runs the code.")
_WORKERS = typer.Option(2, "--workers", min=1, help="Jobs at once.")


def add_to(app: typer.Typer) -> None:
    """Add the `tasks` group to the application."""
    app.add_typer(tasks_app)


@tasks_app.command("build")
def build(
    name: str = typer.Argument(help="The set to build; `crrl tasks list` shows all."),
    seed: int = typer.Option(0, "--seed", help="The same seed gives the same file, byte for byte."),
    limit: int | None = typer.Option(None, "--limit", help="Only the first so many tasks."),
    everything: bool = typer.Option(False, "--all", help="All tasks, where a small set is made otherwise."),
    out: Path | None = typer.Option(None, "--out", help="Write this file instead of the named set.", dir_okay=False),
    fresh: bool = typer.Option(False, "--fresh", help="Build although it is there."),
    source: str | None = typer.Option(
        None, "--from", help="For the sets that are made of something: a path, package or data set.", show_default=False
    ),
    mask: str = typer.Option("whole", "--mask", help="stack: take out `whole` functions, or the `body` only."),
    licence: str | None = typer.Option(None, "--licence", help="SPDX identifier, where the source does not say."),
    repositories: str | None = typer.Option(
        None, "--repositories", help="swe-…: folder or URL prefix of the repositories that instances name."
    ),
    environment: str = typer.Option(
        "image", "--environment", help="swe-…: test in the `image` that an instance names, `here`, or by a lock file."
    ),
    test_command: str | None = typer.Option(
        None, "--test-command", help="swe-…: what runs the tests in images; pytest if absent."
    ),
    language: str | None = typer.Option(
        None, "--language", help="sven, primevul, labelled: only functions in python, c or cpp."
    ),
    hold_out: float = typer.Option(0.0, "--hold-out", min=0.0, max=1.0, help="swe-…: share of instances held out."),
    backend: str = _BACKEND,
    workers: int = _WORKERS,
    as_json: bool = _JSON,
) -> None:
    """Build a task set: every task of it has a known-good answer that passes and fails when nothing is done."""
    from code_repair_rl.synthesis import build_set
    from code_repair_rl.synthesis.masking import MaskKind
    from code_repair_rl.synthesis.sourced import SOURCED, SourceOptions, build_from

    if (name in SOURCED) != (source is not None):
        raise _from_is_amiss(name, source)
    if mask not in set(MaskKind):
        raise BadInput(f"there is no mask {mask!r}", where="--mask", mend=f"use one of {', '.join(MaskKind)}")
    if environment not in ("image", "here") and not Path(environment).is_file():
        mend = "use image, here, or the path of a lock file"
        raise BadInput(f"there is no environment {environment!r}", where="--environment", mend=mend)
    with step_progress() as report:
        if source is not None:
            options = SourceOptions(
                seed=seed,
                limit=limit,
                mask=mask,
                licence=licence,
                repositories=repositories,
                hold_out=hold_out,
                environment=environment,
                test_command=test_command,
                language=language,
                backend=backend,
                workers=workers,
                progress=report,
            )
            built = build_from(name, source, options, out=out)
        else:
            built = build_set(
                name,
                seed=seed,
                limit=limit,
                everything=everything,
                out=out,
                fresh=fresh,
                backend=backend,
                workers=workers,
                progress=report,
            )
    if as_json:
        typer.echo(json.dumps(_report_as_json(built)))
        return
    took = "was built before" if built.was_there else f"{built.wall_seconds:.0f} s"
    console = Console()
    console.print(f"{built.name}: {built.tasks} tasks ({took})", highlight=False)
    console.print(str(built.path), style="dim", highlight=False, soft_wrap=True)
    for reason, count in built.quarantined.items():
        console.print(f"  quarantined {count}: {reason}", markup=False, highlight=False)
    for note in _notes(built.path):
        console.print(f"  {note}", markup=False, highlight=False)
    if built.unusable:
        console.print(f"  {len(built.unusable)} candidates gave no task (see --json)", highlight=False)
        for reason, count in _most_frequent(built.unusable.values()):
            console.print(f"    {count}: {reason}", markup=False, highlight=False)


@tasks_app.command("import")
def import_pairs(
    pairs: Path = typer.Argument(help="JSON Lines with `before` and `after`; see docs/tasks.md."),
    out: Path = typer.Option(..., "--out", help="The task file to write.", dir_okay=False),
    as_json: bool = _JSON,
) -> None:
    """Make repair tasks of your own before/after pairs; near-copies across splits are quarantined."""
    from code_repair_rl.synthesis import quarantine_of, write_quarantine
    from code_repair_rl.synthesis.duplicates import without_near_duplicates
    from code_repair_rl.tasks import read_pairs, write_tasks

    tasks, alike = without_near_duplicates(read_pairs(pairs))
    write_quarantine(quarantine_of(out), alike)
    write_tasks(out, tasks)
    if as_json:
        typer.echo(json.dumps({"path": str(out), "tasks": len(tasks), "quarantined": len(alike)}))
        return
    typer.echo(f"{len(tasks)} tasks in {out}")
    if alike:
        typer.echo(f"{len(alike)} near-copies of code in another split in {quarantine_of(out)}")


@tasks_app.command("list")
def list_sets(as_json: bool = _JSON) -> None:
    """Show the sets that can be built, and those that are."""
    from code_repair_rl.home import home
    from code_repair_rl.synthesis import SETS, build_info
    from code_repair_rl.synthesis.sourced import SOURCED

    rows = []
    for info in SETS.values():
        record = build_info(info.name)
        tasks = record["tasks"] if record else None
        rows.append({"name": info.name, "tasks": tasks, "licence": info.licence, "summary": info.summary})
    for made in SOURCED.values():
        record = build_info(made.name)
        tasks = record["tasks"] if record else None
        summary = f"{made.summary} (--from {made.sources})"
        rows.append({"name": made.name, "tasks": tasks, "licence": "see its tasks", "summary": summary})
    known = {f"{name}.jsonl" for name in (*SETS, *SOURCED)}
    others = [path for path in sorted((home() / "tasks").glob("*.jsonl")) if path.name not in known]
    for path in others:
        if not path.name.endswith(".quarantine.jsonl"):
            count = sum(1 for line in path.read_bytes().splitlines() if line.strip())
            rows.append({"name": path.stem, "tasks": count, "licence": "see its tasks", "summary": str(path)})
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table("name", "tasks", "licence", "what it is")
    for row in rows:
        built = str(row["tasks"]) if row["tasks"] is not None else "not built"
        table.add_row(str(row["name"]), built, str(row["licence"]), str(row["summary"]))
    Console().print(table)


@tasks_app.command("show")
def show(
    name: str = _NAME,
    task_id: str | None = typer.Argument(None, help="The task's id, or the beginning of it; the first one if absent."),
    hint: str | None = typer.Option(None, "--prompt", help="Show the prompt at this hint level, as a model reads it."),
    as_json: bool = _JSON,
) -> None:
    """Show one task as a person would want to read it."""
    from code_repair_rl.cli.task_view import print_prompt, print_task
    from code_repair_rl.tasks import HintLevel, load_tasks

    level = HintLevel.named(hint, "--prompt") if hint is not None else None
    tasks = load_tasks(name)
    found = [task for task in tasks if task_id is None or task.task_id.startswith(task_id)]
    if not found:
        raise BadInput(f"no task begins with {task_id!r}", where=name, mend="see the ids with `crrl tasks stats --ids`")
    task = next((one for one in found if one.task_id == task_id), found[0])
    if as_json:
        typer.echo(task.model_dump_json())
    elif level is not None:
        print_prompt(Console(), task, level)
    else:
        print_task(Console(), task)


@tasks_app.command("validate")
def validate_tasks(
    name: str = _NAME,
    limit: int | None = typer.Option(None, "--limit", help="Only the first so many tasks."),
    sample: int | None = typer.Option(None, "--sample", min=1, help="Only so many tasks, drawn at random."),
    seed: int = typer.Option(0, "--seed", help="Of the draw."),
    repeat: int = typer.Option(
        1, "--repeat", min=1, help="Run everything so many times, in shuffled order; finds flaky tests."
    ),
    quarantine: bool = typer.Option(False, "--quarantine", help="Move what does not hold out of the file."),
    backend: str = _BACKEND,
    workers: int = _WORKERS,
    ray: str | None = typer.Option(
        None, "--ray", help="Address of a Ray cluster (auto, ray://…) whose nodes run it, --workers jobs on each."
    ),
    as_json: bool = _JSON,
) -> None:
    """Check every task: its known-good answer passes, the unchanged code fails. Exit code 1 where one does not hold.

    What was found is kept: after a kill the same command goes on where it was.
    """
    import random

    from code_repair_rl.home import home
    from code_repair_rl.pipelines.parts import grader_of
    from code_repair_rl.recipes import SandboxSection
    from code_repair_rl.synthesis import quarantine_of, validate, write_quarantine
    from code_repair_rl.synthesis.journal import Journal, digest_of
    from code_repair_rl.tasks import load_tasks, task_file, write_tasks

    if quarantine and (limit is not None or sample is not None):
        raise BadInput("--quarantine would drop what --limit and --sample leave out", mend="use one of them")
    path = task_file(name)
    tasks = load_tasks(path, limit=limit)
    if sample is not None:
        tasks = random.Random(f"validate/{seed}").sample(tasks, min(sample, len(tasks)))
    journal = Journal(home() / "validation" / f"{path.stem}-{digest_of(str(path.resolve()), repeat)[:16]}.jsonl")
    sandbox = SandboxSection(backend=backend, workers=workers, ray=ray)
    with step_progress() as report, grader_of(sandbox) as grader:
        done = 0

        def on_done(more: int) -> None:
            nonlocal done
            done += more
            report("validating", done, len(tasks))

        kept, bad = validate(tasks, grader, repeat=repeat, workers=grader.at_once, journal=journal, on_done=on_done)
    if quarantine and bad:
        write_quarantine(quarantine_of(path), bad, keep=True)
        write_tasks(path, kept)
    journal.forget()
    if as_json:
        refused = [{"task_id": item.task.task_id, "reason": item.reason} for item in bad]
        typer.echo(json.dumps({"kept": len(kept), "refused": refused, "quarantined": quarantine and bool(bad)}))
    else:
        console = Console()
        console.print(f"{len(kept)} of {len(tasks)} tasks hold", highlight=False)
        if bad:
            table = Table("task", "reason")
            for item in bad:
                table.add_row(item.task.task_id, item.reason)
            console.print(table, markup=False)
    if bad:
        raise typer.Exit(1)


@tasks_app.command("stats")
def stats(
    name: str = _NAME,
    ids: bool = typer.Option(False, "--ids", help="List every task's id instead."),
    model: str | None = typer.Option(None, "--model", help="Measure prompts in this model's tokens, too."),
    hint: str = typer.Option("none", "--hint", help="The hint level of the prompts that are measured."),
    budget: int = typer.Option(512, "--max-prompt-tokens", min=16, help="How many tokens a prompt may have."),
    as_json: bool = _JSON,
) -> None:
    """Count tasks by split, kind and origin; lengths; hints and how often they name the faulty line."""
    from code_repair_rl.cli.task_view import print_prompt_lengths, print_statistics
    from code_repair_rl.synthesis.statistics import statistics_of
    from code_repair_rl.tasks import HintLevel, load_tasks

    tasks = load_tasks(name)
    if ids:
        typer.echo(json.dumps([task.task_id for task in tasks]) if as_json else "\n".join(t.task_id for t in tasks))
        return
    found = statistics_of(tasks)
    lengths = _prompt_lengths(tasks, model, HintLevel.named(hint)) if model is not None else []
    if as_json:
        measured = {"prompt_tokens": lengths, "too_long": sum(length > budget for length in lengths)} if model else {}
        typer.echo(json.dumps({**found.as_json(), **measured}))
        return
    print_statistics(Console(), found)
    if model is not None:
        print_prompt_lengths(Console(), lengths, model=model, hint=hint, budget=budget)


@tasks_app.command("difficulty")
def difficulty(
    evaluation: str = typer.Argument(help="An evaluation: its JSON file, RUN:NAME, or a run with only one."),
    name: str | None = typer.Option(None, "--as", help="The model's name in recipes (`tasks.rated_by`)."),
    as_json: bool = _JSON,
) -> None:
    """Record how often each task was solved, for recipes to choose and order tasks by."""
    from code_repair_rl.cli.compare import read_evaluation
    from code_repair_rl.cli.task_view import print_pass_rates
    from code_repair_rl.tasks.difficulty import PassRate, pass_rates, record_pass_rates

    result = read_evaluation(evaluation)
    model = name or result.model
    found = {one.task_id: PassRate(one.passed, one.graded) for one in result.tasks if one.graded}
    path = record_pass_rates(model, result.hint, found, source=result.digest())
    known = pass_rates(model, result.hint)
    if as_json:
        rates = {task_id: rate.rate for task_id, rate in known.items()}
        typer.echo(json.dumps({"model": model, "hint": result.hint, "path": str(path), "pass_rates": rates}))
        return
    print_pass_rates(Console(), known, model=model, hint=result.hint)


def _prompt_lengths(tasks: Sequence[Task], model: str, hint: HintLevel) -> list[int]:
    """Tokens of each task's prompt in the model's own chat template; needs the tokenizer only."""
    from code_repair_rl.models import load_tokenizer
    from code_repair_rl.tasks import messages

    tokenizer: Any = load_tokenizer(model)
    prompts = [[dict(message) for message in messages(task, hint)] for task in tasks]
    return [
        len(tokenizer.apply_chat_template(one, add_generation_prompt=True, tokenize=True, return_dict=False))
        for one in prompts
    ]


def _from_is_amiss(name: str, source: str | None) -> BadInput:
    """Why a set and its source do not go together."""
    from code_repair_rl.synthesis.sourced import SOURCED

    if name in SOURCED:
        wanted = SOURCED[name].sources
        return BadInput(f"{name} has to be made of something", where="--from", mend=f"name {wanted}")
    if source is None:
        return BadInput(f"no task set is called {name!r}", mend="see `crrl tasks list`")
    return BadInput(
        f"{name} is not made of something", where="--from", mend=f"leave it out, or use one of {', '.join(SOURCED)}"
    )


def _most_frequent(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """The five most frequent reasons; what they are about (after " as ", in brackets) aside."""
    from collections import Counter

    return Counter(reason.partition(" as ")[0].partition(" (")[0] for reason in reasons).most_common(5)


def _report_as_json(built: BuildReport) -> dict[str, object]:
    from dataclasses import asdict

    return {**asdict(built), "path": str(built.path), "notes": _notes(built.path)}


def _notes(path: Path) -> list[str]:
    """What has to be said of the set (its tasks all say the same)."""
    from code_repair_rl.tasks.classification import notes_on
    from code_repair_rl.tasks.files import read_tasks

    first = next(read_tasks(path), None)
    return notes_on([first] if first is not None else [])
