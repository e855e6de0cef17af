"""Settings of the deep-learning libraries that hold for the whole process."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

_M_MMAP_THRESHOLD = -3
"""glibc's number for the option, from its malloc.h."""
_MAPPED_BYTES = 1 << 20


def settle_process(threads: int | None) -> None:
    """Let transformers speak up for errors only, give torch its threads, and let freed tensors leave the process.

    Args:
        threads: for torch's operators; None leaves torch's own choice.
    """
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    if threads is not None:
        torch.set_num_threads(threads)
    _map_large_blocks()


def _map_large_blocks() -> None:
    """Have the C library (glibc) map every block of a MiB or more by itself.

    Left alone, it raises that bound to 32 MiB as large blocks are freed, and then puts tensors of changing sizes
    between small things that live long: a step of reinforcement that needs 4 GB came to hold 6. A fresh mapping costs
    page faults, some per cent of a step.
    """
    _glibc("mallopt", _M_MMAP_THRESHOLD, _MAPPED_BYTES)


def trim_heap() -> None:
    """Give the operating system the heap that the C library keeps for later, where it can (glibc).

    Freed tensors of changing sizes leave a heap full of holes: fine-tuning grew from 4 to 7 GB over twenty steps, and
    the next stage allocated its own on top.
    """
    _glibc("malloc_trim", 0)


def _glibc(name: str, *arguments: int) -> None:
    """Call a function of the C library that only glibc has (musl does not)."""
    function: Any = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)


def release_memory() -> None:
    """Collect what nobody holds any longer, and trim the heap."""
    gc.collect()
    trim_heap()
