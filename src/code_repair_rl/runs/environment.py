"""What a run ran on: Python, libraries, processor, commit. Nothing heavy is imported to find out."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from code_repair_rl import __version__

_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "scipy", "pyarrow", "vllm")


def describe_environment(seed: int | None) -> dict[str, Any]:
    """One plain object about this process and machine, ready for JSON."""
    return {
        "started_unix_seconds": round(time.time(), 3),
        "argv": list(sys.argv),
        "seed": seed,
        "code_repair_rl": __version__,
        "git": _git(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": _gpus(),
        "memory_bytes": _memory_bytes(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit of the source tree that this package was imported from, if it is one."""
    folder = Path(__file__).parent

    def ask(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, timeout=10
        ).stdout.strip()

    try:
        if not ask("ls-files", Path(__file__).name):
            return None  # installed into a folder of some other repository
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain", "-uno", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    """Names of the NVIDIA GPUs that the driver shows and this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "":
        return []
    try:
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", *(["-i", visible] if visible else [])]
        told = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [name.strip() for name in told.splitlines() if name.strip()]


def _memory_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().total)
