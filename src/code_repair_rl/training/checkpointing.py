"""Checkpoints of a TRL trainer, made atomic: written aside, then adopted by the run directory with a manifest."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers import Trainer

from code_repair_rl.home import require_free_space
from code_repair_rl.recipes import LaunchSection
from code_repair_rl.runs import RunDir, RunListener
from code_repair_rl.training.launch import state_of
from code_repair_rl.training.together import is_first, meet, on_first

KEPT_CHECKPOINTS = 2
"""The newest ones stay, in case the very newest is damaged."""

_BYTES_PER_PARAMETER = 12
"""An fp32 weight and Adam's two fp32 moments."""


class AtomicCheckpoints(Trainer):  # type: ignore[misc]
    """A `Trainer` whose checkpoints are steps of a `RunDir`; mix it in before TRL's trainer.

    Attributes:
        run: where checkpoints go.
        listener: told of the phase.
        launch: how many processes train, and how.
    """

    run: RunDir
    listener: RunListener
    launch: LaunchSection = LaunchSection()
    _writing_to: Path | None = None

    def extra_state(self) -> dict[str, str]:
        """Further files of a checkpoint, name to text."""
        return {}

    def extra_tensors(self) -> dict[str, dict[str, Tensor]]:
        """Further tensors of a checkpoint, by file name."""
        return {}

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._writing_to or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Override of TRL's (which also writes a model card into the run, whole checkpoint or not)."""
        step = self.state.global_step
        self.listener.on_phase(step, "checkpoint")
        # Under ZeRO-3 a parameter's own size is that of nothing, or of its piece.
        parameters = sum(getattr(one, "ds_numel", one.numel()) for one in self.model.parameters() if one.requires_grad)
        require_free_space(self.run.path, _BYTES_PER_PARAMETER * parameters, f"the checkpoint of step {step}")
        # Several processes write into one folder; it becomes a checkpoint when all of them have.
        self._writing_to = on_first(lambda: Path(tempfile.mkdtemp(prefix=".checkpoint.", dir=self.run.path)))
        try:
            Trainer._save_checkpoint(self, model, trial)
            meet()
            on_first(lambda: self._adopt(step))
        finally:
            if is_first():
                shutil.rmtree(self._writing_to, ignore_errors=True)
            self._writing_to = None

    def _adopt(self, step: int) -> None:
        assert self._writing_to is not None
        folder = self._writing_to / f"checkpoint-{step}"
        for name, text in {**state_of(self.launch), **self.extra_state()}.items():
            (folder / name).write_text(text)
        for name, tensors in self.extra_tensors().items():
            save_file(tensors, folder / name)
        self.run.adopt_checkpoint(step, folder)
        self.run.prune_checkpoints(KEPT_CHECKPOINTS)
