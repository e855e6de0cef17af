"""`crrl eval`: how often a model repairs tasks, with intervals, into a run directory."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from code_repair_rl.cli.agent_options import AT_ONCE, CONTEXT_TOKENS, DEADLINE, MAX_TURNS, chosen_agent
from code_repair_rl.cli.batch_progress import batch_progress
from code_repair_rl.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from code_repair_rl.evaluation import Estimate, EvalResult, Progress
    from code_repair_rl.evaluation.classification import ClassificationResult
    from code_repair_rl.rollouts import Engine
    from code_repair_rl.rollouts.agent import Agent
    from code_repair_rl.tasks import Task


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("eval")(evaluate)


def evaluate(
    model: str = typer.Option(
        ..., "--model", "-m", help="A model's name, folder (adapters too) or hub id; with --endpoint its name there."
    ),
    tasks: str = typer.Option("humaneval-bugs", "--tasks", "-t", help="A built set's name, or a task file."),
    split: str = typer.Option("test", help="train, validation or test."),
    hint: str = typer.Option("exact-line", help="none, failing-call, suspicious-lines or exact-line."),
    labels: str = typer.Option("binary", "--labels", help="Classification: binary, top-5 (any number) or full."),
    samples: int = typer.Option(4, min=1, help="Answers per task; pass@k is given up to this k."),
    temperature: float = typer.Option(0.8, min=0.0, max=2.0, help="0 is greedy."),
    max_new_tokens: int = typer.Option(96, min=1, help="Longest answer."),
    limit: int | None = typer.Option(None, min=1, help="At most this many tasks, drawn by the seed over all problems."),
    max_prompt_tokens: int = typer.Option(512, min=16, help="Tasks with longer prompts are left out and counted."),
    seed: int = typer.Option(0, help="The same seed asks the same tasks and samples the same answers."),
    run: Path | None = typer.Option(None, "--run", help="Run directory to write into; runs/eval by default."),
    name: str | None = typer.Option(None, "--name", help="The evaluation's name; from the model's by default."),
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
    agent: str | None = typer.Option(
        None,
        "--agent",
        help="Who works on each task over several answers: repair-loop, mini-swe-agent, nano-agent.",
    ),
    max_turns: int | None = MAX_TURNS,
    deadline: float | None = DEADLINE,
    context_tokens: int | None = CONTEXT_TOKENS,
    at_once: int | None = AT_ONCE,
    record_pass_rates: bool = typer.Option(
        False, "--record-pass-rates", help="Add what was found to the tasks' known difficulty for this model."
    ),
    wandb: str = typer.Option("off", "--wandb", help="Tell W&B of the result: off, offline or online."),
    trackio: bool = typer.Option(False, "--trackio", help="Tell trackio's local data base of the result."),
    project: str = typer.Option("code-repair-rl", "--project", help="The project's name in both."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one object."),
) -> None:
    """Evaluate a model: sample answers, run their tests in the sandbox, give pass@k with 95 % intervals.

    Every answer is kept. An interrupted evaluation goes on when the same command is run again; a finished one is shown.
    Nothing is sent anywhere unless --endpoint names a server; its prompts are not counted in tokens, so that
    --max-prompt-tokens leaves none out there.
    """
    named = model if endpoint is None else f"{model} at {endpoint}"
    worker = chosen_agent(
        agent,
        endpoint=endpoint,
        max_turns=max_turns,
        deadline_seconds=deadline,
        context_tokens=context_tokens,
        at_once=at_once,
    )
    by_whom = worker.description if worker is not None else ""
    asked = Asked(named, tasks, split, hint, samples, temperature, max_new_tokens, seed, by_whom)
    folder = run if run is not None else Path("runs") / "eval"
    chosen = name if name is not None else name_of(model) + (f"-{agent}" if agent else "")
    source: Source = (
        Local(model, dtype, max_prompt_tokens)
        if endpoint is None
        else Remote(model, endpoint, api_key_env, concurrency)
    )
    if isinstance(source, Local):
        source, asked = _settled(source, asked, folder, chosen)
    told = Told(wandb, trackio, project)
    result = _evaluated(asked, folder, chosen, limit, source, backend, workers, worker, told, labels)
    if record_pass_rates:
        _record_pass_rates(result)
    labelled = _classification(folder, chosen)
    if as_json:
        classified = {"classification": _figures(labelled)} if labelled is not None else {}
        typer.echo(json.dumps({**result.to_json(), **classified}))
    elif labelled is not None:
        from code_repair_rl.cli.classification_view import print_classification

        print_classification(labelled)
        typer.echo(f"kept in {folder / 'classification' / (chosen + '.json')}")
    else:
        show_results({chosen: result})
        from code_repair_rl.evaluation import plan_from, planning_line, signal_line

        if (signal := signal_line(result)) is not None:
            typer.echo(signal)
        if (plan := plan_from(result)) is not None:
            typer.echo(planning_line(plan))
        if result.left_out:
            typer.echo(
                f"{result.left_out} tasks were left out: their prompts have more than {max_prompt_tokens} tokens"
            )
        _show_turns(result)
        typer.echo(f"kept in {folder / 'eval' / (chosen + '.json')}")


def _settled(source: Local, asked: Asked, folder: Path, name: str) -> tuple[Local, Asked]:
    """What the evaluation of that name computes in, as it was begun, and which weights it is of."""
    from code_repair_rl.evaluation import EvalResult
    from code_repair_rl.models import faster_dtype, weights_digest
    from code_repair_rl.runs import RunDir

    begun = RunDir(folder.absolute())
    path = begun.eval_path(name)
    there = EvalResult.read(path) if path.is_file() else None
    dtype = source.dtype
    if dtype == "auto":
        kept = begun.eval_samples_path(name) / "asked.json"
        known = there.dtype if there is not None else ""
        if there is None and kept.is_file():
            with suppress(ValueError, AttributeError):  # damaged: named where it is held against what is asked
                known = json.loads(kept.read_text()).get("dtype")
        dtype = known or faster_dtype()
    try:
        digest = weights_digest(source.model)
    except BadInput:
        if there is None:
            raise
        digest = ""  # the model has gone since, and what it was found to be is there
    asked = replace(asked, model_digest=digest, dtype=dtype, max_prompt_tokens=source.max_prompt_tokens)
    return replace(source, dtype=dtype), asked


@dataclass(frozen=True, slots=True)
class Asked:
    """What an evaluation is of; fields are named as in `EvalResult`."""

    model: str
    task_set: str
    split: str
    hint: str
    samples: int
    temperature: float
    max_new_tokens: int
    seed: int
    agent: str = ""
    model_digest: str = ""
    dtype: str = ""
    max_prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Local:
    """A model in this process."""

    model: str
    dtype: str
    max_prompt_tokens: int

    def engine(self, journal: Path) -> Engine:
        """The engine that samples from it."""
        return load_engine(self.model, self.dtype)


@dataclass(frozen=True, slots=True)
class Remote:
    """A model behind an address."""

    model: str
    endpoint: str
    api_key_env: str
    concurrency: int
    max_prompt_tokens: None = None

    def engine(self, journal: Path) -> Engine:
        """The engine that asks for it; answers go into `journal` as they come."""
        from code_repair_rl.rollouts.remote import RemoteEngine, key_from_environment

        return RemoteEngine(
            self.endpoint,
            self.model,
            api_key=key_from_environment(self.api_key_env),
            concurrency=self.concurrency,
            journal=journal,
        )


Source = Local | Remote


@dataclass(frozen=True, slots=True)
class Told:
    """Who is told of the result besides the run directory; named as in a recipe."""

    wandb: str
    trackio: bool
    project: str


def show_results(results: dict[str, EvalResult], console: Console | None = None) -> None:
    """Print evaluations as one table: format, apply, pass@k with their intervals, edit precision ("sparing")."""
    from code_repair_rl.evaluation import summary

    found = {name: summary(result) for name, result in results.items()}
    ks = sorted({k for one in found.values() for k in one.pass_at})
    # One column for each model: the intervals then fit into eighty characters.
    table = Table("", *(name + (" (no isolation)" if results[name].stamped_unsafe else "") for name in found))
    table.box, table.pad_edge = None, False
    columns = found.values()
    table.add_row("tasks", *(f"{one.tasks} of {one.problems} problems" for one in columns))
    table.add_row("format", *(_percent(one.format_rate) for one in columns))
    table.add_row("apply", *(_percent(one.apply_rate) for one in columns))
    table.add_row("right place", *(_percent(one.right_place_rate) for one in columns))
    for k in ks:
        table.add_row(f"pass@{k}", *(_with_interval(one.pass_at[k]) if k in one.pass_at else "–" for one in columns))
    table.add_row("sparing", *(_percent(one.edit_precision) for one in columns))
    table.add_row("tokens", *("–" if math.isnan(one.mean_tokens) else f"{one.mean_tokens:.0f}" for one in columns))
    table.add_row("no verdict", *(str(one.no_verdict) for one in columns))
    (console or Console(highlight=False)).print(table)


def _show_turns(result: EvalResult) -> None:
    from code_repair_rl.evaluation import summary

    found = summary(result)
    for most, estimate in found.pass_within.items():
        turns = "answer" if most == 1 else "answers"
        low, high = 100 * estimate.low, 100 * estimate.high
        typer.echo(f"passed within {most} {turns}: {100 * estimate.value:.1f} % ({low:.1f}–{high:.1f})")


def load_engine(model: str, dtype: str = "auto") -> Engine:
    """The engine that samples from a model, named as everywhere.

    Args:
        model: a name, folder or hub id.
        dtype: `bfloat16`, `float32` or `auto`: whichever this machine is faster in.

    Raises:
        BadInput: no such model, or no such dtype.
    """
    from code_repair_rl.models import faster_dtype, load_model, load_tokenizer
    from code_repair_rl.rollouts.local import LocalEngine

    dtype = faster_dtype() if dtype == "auto" else dtype
    if dtype not in ("bfloat16", "float32"):
        raise BadInput(f"sampling does not compute in {dtype!r}", mend="use auto, bfloat16 or float32")
    copy = None if dtype == "float32" else dtype
    engine = LocalEngine(load_model(model, to_sample=True), load_tokenizer(model), copy_dtype=copy)
    engine.refresh()
    return engine


def name_of(model: str) -> str:
    """A name for an evaluation, from its model's: `runs/demo/grpo/model` becomes `grpo`."""
    parts = [part for part in Path(model).parts if part not in ("model", "checkpoints", "/", ".", "..")]
    letters = re.sub(r"[^A-Za-z0-9._-]+", "-", parts[-1] if parts else "model").strip("-._")
    return letters or "model"


def _evaluated(
    asked: Asked,
    folder: Path,
    name: str,
    limit: int | None,
    source: Source,
    backend: str,
    workers: int,
    agent: Agent | None,
    told: Told,
    labels: str,
) -> EvalResult:
    from code_repair_rl.evaluation import EvalResult
    from code_repair_rl.evaluation import evaluate as evaluate_model
    from code_repair_rl.grading import Grader
    from code_repair_rl.pipelines.judging import can_be_completed, keep_evaluation, tell_of
    from code_repair_rl.reporting import trackers
    from code_repair_rl.rollouts import Sampling
    from code_repair_rl.runs import CompositeListener, RunDir
    from code_repair_rl.tasks import HintLevel
    from code_repair_rl.tasks.classification import is_classification, load_as_asked
    from code_repair_rl.tasks.draw import draw

    listener = CompositeListener(*trackers(told))
    HintLevel.named(asked.hint)
    chosen = draw(load_as_asked(asked.task_set, labels, split=asked.split), limit, asked.seed)
    if not chosen:
        raise BadInput(f"the set has no tasks of split {asked.split}", where=asked.task_set)
    if is_classification(chosen):
        asked = replace(asked, hint="none")  # such tasks are asked without one
    there = (folder / "recipe.yaml").is_file()
    run = RunDir.open(folder) if there else RunDir.create(folder, {"name": "eval"}, resume=False)
    if name in run.eval_names():
        result = EvalResult.read(run.eval_path(name))
        _require_same(result, asked, chosen, str(run.eval_path(name)))
        if not can_be_completed(run, result, chosen):
            tell_of(run, result, listener)
            return result
    with run.exclusively(), Grader(backend=backend, workers=workers) as grader:
        engine = source.engine(run.eval_samples_path(name) / "answers.jsonl")
        with batch_progress("evaluating", len(chosen), _speed) as on_batch:
            result = evaluate_model(
                engine,
                chosen,
                grader,
                name=name,
                model=asked.model,
                task_set=asked.task_set,
                hint=asked.hint,
                samples=asked.samples,
                sampling=Sampling(asked.temperature, asked.max_new_tokens, asked.seed),
                samples_path=run.eval_samples_path(name),
                max_prompt_tokens=source.max_prompt_tokens,
                on_batch=on_batch,
                agent=agent,
                model_digest=asked.model_digest,
                dtype=asked.dtype,
            )
        keep_evaluation(run, result, chosen, listener)
    return result


def _classification(folder: Path, name: str) -> ClassificationResult | None:
    """What was found about labels, where labels were asked for."""
    from code_repair_rl.evaluation.classification import ClassificationResult, classification_path
    from code_repair_rl.runs import RunDir

    path = classification_path(RunDir.open(folder), name)
    return ClassificationResult.read(path) if path.is_file() else None


def _figures(result: ClassificationResult) -> dict[str, object]:
    from code_repair_rl.evaluation.classification_summary import summarise
    from code_repair_rl.evaluation.plain_json import without_nan

    return {"notes": list(result.notes), **without_nan(summarise(result).to_json())}


def _record_pass_rates(result: EvalResult) -> None:
    from code_repair_rl.tasks.difficulty import PassRate, record_pass_rates

    rates = {task.task_id: PassRate(task.passed, task.graded) for task in result.tasks if task.graded}
    record_pass_rates(result.model, result.hint, rates, source=result.digest())


def _require_same(result: EvalResult, asked: Asked, tasks: Sequence[Task], where: str) -> None:
    """Refuse to show a finished evaluation as the answer to another question."""
    from code_repair_rl.evaluation.result import NOT_IN_OLDER_FILES, tasks_digest

    differing = [
        key
        for key, value in asdict(asked).items()
        if getattr(result, key) != value and not (key in NOT_IN_OLDER_FILES and not (value and getattr(result, key)))
    ]
    answered = {one.task_id for one in result.tasks}
    if len(answered) + result.left_out != len(tasks):
        differing.append("limit")
    elif tasks_digest([task for task in tasks if task.task_id in answered]) != result.tasks_sha256:
        differing.append("the tasks or their labels")
    if differing:
        raise BadInput(
            f"another evaluation of that name is there; they differ in {', '.join(differing)}",
            where=where,
            mend="choose another --name or --run",
        )


def _speed(progress: Progress) -> str:
    return "read back" if progress.read_back else f"{progress.sampled_tokens / progress.wall_seconds:.0f} tokens/s"


def _percent(estimate: Estimate) -> str:
    return "–" if math.isnan(estimate.value) else f"{100 * estimate.value:.1f} %"


def _with_interval(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "–"
    return f"{100 * estimate.value:.1f} %\n{100 * estimate.low:.1f}–{100 * estimate.high:.1f}"
