"""Several processes train as one does, say so when they would not, and fail with a clear error when one of them dies.

The jobs are real: torchrun with gloo on this machine, `tests.training.distributed_program` in each process.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from code_repair_rl.cli.processes import run_job
from code_repair_rl.errors import BadInput
from code_repair_rl.models import TINY_MODEL, load_model
from code_repair_rl.recipes import LaunchSection, ModelSection
from code_repair_rl.runs import RunDir
from code_repair_rl.training import together
from code_repair_rl.training.batches import MicroBatch, tensors
from code_repair_rl.training.launch import (
    STATE_FILE,
    Realised,
    join,
    require_realised,
    require_resumable,
    require_sampling,
    state_of,
    trainer_settings,
)
from code_repair_rl.training.speedups import speedup_settings
from tests.training.test_batches import row

PLAIN = ModelSection(autocast="none")
DDP = {"kind": "ddp", "processes": 2}
ZERO2 = {"kind": "zero2", "processes": 2}
ZERO3 = {"kind": "zero3", "processes": 2}
has_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs the extra deepspeed")


def job(stage: str, folder: Path, asked: dict[str, Any], processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a job to its end."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    program = ["-m", "tests.training.distributed_program", stage, str(folder), json.dumps(asked)]
    return subprocess.run(
        [sys.executable, *launcher, *program],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def figures(folder: Path, *names: str) -> list[float]:
    """The named metrics of every step, in order."""
    rows = [row.values for row in RunDir.open(folder).metrics()]
    return [row[name] for row in rows for name in names if name in row]


def assert_same_training(one: Path, other: Path) -> None:
    """Losses and gradients of every step, and the weights at the end."""
    names = ("train/loss", "train/grad_norm", "train/kl")
    assert figures(one, *names)
    assert figures(one, *names) == pytest.approx(figures(other, *names), abs=1e-3)
    assert_same_weights(one, other)


def assert_same_weights(one: Path, other: Path) -> None:
    """The consolidated result."""
    first, second = (load_file(folder / "model" / _weights(folder)) for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[name], value, atol=1e-3) for name, value in second.items())


def _weights(folder: Path) -> str:
    adapter = folder / "model" / "adapter_model.safetensors"
    return adapter.name if adapter.is_file() else "model.safetensors"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of a case by a single process, made once."""

    @functools.cache
    def made(case: str) -> Path:
        stage, asked = CASES[case]
        folder = tmp_path_factory.mktemp("alone") / case
        done = job(stage, folder, asked)
        assert done.returncode == 0, done.stderr[-2000:]
        return folder

    return made


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("sft", {}),
    "sft-kl": ("sft", {"kl_beta": 0.5}),
    "sft-kl-lora": ("sft", {"kl_beta": 0.5, "lora": True}),
    "grpo": ("grpo", {}),
    "grpo-dapo": ("grpo", {"loss": "dapo"}),
    "grpo-kl": ("grpo", {"kl_beta": 0.5}),
    "grpo-kl-lora": ("grpo", {"kl_beta": 0.5, "lora": True}),
    "grpo-agent": ("grpo", {"agent": True, "micro_batch_tokens": 2000}),
}


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("launch", "case"),
    [
        *(pytest.param(DDP, case, id=f"ddp-{case}") for case in CASES),
        *(pytest.param(ZERO2, case, id=f"zero2-{case}", marks=has_deepspeed) for case in ("sft", "grpo", "grpo-kl")),
        *(pytest.param(ZERO3, case, id=f"zero3-{case}", marks=has_deepspeed) for case in CASES),
    ],
)
def test_two_processes_train_as_one(
    case: str, launch: dict[str, Any], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    stage, asked = CASES[case]
    both = job(stage, tmp_path / "both", {**asked, "launch": launch}, processes=2)
    assert both.returncode == 0, both.stderr[-2000:]
    assert_same_training(alone(case), tmp_path / "both")
    if asked.get("agent"):
        rows = RunDir.open(tmp_path / "both").rollouts(1)
        assert {len(row.turns or ()) for row in rows} == {3, 5}
        assert not any(all(row.sampled) for row in rows)  # what the environment said is there, and masked
    if asked.get("kl_beta"):
        assert max(figures(tmp_path / "both", "train/kl")) > 1e-4


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("launch", "resumed_by"),
    [
        pytest.param(DDP, {}, id="ddp-resumed-by-one"),
        pytest.param(ZERO3, ZERO3, id="zero3-resumed-by-as-many", marks=has_deepspeed),
    ],
)
def test_a_killed_process_ends_the_job_and_its_checkpoint_resumes_it(
    launch: dict[str, Any], resumed_by: dict[str, Any], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    asked = {"steps": 3, "launch": launch}
    killed = job("sft", tmp_path / "cut", {**asked, "die_at": 2}, processes=2)
    assert killed.returncode != 0
    assert "Signal 9 (SIGKILL)" in killed.stderr
    assert [one.step for one in RunDir.open(tmp_path / "cut").checkpoints()] == [2]
    resumed = job("sft", tmp_path / "cut", {**asked, "launch": resumed_by}, resumed_by.get("processes", 1))
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert figures(tmp_path / "cut", "train/loss") == pytest.approx(figures(alone("sft"), "train/loss"), abs=1e-3)
    assert_same_weights(alone("sft"), tmp_path / "cut")


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("stage", "whose", "steps"), [("sft", 0, 1), ("sft", 1, 3), ("grpo", 0, 1)])
def test_the_first_process_says_when_the_time_is_up(stage: str, whose: int, steps: int, tmp_path: Path) -> None:
    """Clocks differ: here one process is over its budget after the first step, and the other never is."""
    asked = {"steps": 3, "launch": DDP, "validated": True, "max_minutes": {str(whose): 1e-6}}
    done = job(stage, tmp_path / "both", asked, processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(figures(tmp_path / "both", "train/loss")) == steps
    assert (tmp_path / "both" / "model").is_dir()


@pytest.mark.slow
@pytest.mark.timeout(1500)
@has_deepspeed
def test_zero3_loads_into_pieces_and_trains_as_one(alone: Callable[[str], Path], tmp_path: Path) -> None:
    model = load_model(TINY_MODEL)
    model.save_pretrained(tmp_path / "model")
    weights = sum(one.numel() for one in model.parameters())
    both = job("sft", tmp_path / "both", {"launch": ZERO3, "model": str(tmp_path / "model"), "kl_beta": 0.5}, 2)
    assert both.returncode == 0, both.stderr[-2000:]
    for place in range(2):
        whole, in_pieces = json.loads((tmp_path / "both" / f"loaded-{place}.json").read_text())
        assert whole == 0
        assert weights / 2 <= in_pieces < 0.51 * weights
    assert_same_training(alone("sft-kl"), tmp_path / "both")


@pytest.mark.slow
@pytest.mark.timeout(1500)
@has_deepspeed
def test_a_model_in_pieces_samples_as_a_whole_one_does(tmp_path: Path) -> None:
    """All in bf16, as recipes have it: the sampler is a copy that one process makes of the gathered weights."""
    load_model(TINY_MODEL).save_pretrained(tmp_path / "model")
    bf16 = {"copy_dtype": "bfloat16", "autocast": "bfloat16"}
    asked = {"model": str(tmp_path / "model"), **bf16, "kl_beta": 0.5, "steps": 2}
    for folder, launch in (("alone", {}), ("both", ZERO3)):
        done = job("grpo", tmp_path / folder, {**asked, "launch": launch}, launch.get("processes", 1))
        assert done.returncode == 0, done.stderr[-2000:]
    alone, both = (RunDir.open(tmp_path / folder) for folder in ("alone", "both"))
    assert [row.token_ids for row in both.rollouts(1)] == [row.token_ids for row in alone.rollouts(1)]
    assert both.rollout_steps() == [1, 2]
    names = ("train/loss", "train/kl", "train/entropy")
    assert figures(both.path, *names) == pytest.approx(figures(alone.path, *names), abs=0.05)


def realised(**changes: Any) -> Realised:
    return Realised(**{"kind": "zero3", "processes": 4, "precision": "no", "sharded": True, **changes})


def test_what_came_of_a_job_is_held_against_the_recipe() -> None:
    section = LaunchSection(kind="zero3", processes=4)
    require_realised(section, PLAIN, realised())
    for change in ({"kind": "ddp"}, {"processes": 1}, {"precision": "bf16"}, {"sharded": False}):
        with pytest.raises(BadInput, match="would not run as the recipe says") as caught:
            require_realised(section, PLAIN, realised(**change))
        assert next(iter(change)) in str(caught.value)


def test_a_job_of_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(BadInput, match="asks for 2 processes and this job has 3"):
        join(LaunchSection(kind="ddp", processes=2))


@pytest.mark.skipif(torch.cuda.is_available(), reason="FSDP2 works there")
def test_fsdp2_without_a_gpu_is_refused_instead_of_becoming_ddp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="quietly become DDP"):
        join(LaunchSection(kind="fsdp2", processes=2))


def test_missing_deepspeed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="DeepSpeed is not installed"):
        join(LaunchSection(kind="zero3", processes=2))


def test_a_launch_section_becomes_deepspeeds_settings() -> None:
    assert trainer_settings(LaunchSection(), PLAIN) == {}
    section = LaunchSection(kind="zero3", processes=2, offload="all")
    found = trainer_settings(section, ModelSection(autocast="bfloat16"))["deepspeed"]
    assert found["zero_optimization"]["stage"] == 3
    assert found["zero_optimization"]["offload_param"] == {"device": "cpu"}
    assert found["bf16"] == {"enabled": True}
    assert trainer_settings(section, PLAIN)["deepspeed"]["bf16"] == {"enabled": False}


def test_sharded_checkpoints_are_read_by_as_many_processes_only(tmp_path: Path) -> None:
    zero3, ddp = LaunchSection(kind="zero3", processes=2), LaunchSection(kind="ddp", processes=2)
    (tmp_path / STATE_FILE).write_text(state_of(zero3)[STATE_FILE])
    require_resumable(zero3, tmp_path)
    for other in (ddp, LaunchSection(), LaunchSection(kind="zero3", processes=4)):
        with pytest.raises(BadInput, match="written by 2 process"):
            require_resumable(other, tmp_path)
    (tmp_path / STATE_FILE).write_text(state_of(ddp)[STATE_FILE])
    require_resumable(LaunchSection(), tmp_path)
    require_resumable(LaunchSection(kind="ddp", processes=3), tmp_path)


def test_speedups_that_are_not_there_or_do_not_fit_are_refused() -> None:
    assert speedup_settings(LaunchSection()) == {}
    for name, said in {
        "liger": "not installed",
        "unsloth": "cannot be used",
        "flash-attention": "own attention",
    }.items():
        with pytest.raises(BadInput, match=said):
            speedup_settings(LaunchSection(speedups=(name,)))  # type: ignore[arg-type]


class _Row:
    def __init__(self, tokens: int) -> None:
        self.token_ids = (1,) * tokens


@pytest.mark.parametrize("full", [0, 1, 3, 4])
def test_every_process_makes_as_many_forward_passes(full: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "replace", lambda row, **_: row)
    batches: list[Any] = [MicroBatch((), 0.0)] * (8 - full)
    batches += [MicroBatch((_Row(number + 1),), 1.0) for number in range(full)]  # type: ignore[arg-type]
    monkeypatch.setattr(together, "processes", lambda: 2)
    shares = []
    for place in range(2):
        monkeypatch.setattr(together, "place", lambda place=place: place)
        shares.append(together.share_of(batches, 4, _Row(9)))  # type: ignore[arg-type]
    assert [len(share) for share in shares] == [4, 4]
    assert all(share[0].rows for share in shares)
    assert len({tuple(bool(batch.rows) for batch in share) for share in shares}) == 1
    carried = [row for share in shares for batch in share if batch.loss_scale for row in batch.rows]
    assert sorted(len(row.token_ids) for row in carried) == list(range(1, full + 1))


def test_who_has_nothing_to_do_computes_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the row it is given: an attempt that ended before its first answer has no tokens."""
    monkeypatch.setattr(together, "processes", lambda: 2)
    monkeypatch.setattr(together, "place", lambda: 1)
    batches = [MicroBatch((), 0.0), MicroBatch((row(0, 0, 1.0),), 1.0)]
    (idle,) = together.share_of(batches, 1, row(0, 1, None, tokens=0))
    made = tensors(idle.rows, pad_id=0)
    assert idle.loss_scale == 0.0
    assert made["prompt_ids"].shape == made["completion_ids"].shape == (1, 1)


def test_fsdp2_is_refused_where_someone_has_to_sample() -> None:
    with pytest.raises(BadInput, match="whole weights"):
        require_sampling(LaunchSection(kind="fsdp2", processes=2))


@pytest.mark.slow
def test_bad_input_of_a_job_ends_as_bad_input(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadInput, match="a process of the training job ended badly"):
        run_job(
            "sft", "smoke", ["model.name=nowhere/at/all", "launch.kind=ddp", "launch.processes=2"], tmp_path / "run", 2
        )
    assert "no such model" in capfd.readouterr().err
