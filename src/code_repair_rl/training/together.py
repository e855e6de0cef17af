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
    """The rows with plain dictionaries, which other processes can be sent; views and lazy trees cannot."""
    if processes() == 1:
        return groups
    return [
        [
            replace(
                row,
                reward_terms=dict(row.reward_terms),
                files_before=dict(row.files_before),
                files_after=dict(row.files_after),
            )
            for row in group
        ]
        for group in groups
    ]


@contextmanager
def ragged_gathers(accelerator: Any) -> Iterator[None]:
    """While open, processes may gather vectors of different lengths; what is missing is NaN.

    TRL gathers one value per row for its figures, and takes all processes to have as many rows. Ours have whole groups.
    """
    if processes() == 1:
        yield
        return
    plain = accelerator.gather

    def padded(values: torch.Tensor) -> torch.Tensor:
        whole = accelerator.pad_across_processes(values, dim=0, pad_index=float("nan")) if values.dim() else values
        return plain(whole)  # type: ignore[no-any-return]

    accelerator.gather = padded
    try:
        yield
    finally:
        del accelerator.gather


def share_of(batches: Sequence[MicroBatch], per_process: int) -> list[MicroBatch]:
    """This process's `per_process` micro-batches of a step, of those that were dealt for all.

    Every process makes the same number of real forward passes, since those of sharded weights are made together: where
    one has a batch less, it repeats a row that carries no loss (`loss_scale` 0). Empty ones come first.
    """
    count = processes()
    if count == 1:
        return list(batches)
    full = [batch for batch in batches if batch.rows]
    mine = full[place() :: count]
    rounds = -(-len(full) // count)
    if len(mine) < rounds:
        row = min((row for batch in full for row in batch.rows), key=lambda row: len(row.token_ids))
        mine.append(MicroBatch((replace(row, advantage=0.0),), 0.0))
    return [MicroBatch((), 0.0)] * (per_process - rounds) + mine


def whole_weights(trainer: Trainer) -> AbstractContextManager[Any]:
    """While open, whoever samples has the current weights: the plain model in this process, which ZeRO-3 gathers, or a
    server, which is sent them (`trainer.push`).

    Every process must open it.
    """
    push = getattr(trainer, "push", None)
    if push is not None:
        push(trainer)
        return nullcontext()
    if processes() == 1 or not _is_zero3(trainer):
        return nullcontext()
    from trl.models.utils import unwrap_model_for_generation

    found: AbstractContextManager[Any] = unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator)
    return found


def _is_zero3(trainer: Trainer) -> bool:
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    return plugin is not None and plugin.zero_stage == 3


def measured_once(trainer: Trainer, measure: Callable[[int], float]) -> Callable[[int], float]:
    """`measure`, done by the first process for all, with all weights at hand."""

    def together(step: int) -> float:
        with whole_weights(trainer):
            return on_first(lambda: measure(step))

    return together


class Agree(TrainerCallback):  # type: ignore[misc]
    """Lets the first process decide when to stop and to save: clocks differ, and a process that stops alone hangs all.

    Add it last.
    """

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take over the first process's decisions."""
        if processes() == 1:
            return
        decided = on_first(lambda: (control.should_training_stop, control.should_save))
        control.should_training_stop, control.should_save = decided
