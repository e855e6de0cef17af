"""`crrl plan`: memory, time and bottleneck of a GRPO step before it starts."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from code_repair_rl.planning import Plan, Workload
    from code_repair_rl.recipes import Recipe

_GIB = 1 << 30


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("plan")(plan)


def plan(
    model: str = typer.Option("", "--model", help="Shipped name (Qwen3-8B …), config.json, folder or hub id."),
    recipe: str = typer.Option("", "--recipe", help="Take from this recipe what no option says."),
    prompt: int | None = typer.Option(None, "--prompt", min=1, help="Tokens of a prompt."),
    completion: int | None = typer.Option(None, "--completion", min=1, help="Mean tokens of an answer."),
    longest: int | None = typer.Option(
        None, "--longest", min=1, help="Most tokens of an answer (memory); default the mean."
    ),
    group: int | None = typer.Option(None, "--group", min=1, help="Answers per prompt."),
    prompts: int | None = typer.Option(None, "--prompts", min=1, help="Prompts per step."),
    lora: int | None = typer.Option(None, "--lora", min=0, help="Rank of adapters; 0 trains all weights."),
    at_once: int | None = typer.Option(None, "--at-once", min=1, help="Answers in one forward over all training GPUs."),
    checkpointing: bool | None = typer.Option(
        None, "--checkpointing/--no-checkpointing", help="Gradient checkpointing; without a recipe on."
    ),
    shared_prefix: bool = typer.Option(True, "--shared-prefix/--no-shared-prefix", help="Compute a prompt once."),
    autocast: bool | None = typer.Option(
        None, "--autocast/--no-autocast", help="Products in bf16; without, all memory is planned for fp32."
    ),
    gpu: str = typer.Option("H100-80GB", "--gpu", help="A known device, or any name with the three figures below."),
    memory_gib: float | None = typer.Option(None, "--memory-gib", help="Memory of a device."),
    tflops: float | None = typer.Option(None, "--tflops", help="Its dense bf16 rate, 10^12 operations a second."),
    bandwidth: float | None = typer.Option(None, "--bandwidth", help="Of its memory, GB/s."),
    training_gpus: int | None = typer.Option(None, "--training-gpus", min=1, help="Default: the fewest that fit."),
    sharding: str = typer.Option("", "--sharding", help="single, ddp, zero2, zero3 or fsdp2."),
    generation_gpus: int | None = typer.Option(
        None, "--generation-gpus", min=0, help="0: generation shares the devices."
    ),
    tensor_parallel: int | None = typer.Option(
        None, "--tensor-parallel", min=1, help="Devices of one generation engine; default: the fewest that fit, or 1."
    ),
    offload: bool | None = typer.Option(
        None, "--offload/--no-offload", help="Keep the optimizer's state on the host (zero2, zero3)."
    ),
    link: float = typer.Option(25.0, "--link", help="GB/s between devices."),
    grading_seconds: float = typer.Option(0.1, "--grading-seconds", min=0, help="Sandbox seconds per answer."),
    grading_workers: int | None = typer.Option(
        None, "--grading-workers", min=1, help="Answers graded at once; without a recipe 16."
    ),
    published: bool = typer.Option(False, "--published", help="Show GPU counts that others report beside ours."),
    require_fit: bool = typer.Option(False, "--require-fit", help="End with 1 where it does not fit."),
    as_json: bool = typer.Option(False, "--json", help="Print an object."),
) -> None:
    """Tell what a GRPO step will need and take: memory by part, time by phase, the bottleneck, what moves it.

    Reads figures of the architecture only: no weights, and no network unless a hub id is named. Without
    --training-gpus, or a recipe with several processes, it looks for the fewest devices that fit.
    """
    from code_repair_rl.errors import BadInput
    from code_repair_rl.planning import Assumptions, Device, Layout, device_named, fewest_gpus, make_plan

    if published:
        _show_published(as_json)
        return
    read = _read(recipe)
    work = _workload(read, model)
    changes = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "max_completion_tokens": longest,
        "group": group,
        "prompts": prompts,
        "forward_sequences": at_once,
        "gradient_checkpointing": checkpointing,
        "autocast": autocast,
    }
    if at_once is not None:
        work = dataclasses.replace(work, micro_batch_tokens=None)
    work = dataclasses.replace(
        work,
        **{name: value for name, value in changes.items() if value is not None},  # type: ignore[arg-type]
        lora_rank=work.lora_rank if lora is None else lora or None,
        shared_prefix=shared_prefix,
    )
    figures = {"memory_gib": memory_gib, "tflops": tflops, "bandwidth_gb_s": bandwidth}
    told = {name: value for name, value in figures.items() if value is not None}
    if len(told) == len(figures):
        device = Device(gpu, **told, source="given")
    else:
        device = dataclasses.replace(device_named(gpu), **told)  # type: ignore[arg-type]
    if sharding not in ("", "single", "ddp", "zero2", "zero3", "fsdp2"):
        raise BadInput("no such sharding", where=sharding, mend="say single, ddp, zero2, zero3 or fsdp2")
    if read is not None:
        launch = read.launch
        if launch.kind != "single":
            sharding = sharding or launch.kind
            training_gpus = training_gpus or launch.processes
        if generation_gpus is None and launch.vllm is None:
            generation_gpus = 0  # the model samples by itself
        offload = launch.offload != "none" if offload is None else offload
        grading_workers = read.sandbox.workers if grading_workers is None else grading_workers
    if training_gpus is None:
        found = fewest_gpus(
            work,
            device,
            sharding=sharding or "zero3",  # type: ignore[arg-type]
            generate=generation_gpus != 0,
            tensor_parallel=tensor_parallel,
            offload_optimizer=bool(offload),
        )
        engines = found.generation_gpus if generation_gpus is None else generation_gpus
        layout = dataclasses.replace(found, generation_gpus=engines)
    else:
        used = sharding or ("single" if training_gpus == 1 else "zero3")
        parallel = tensor_parallel or 1
        engines = parallel if generation_gpus is None else generation_gpus
        layout = Layout(training_gpus, used, engines, parallel, bool(offload))  # type: ignore[arg-type]
    given = Assumptions(link_gb_s=link, grading_seconds=grading_seconds, grading_workers=grading_workers or 16)
    made = make_plan(work, layout, device, given)
    if as_json:
        typer.echo(json.dumps(made.to_json(), indent=2))
    else:
        _show(made)
    if require_fit and not made.fits:
        raise typer.Exit(1)


def _read(recipe: str) -> Recipe | None:
    if not recipe:
        return None
    from code_repair_rl.recipes import compose

    return compose(recipe)


def _workload(read: Recipe | None, model: str) -> Workload:
    """The recipe's step, or the default one, for `model` (default: the recipe's, else the embedded one)."""
    from code_repair_rl.planning import Workload, architecture

    if read is None:
        return Workload(architecture(model or "smollm2-135m-instruct"))
    return Workload(
        architecture(model or read.model.name),
        prompt_tokens=read.tasks.max_prompt_tokens,
        completion_tokens=read.grpo.max_new_tokens,
        group=read.grpo.completions_per_task,
        prompts=read.grpo.tasks_per_step,
        lora_rank=read.model.lora.rank if read.model.lora else None,
        gradient_checkpointing=read.model.gradient_checkpointing,
        micro_batch_tokens=read.grpo.micro_batch_tokens,
        autocast=read.model.autocast != "none",  # `auto` is bf16 on a GPU
        reference=read.grpo.kl_beta > 0,
    )


def _show(made: Plan) -> None:
    console = Console(highlight=False)
    work, layout = made.workload, made.layout
    console.print(
        f"[bold]{work.model.name}[/bold], {work.model.parameters / 1e9:.2f} B parameters, "
        f"{work.trained_parameters / 1e6:.0f} M trained; {work.prompts} prompts x {work.group} answers, "
        f"{work.prompt_tokens} + {work.completion_tokens} tokens"
    )
    shared = layout.generation_gpus == 0
    generation = "sample too" if shared else f"and {layout.generation_gpus} for generation"
    engines = "" if shared else f" (engines of {layout.tensor_parallel})"
    console.print(
        f"{layout.training_gpus} training GPU(s) ({layout.sharding}) {generation}{engines}, {made.device.name}\n"
    )
    sampling = ("a training GPU while it samples", made.usable) if shared else ("a generation GPU", 0)
    for title, parts, limit, fits in (
        ("a training GPU", made.training, made.usable, made.training_fits),
        (sampling[0], made.generation, sampling[1], made.generation_fits),
    ):
        table = Table(title=f"memory of {title}", title_justify="left", box=None)
        table.add_column("part")
        table.add_column("GiB", justify="right")
        for part, size in parts.items():
            table.add_row(part, f"{size / _GIB:.2f}")
        table.add_row("[bold]together[/bold]", f"[bold]{sum(parts.values()) / _GIB:.2f}[/bold]")
        if limit:
            table.add_row("usable", f"{limit / _GIB:.2f}")
        console.print(table)
        console.print("[green]fits[/green]\n" if fits else "[red]does not fit[/red]\n")
    table = Table(title="one step", title_justify="left", box=None)
    for column in ("phase", "seconds", "tokens", "TFLOP"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for phase in made.phases:
        table.add_row(phase.name, f"{phase.seconds:.1f}", f"{phase.tokens}", f"{phase.flops / 1e12:.1f}")
    table.add_row("[bold]step[/bold]", f"[bold]{made.step_seconds:.1f}[/bold]")
    console.print(table)
    console.print(f"\nbottleneck: [bold]{made.bottleneck}[/bold]; {made.concurrent_answers} answers at once an engine")
    for knob in made.knobs:
        mark = "" if knob.fits else " (still does not fit)"
        console.print(f"  {knob.change}: {knob.step_seconds:.1f} s a step{mark}")


def _show_published(as_json: bool) -> None:
    from code_repair_rl.planning.published import reproduce

    rows = reproduce()
    if as_json:
        typer.echo(json.dumps([{**dataclasses.asdict(row), "agrees": row.agrees} for row in rows], indent=2))
        return
    table = Table(box=None)
    for column in ("run", "reported GPUs", "ours", "by memory alone", "GiB a training GPU", "source"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(
            row.what,
            str(row.reported_gpus),
            str(row.fewest_gpus),
            str(row.fewest_by_memory),
            f"{row.training_gib}",
            row.source,
        )
    Console(highlight=False).print(table)
