"""What several processes of one training job do together. With one process everything here is a plain call."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from code_repair_rl.errors import MachineryFailed
from code_repair_rl.runs import RolloutRow
from code_repair_rl.training.batches import MicroBatch

if TYPE_CHECKING:
    from transformers import Trainer

_T = TypeVar("_T")


def processes() -> int:
    """How many processes train together."""
    return int(dist.get_world_size()) if dist.is_available() and dist.is_initialized() else 1


def place() -> int:
    """This process's number, from 0."""
    return int(dist.get_rank()) if processes() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that samples, grades, records and reports for all."""
    return place() == 0


def meet() -> None:
    """Wait until every process is here."""
    if processes() > 1:
        dist.barrier()


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: Any = None
    error: BaseException | None = None


def on_first(work: Callable[[], _T]) -> _T:
    """Do `work` on the first process, and give every process its result.

    An exception is raised on all of them: otherwise the others would wait for a result that never comes.
    """
    if processes() == 1:
        return work()
    outcome: list[_Outcome | None] = [None]
    if is_first():
        try:
            outcome[0] = _Outcome(value=work())
        except BaseException as error:
            outcome[0] = _Outcome(error=error)
        try:
            pickle.dumps(outcome)
        except Exception as error:  # whatever the object's own methods raise
            outcome[0] = _Outcome(error=MachineryFailed(f"the first process's result cannot be sent ({error})"))
    dist.broadcast_object_list(outcome, src=0)
    found = outcome[0]
    assert found is not None
    if found.error is not None:
        raise found.error
    return found.value  # type: ignore[no-any-return]


def sendable(groups: list[list[RolloutRow]]) -> list[list[RolloutRow]]:
    """The rows as other processes need them: without the texts of their files, which for a repository are large, and of
    which views and lazy trees cannot be sent."""
    if processes() == 1:
        return groups
    return [
        [
            replace(
                row,
                reward_terms=dict(row.reward_terms),
                files_before={},
                files_after=dict.fromkeys(row.files_after, ""),
            )
            for row in group
        ]
        for group in groups
    ]


@dataclass(frozen=True, slots=True)
class PartOfStep:
    """What a micro-batch's figures are set against, so that a step's do not depend on how it was cut and shared out."""

    counts: bool
    """False: it repeats a row to keep other processes company."""
    passes: int
    """Forward passes of this process in the step."""
    tokens: int
    """Drawn tokens that carry a loss, of all processes' passes in the step."""
    rows: int


def parts_of_step(shares: Sequence[MicroBatch], dealt: Sequence[MicroBatch], tokens: int) -> list[PartOfStep]:
    """For each of this process's micro-batches; `dealt` are those of all processes, with so many `tokens`."""
    passes = sum(bool(batch.rows) for batch in shares)
    rows = sum(len(batch.rows) for batch in dealt)
    return [PartOfStep(bool(batch.loss_scale), passes, tokens, rows) for batch in shares]


@contextmanager
def figures_of_step(accelerator: Any, part: PartOfStep, tokens_here: int) -> Iterator[None]:
    """While open, TRL's figures of a micro-batch are such that their mean over the passes is that over the whole step.

    TRL takes a mean over all processes' tokens in each pass, and then the mean of those. It also gathers one value per
    row, and takes all processes to have as many rows; ours have whole groups, so that what is missing is NaN.
    """
    plain_reduce, plain_gather = accelerator.reduce, accelerator.gather

    def reduced(sum_and_count: torch.Tensor, reduction: str = "sum") -> torch.Tensor:
        over_tokens = int(sum_and_count[1]) == tokens_here  # else over rows
        total = plain_reduce(sum_and_count[0] * part.counts, reduction=reduction)
        whole = max(1, part.tokens if over_tokens else part.rows)
        return torch.stack([total * part.passes / whole, torch.ones_like(total)])

    def padded(values: torch.Tensor) -> torch.Tensor:
        whole = accelerator.pad_across_processes(values, dim=0, pad_index=float("nan")) if values.dim() else values
        return plain_gather(whole)  # type: ignore[no-any-return]

    accelerator.reduce, accelerator.gather = reduced, padded if processes() > 1 else plain_gather
    try:
        yield
    finally:
        del accelerator.reduce, accelerator.gather


def share_of(batches: Sequence[MicroBatch], per_process: int, spare: RolloutRow) -> list[MicroBatch]:
    """This process's `per_process` micro-batches of a step, of those that were dealt for all.

    Every process makes the same number of real forward passes, since those of sharded weights are made together: where
    one has a batch less, it takes a row made of `spare`, without loss (`loss_scale` 0). The first pass of a step is
    real for the same reason: with it DeepSpeed overwrites the gradients of the step before, and to later ones it adds.
    Empty micro-batches come between that and the rest.
    """
    count = processes()
    if count == 1:
        return list(batches)
    # One token after another: what the spare row says does not matter, and it may be long, or say nothing at all.
    token = replace(spare, prompt_ids=(0,), token_ids=(0,), logprobs=(0.0,), sampled=(), advantage=0.0)
    idle = MicroBatch((token,), 0.0)
    full = [batch for batch in batches if batch.rows]
    rounds = -(-len(full) // count)
    mine = full[place() :: count]
    mine = [idle] * (rounds - len(mine)) + mine
    empty = per_process - rounds
    return ([idle] if empty else []) + [MicroBatch((), 0.0)] * (empty - 1) + mine


def shares_out_weights(trainer: Trainer) -> bool:
    """Whether each process will hold, or holds, a piece of the weights only (ZeRO-3, FSDP)."""
    plugin = trainer.accelerator.state.deepspeed_plugin
    return bool(trainer.is_fsdp_enabled) or (plugin is not None and plugin.zero_stage == 3)


def whole_weights(trainer: Trainer) -> AbstractContextManager[Any]:
    """While open, whoever samples has the current weights: the plain model in this process, which ZeRO-3 gathers, or a
    server, which is sent them (`trainer.push`).

    Every process must open it.
    """
    push = getattr(trainer, "push", None)
    if push is not None:
        push(trainer)
        return nullcontext()
    return _gathered(trainer.model_wrapped) if processes() > 1 else nullcontext()


@contextmanager
def _gathered(engine: Any) -> Iterator[None]:
    """While open, a ZeRO-3 engine's weights are whole here and its hooks are off.

    The hooks gather with the other processes, and compare each forward pass with theirs: those that do not sample would
    have to make as many passes.
    """
    parameters = [parameter for parameter in engine.parameters() if hasattr(parameter, "ds_id")]
    if not parameters:
        yield
        return
    import deepspeed

    tables = [table for module in engine.modules() for table in (module._forward_pre_hooks, module._forward_hooks)]
    kept = [dict(table) for table in tables]
    with deepspeed.zero.GatheredParameters(parameters):
        for table in tables:
            table.clear()
        try:
            yield
        finally:
            for table, hooks in zip(tables, kept, strict=True):
                table.update(hooks)


def measured_once(trainer: Trainer, measure: Callable[[int], float]) -> Callable[[int], float]:
    """`measure`, done by the first process for all, with all weights at hand."""

    def together(step: int) -> float:
        with whole_weights(trainer):
            return on_first(lambda: measure(step))

    return together


class Agree(TrainerCallback):  # type: ignore[misc]
    """Lets the first process decide when to stop and to save: clocks differ, and a process that stops alone hangs all.

    Add it after whoever decides by a clock, and before whoever acts on the decision.
    """

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take over the first process's decisions."""
        if processes() == 1:
            return
        decided = on_first(lambda: (control.should_training_stop, control.should_save))
        control.should_training_stop, control.should_save = decided
