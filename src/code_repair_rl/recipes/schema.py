"""The typed schema of a recipe: everything that a run depends on, with its unit and its reason.

A recipe is data. It names a model, tasks, how to sample, how to reward and how to train; the rooms that do the work
read their own section and nothing else. Unknown keys are refused, so that a misspelt option never passes silently.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A part of a recipe: frozen, and closed against unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class LoraSection(Section):
    """Low-rank adapters in place of full fine-tuning (`model.lora`)."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"


class ModelSection(Section):
    """Which model, and how it is held in memory."""

    name: str = "smollm2-135m-instruct"
    """The embedded model, a hub id, or a local path."""
    autocast: Literal["auto", "bfloat16", "none"] = "auto"
    """Precision of the matrix products in training; the weights themselves stay in fp32. `auto`: bfloat16, but for
    processors that are slower in it; a run keeps what was chosen."""
    lora: LoraSection | None = None
    gradient_checkpointing: bool = False

    @property
    def in_bf16(self) -> bool:
        """Whether products are computed in bf16.

        Raises:
            ValueError: that is left to the machine, and has not been chosen yet (`code_repair_rl.models.settled`).
        """
        if self.autocast == "auto":
            raise ValueError("the precision has not been chosen: pass the recipe through `settled` first")
        return self.autocast == "bfloat16"


class TasksSection(Section):
    """What is asked, and with how much help."""

    name: str = "humaneval-bugs"
    """The name of a built set, or the path of a JSON Lines file."""
    hint: Literal["none", "failing-call", "suspicious-lines", "exact-line"] = "exact-line"
    """How much of the fault's place the prompt gives away."""
    labels: str = Field(default="binary", pattern=r"^(binary|full|top-[1-9][0-9]{0,2})$")
    """Classification: the labels asked for. `binary` (vulnerable or benign), `top-N` (the N most frequent CWEs of the
    training split, `other` and `benign`) or `full` (any CWE or `benign`)."""
    max_prompt_tokens: int = Field(default=512, ge=16)
    """Tasks with longer prompts are left out and counted."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many training tasks (drawn by the seed); None means all."""
    rated_by: str | None = None
    """Name of a model whose recorded pass rates (`crrl tasks difficulty`) filter and order the training tasks."""
    pass_rates: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest recorded pass rate of the tasks trained on, both included. Narrower than (0, 1) it also leaves
    out tasks without a rate."""
    order: Literal["shuffled", "easiest-first", "hardest-first"] = "shuffled"
    """How GRPO goes through the tasks: shuffled anew in every pass, or by recorded pass rate (a curriculum)."""

    @model_validator(mode="after")
    def _has_rates(self) -> TasksSection:
        low, high = self.pass_rates
        if not 0 <= low <= high <= 1:
            raise ValueError("pass_rates are two numbers between 0 and 1, the lower one first")
        if self.rated_by is None and (self.order != "shuffled" or self.pass_rates != (0.0, 1.0)):
            raise ValueError("rated_by has to name a model where tasks are chosen or ordered by pass rate")
        return self


class SandboxSection(Section):
    """Where answers run."""

    backend: str = "auto"
    """`auto` takes the best backend that really isolates; `unsafe_local` isolates nothing and stamps every result."""
    workers: int = Field(default=2, ge=1)
    ray: str | None = None
    """Address of a Ray cluster (`auto`, `ray://…`) whose nodes grade, `workers` answers at once on each; None: this
    machine does."""


class SftSection(Section):
    """Supervised fine-tuning on oracle edits, loss on the completion only."""

    steps: int = Field(default=40, ge=0)
    """Optimiser steps; 0 leaves the model as it is."""
    batch_size: int = Field(default=8, ge=1)
    """Examples per optimiser step."""
    micro_batch_tokens: int = Field(default=1536, ge=1)
    """A forward takes at most so many tokens (at least one example). More takes more memory: about 1 MB a token for the
    embedded model."""
    kl_beta: float = Field(default=0.0, ge=0)
    """Weight of the KL divergence from the model before training, exact over the vocabulary; 0 is plain fine-tuning.
    Costs one more forward pass without gradients."""
    learning_rate: float = Field(default=5e-5, gt=0)
    warmup_steps: int = Field(default=4, ge=0)
    max_minutes: float | None = Field(default=None, gt=0)
    """Stop after this much training time even if steps are left."""
    data: str | None = None
    """A file of curated conversations (`crrl curate`) to learn from in place of known-good edits."""
    with_known_good: bool = False
    """With `data`: learn from the known-good edits of the training tasks as well."""
    save_every: int = Field(default=50, ge=1)
    """Steps between resumable checkpoints."""


class GrpoSection(Section):
    """Group-relative policy optimisation."""

    steps: int = Field(default=30, ge=0)
    """Optimiser steps; each samples `tasks_per_step` groups."""
    tasks_per_step: int = Field(default=8, ge=1)
    completions_per_task: int = Field(default=8, ge=2)
    """The group size."""
    micro_batch_tokens: int = Field(default=1536, ge=1)
    """A forward takes at most so many tokens, prompts and common beginnings of answers counted once (at least one
    answer). More is a little faster and takes more memory: about 1 MB a token for the embedded model."""
    learning_rate: float = Field(default=4e-5, gt=0)
    warmup_steps: int = Field(default=2, ge=0)
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=96, ge=1)
    loss: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dr_grpo"
    """TRL's losses, all of them."""
    scale_rewards: Literal["none", "group", "batch"] = "none"
    """What advantages are divided by: nothing (Dr. GRPO), or a standard deviation."""
    importance_sampling: Literal["token", "sequence"] = "token"
    """The level of the policy ratio; `sequence` is GSPO."""
    clip_low: float = Field(default=0.2, gt=0)
    clip_high: float = Field(default=0.28, gt=0)
    """Clip-higher: the upper bound may be wider than the lower one."""
    ratio_cap: float | None = Field(default=2.0, gt=1)
    """Truncates the ratio to the sampler's probabilities for answers with a negative advantage, too."""
    kl_beta: float = Field(default=0.0, ge=0)
    """Weight of the KL divergence to the reference policy; 0 needs no reference."""
    kl_reference: Literal["fixed", "moving"] = "fixed"
    """`fixed`: the policy before training. `moving`: follows the policy, so that how far each
    step leads away from the last is bounded, but not how far all of them lead."""
    kl_reference_rate: float = Field(default=1.0, gt=0, le=1)
    """How far a moving reference goes towards the policy in each step; 1: it is the policy one step ago."""
    mask_truncated: bool = True
    """Whether answers cut off by `max_new_tokens` leave the loss."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_resampled_groups: int = Field(default=8, ge=0)
    """Per step, how many groups without variance may be replaced by fresh tasks (dynamic sampling)."""
    difficulty: tuple[float, float] = (0.0, 1.0)
    """Tasks whose last measured pass rate lies outside these bounds are passed over while others are left."""
    max_minutes: float | None = Field(default=None, gt=0)
    """Stop after this much training time even if steps are left."""
    save_every: int = Field(default=20, ge=1)
    """Steps between resumable checkpoints."""
    validate_every: int = Field(default=10, ge=1)
    """Steps between evaluations on the validation split; the best one is the result."""
    validation_tasks: int = Field(default=48, ge=0)
    """0 keeps the last weights instead of the best."""
    validation_samples: int = Field(default=2, ge=1)


class AgentSection(Section):
    """Who works on a task, where that is more than one answer: training, validation and evaluation alike."""

    name: str = Field(default="repair-loop", pattern=r"^(repair-loop|mini-swe-agent|nano-agent|[\w.]+:\w+)$")
    """`repair-loop`: edit, run the visible tests, read the failure, edit again. `mini-swe-agent`, `nano-agent`: these
    programs, in a jail. `module:Class`: an adapter of your own for another program."""
    max_turns: int = Field(default=3, ge=1)
    """Answers per attempt at most; each may have `max_new_tokens`. Of a program 30, where nothing is said."""
    undo: bool = True
    """`repair-loop`: whether a failed edit is undone, so that each answer edits the task's own files; false lets
    answers build on one another."""
    max_feedback_characters: int = Field(default=300, ge=40)
    """`repair-loop`: how much of a failure is shown; the prompt of every later answer holds it."""
    deadline_seconds: float = Field(default=300.0, gt=0)
    """Programs: of one attempt, with everything it waits for."""
    context_tokens: int | None = Field(default=None, ge=1)
    """Programs: the longest conversation, where that is less than the model's context."""
    at_once: int = Field(default=8, ge=1)
    """Programs: attempts at the same time."""

    @model_validator(mode="before")
    @classmethod
    def _turns_of_programs(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("name", "repair-loop") != "repair-loop":
            return {"max_turns": 30, **given}
        return given


class LaunchSection(Section):
    """On how many processes a run trains, and what they share; what came of it is checked at the start."""

    kind: Literal["single", "ddp", "zero2", "zero3", "fsdp2"] = "single"
    """`ddp`: each process holds everything. `zero2`: DeepSpeed, optimizer state and gradients are shared out. `zero3`:
    the weights as well. `fsdp2`: as `zero3`, PyTorch's own, on GPUs only."""
    processes: int = Field(default=1, ge=1)
    """Of the whole job, over all nodes."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """`zero2`, `zero3`: what lives in the host's memory; `all` (`zero3` only) adds the weights."""
    timeout_minutes: float = Field(default=60.0, gt=0)
    """How long processes wait for one another, sampling and validation included, before the job fails."""
    vllm: str | None = None
    """Address of a vLLM server that samples in training (`http://host:8000`); None: the model samples itself."""
    speedups: tuple[Literal["liger", "paged-adamw-8bit", "flash-attention", "unsloth"], ...] = ()
    """Optional packages to use; a run that asks for one that is not there ends at once and says so."""

    @model_validator(mode="after")
    def _possible(self) -> LaunchSection:
        if self.kind == "single" and self.processes > 1:
            raise ValueError("several processes need a kind: ddp, zero2, zero3 or fsdp2")
        if self.offload != "none" and self.kind not in ("zero2", "zero3"):
            raise ValueError("only zero2 and zero3 offload")
        if self.offload == "all" and self.kind != "zero3":
            raise ValueError("only zero3 offloads the weights")
        return self


class EvaluationSection(Section):
    """How models are judged."""

    split: Literal["train", "validation", "test"] = "test"
    tasks: int | None = Field(default=64, ge=1)
    """How many tasks (drawn by `seed`, the same for every model compared); None means all."""
    samples: int = Field(default=4, ge=1)
    """Answers per task; pass@k is reported up to this k."""
    temperature: float = Field(default=0.8, ge=0)
    max_new_tokens: int = Field(default=96, ge=1)
    seed: int = 0
    """Of the choice of tasks and of sampling; kept apart from the training seed."""
    forgetting_tasks: int = Field(default=0, ge=0)
    """On how many of the tasks it is also measured what models forgot: correct code left alone, ordinary coding."""


class TrackingSection(Section):
    """Who is told about a run besides its own directory. Nothing is sent unless asked for."""

    wandb: Literal["off", "offline", "online"] = "off"
    trackio: bool = False
    project: str = "code-repair-rl"


class Recipe(Section):
    """One run, whole."""

    name: str = Field(min_length=1)
    description: str = ""
    seed: int = 0
    threads: int | None = Field(default=None, ge=1)
    """Torch's threads; None leaves torch's own choice."""
    study: bool = False
    """Whether the reward may break the rule that no failing answer outranks a passing one (comparison only)."""
    model: ModelSection = ModelSection()
    launch: LaunchSection = LaunchSection()
    tasks: TasksSection = TasksSection()
    sandbox: SandboxSection = SandboxSection()
    reward: dict[str, float] = Field(default_factory=dict)
    """Weights of the reward's terms by name; what is left out keeps its default."""
    sft: SftSection = SftSection()
    grpo: GrpoSection = GrpoSection()
    agent: AgentSection | None = None
    """None: a single answer per attempt."""
    control: bool = False
    """Whether to train a compute-matched control: the time that GRPO took, spent on more SFT."""
    evaluation: EvaluationSection = EvaluationSection()
    tracking: TrackingSection = TrackingSection()
