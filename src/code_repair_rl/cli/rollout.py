"""`crrl rollout` and `crrl curate`: rejection sampling, from many attempts to a file to learn from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import typer
from rich.console import Console
from rich.table import Table

from code_repair_rl.cli.agent_options import AT_ONCE, CONTEXT_TOKENS, DEADLINE, MAX_TURNS, chosen_agent
from code_repair_rl.cli.batch_progress import batch_progress
from code_repair_rl.errors import BadInput

if TYPE_CHECKING:
    from code_repair_rl.rollouts.curate import Selection
    from code_repair_rl.rollouts.rejection import Progress
    from code_repair_rl.tasks import Task


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(rollout)
    app.command()(curate)


def rollout(
    model: str = typer.Option(
        ..., "--model", "-m", help="A model's name, folder (adapters too) or hub id; with --endpoint its name there."
    ),
    tasks: str = typer.Option("humaneval-bugs", "--tasks", "-t", help="A built set's name, or a task file."),
    split: str = typer.Option("train", help="train, validation or test."),
    hint: str = typer.Option("exact-line", help="none, failing-call, suspicious-lines or exact-line."),
    samples: int = typer.Option(8, "--samples", "-k", min=1, help="Attempts per task."),
    temperature: float = typer.Option(1.0, min=0.0, max=2.0, help="0 is greedy."),
    max_new_tokens: int = typer.Option(96, min=1, help="Longest answer; an agent may have several."),
    limit: int | None = typer.Option(None, min=1, help="At most this many tasks, drawn by the seed over all problems."),
    max_prompt_tokens: int = typer.Option(512, min=16, help="Tasks with longer prompts are left out and counted."),
    seed: int = typer.Option(0, help="The same seed asks the same tasks and samples the same answers."),
    agent: str | None = typer.Option(
        None, "--agent", help="Who works on each task: repair-loop … Default: one answer."
    ),
    max_turns: int | None = MAX_TURNS,
    deadline: float | None = DEADLINE,
    context_tokens: int | None = CONTEXT_TOKENS,
    at_once: int | None = AT_ONCE,
    run: Path = typer.Option(Path("runs/rollout"), "--run", help="Run directory to write into."),
    backend: str = typer.Option("auto", help="Sandbox to run answers in. `unsafe_local` isolates nothing."),
    workers: int = typer.Option(2, min=1, help="How many answers are graded at once."),
    dtype: str = typer.Option(
        "auto", help="What sampling computes in: bfloat16, float32, or whichever this machine is faster in."
    ),
    endpoint: str | None = typer.Option(
        None, "--endpoint", help="Ask an OpenAI-compatible server (https://host/v1) in place of a local model."
    ),
    api_key_env: str = typer.Option(
        "OPENAI_API_KEY", "--api-key-env", help="The environment variable that holds the endpoint's key, if any."
    ),
    concurrency: int = typer.Option(8, min=1, help="Requests to the endpoint at once."),
    as_json: bool = typer.Option(False, "--json", help="Print what was found as one object."),
) -> None:
    """Sample many attempts at each task, grade them all, and keep them in a run directory for `crrl curate`.

    Interrupted, the same command goes on: what was sampled is read back, not sampled again.
    """
    from code_repair_rl.cli.eval import Local, Remote
    from code_repair_rl.evaluation.result import tasks_digest
    from code_repair_rl.grading import Grader
    from code_repair_rl.rollouts import Sampling
    from code_repair_rl.rollouts.rejection import sample_rollouts
    from code_repair_rl.runs import FINISHED, RunDir

    worker = chosen_agent(
        agent,
        endpoint=endpoint,
        max_turns=max_turns,
        deadline_seconds=deadline,
        context_tokens=context_tokens,
        at_once=at_once,
    )
    chosen = _chosen(tasks, split, hint, limit, seed)
    dtype = _settled_dtype(dtype, run) if endpoint is None else dtype
    source: Local | Remote = (
        Local(model, dtype, max_prompt_tokens)
        if endpoint is None
        else Remote(model, endpoint, api_key_env, concurrency)
    )
    counted = endpoint is None and not (worker is not None and worker.words_its_prompt)
    fitting = _fitting(chosen, model, hint, max_prompt_tokens) if counted else chosen
    if not fitting:
        raise BadInput(f"all {len(chosen)} prompts have more than {max_prompt_tokens} tokens", where=tasks)
    asked: dict[str, Any] = {
        "name": "rollout",
        "seed": seed,
        "model": {"name": model, "endpoint": endpoint, "dtype": dtype},
        "tasks": {"name": tasks, "split": split, "hint": hint, "limit": limit, "max_prompt_tokens": max_prompt_tokens},
        "samples": samples,
        "sampling": {"temperature": temperature, "max_new_tokens": max_new_tokens},
        "agent": worker.description if worker is not None else None,
    }
    if endpoint is None:
        asked["model"]["digest"] = _digest(model, run)
    asked["tasks"]["sha256"] = tasks_digest(fitting)
    held = RunDir.create(run, _as_begun(asked, run), resume=True)
    with (
        held.exclusively(),
        Grader(backend=backend, workers=workers) as grader,
        batch_progress("sampling", len(fitting), _said) as on_batch,
    ):
        found = sample_rollouts(
            lambda: source.engine(held.path / "answers.jsonl"),
            grader,
            fitting,
            held,
            hint=hint,
            samples=samples,
            sampling=Sampling(temperature, max_new_tokens, seed),
            agent=worker,
            on_batch=on_batch,
        )
        held.record_end(FINISHED)
    counts = {"tasks": found.total, "left_out": len(chosen) - len(fitting)}
    counts |= {"graded": found.graded, "passed": found.passed, "solved": found.solved}
    if as_json:
        typer.echo(json.dumps({"run": str(run), **counts}))
        return
    typer.echo(f"{found.passed} of {found.graded} attempts passed; {found.solved} of {found.total} tasks solved")
    if counts["left_out"]:
        typer.echo(f"{counts['left_out']} tasks were left out: their prompts have more than {max_prompt_tokens} tokens")
    typer.echo(
        f"kept in {run}; `crrl curate {run} --out data.jsonl` chooses among them, `crrl report {run}` shows them"
    )


def curate(
    runs: list[Path] = typer.Argument(..., help="Runs with rollouts: of `crrl rollout`, or of `crrl grpo`."),
    out: Path = typer.Option(..., "--out", "-o", help="The file to write, JSON Lines.", dir_okay=False),
    best: int = typer.Option(1, "--best", min=1, help="Attempts per task at most, the best first."),
    least_reward: float | None = typer.Option(
        None,
        "--least-reward",
        help="Keep what has at least this reward, not what passed (for runs of `crrl grpo`).",
    ),
    most_tokens: int | None = typer.Option(None, "--most-tokens", min=1, help="Leave out longer conversations."),
    hold_out: float = typer.Option(
        0.0, "--hold-out", min=0.0, max=0.99, help="Put this share of the problems aside, into OUT.held-out.jsonl."
    ),
    splits: list[str] = typer.Option(["train"], "--split", help="Which splits may be learnt from; may be repeated."),
    learn: str = typer.Option(
        "auto", help="Which answers of a conversation are learnt: last, all, or auto (all of an agent's program)."
    ),
    documents: bool = typer.Option(False, "--documents", help="Write plain text, one {text} a line."),
    as_json: bool = typer.Option(False, "--json", help="Print what was kept as one object."),
) -> None:
    """Keep the best of many attempts: passed, not twice, not too long, so many per task. For `crrl sft data=OUT`."""
    from code_repair_rl.home import write_atomically
    from code_repair_rl.rollouts.curate import Choice, Source, as_plain
    from code_repair_rl.rollouts.curate import curate as chosen_of

    if learn not in ("auto", "last", "all"):
        raise BadInput(f"learn is auto, last or all, not {learn!r}", where="--learn")
    choice = Choice(
        best, least_reward, most_tokens, tuple(splits), hold_out, cast('Literal["auto", "last", "all"]', learn)
    )
    found = chosen_of([Source(run.name, list(run.all_rollouts()), known) for run, known in _opened(runs)], choice)
    kept = [one for selection in found for one in selection.kept]
    aside = [one for selection in found for one in selection.held_out]

    def lines(examples: Sequence[Any]) -> str:
        plain = ({"text": one.document()} if documents else as_plain(one) for one in examples)
        return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in plain)

    write_atomically(out, lines(kept))
    if hold_out:
        write_atomically(out.with_suffix(".held-out.jsonl"), lines(aside))
    if as_json:
        plain = [{"left_out": dict(one.left_out), "tasks": one.tasks, "tasks_kept": one.tasks_kept} for one in found]
        typer.echo(json.dumps({"kept": len(kept), "held_out": len(aside), "runs": plain}))
        return
    _show(runs, found, out)


def _settled_dtype(dtype: str, run: Path) -> str:
    """What `auto` stands for: what the run began with, else what this machine is faster in."""
    from code_repair_rl.models import faster_dtype

    if dtype != "auto":
        return dtype
    begun = _begun(run)
    return str(begun["model"]["dtype"]) if begun is not None and "dtype" in begun["model"] else faster_dtype()


def _digest(model: str, run: Path) -> str:
    """Of the weights; of those that were asked where a run is there and they have gone since."""
    from code_repair_rl.models import weights_digest

    try:
        return weights_digest(model)
    except BadInput:
        begun = _begun(run)
        if begun is None:
            raise
        return str(begun["model"].get("digest", ""))


def _begun(run: Path) -> dict[str, Any] | None:
    """What the run that is there asked for."""
    from code_repair_rl.runs import RunDir

    recipe = RunDir.open(run).recipe() if (run / "recipe.yaml").is_file() else None
    return recipe if recipe is not None and isinstance(recipe.get("model"), dict) else None


def _as_begun(asked: dict[str, Any], run: Path) -> dict[str, Any]:
    """What is asked, without what a run of an earlier version that is there does not tell."""
    begun = _begun(run) or asked
    for section, key in (("model", "digest"), ("tasks", "sha256")):
        if key not in begun.get(section, {}):
            asked[section].pop(key, None)
    return asked


def _chosen(tasks: str, split: str, hint: str, limit: int | None, seed: int) -> list[Task]:
    from code_repair_rl.tasks import HintLevel, load_tasks
    from code_repair_rl.tasks.draw import draw

    HintLevel.named(hint)
    chosen = draw(load_tasks(tasks, split=split), limit, seed)
    if not chosen:
        raise BadInput(f"the set has no tasks of split {split}", where=tasks)
    return chosen


def _fitting(tasks: Sequence[Task], model: str, hint: str, max_prompt_tokens: int) -> list[Task]:
    """The tasks whose prompts fit; needs the tokenizer only."""
    from code_repair_rl.models import load_tokenizer
    from code_repair_rl.rollouts.chat_format import prompt_ids
    from code_repair_rl.tasks import messages

    tokenizer = load_tokenizer(model)
    return [task for task in tasks if len(prompt_ids(tokenizer, messages(task, hint))) <= max_prompt_tokens]


def _opened(folders: Sequence[Path]) -> Iterator[tuple[Any, dict[str, Task]]]:
    """Each run with the tasks that it was about."""
    from code_repair_rl.runs import RunDir
    from code_repair_rl.tasks import load_tasks

    for folder in folders:
        run = RunDir.open(folder)
        section = run.recipe().get("tasks")
        name = section.get("name") if isinstance(section, dict) else None
        if not isinstance(name, str) or not run.rollout_steps():
            raise BadInput("holds no rollouts on a named task set", where=str(folder), mend="make some: crrl rollout")
        yield run, {task.task_id: task for task in load_tasks(name)}


def _show(runs: Sequence[Path], found: Sequence[Selection], out: Path) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("run", "tasks", "with an example", "examples", "held out", "left out"):
        table.add_column(column)
    for folder, one in zip(runs, found, strict=True):
        reasons = "\n".join(f"{count} {reason}" for reason, count in one.left_out.items())
        table.add_row(
            folder.name, str(one.tasks), str(one.tasks_kept), str(len(one.kept)), str(len(one.held_out)), reasons
        )
    Console(highlight=False).print(table)
    typer.echo(f"written to {out}; learn from it with `crrl sft data={out}`")


def _said(progress: Progress) -> str:
    return f"{progress.solved} solved" + (", read back" if progress.read_back else "")
