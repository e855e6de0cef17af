"""Settings of the deep-learning libraries that hold for the whole process."""

from __future__ import annotations

import ctypes
import gc
import sys


def settle_process(threads: int | None) -> None:
    """Let transformers speak up for errors only, and give torch its threads.

    Args:
        threads: for torch's operators; None leaves torch's own choice.
    """
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    if threads is not None:
        torch.set_num_threads(threads)


def trim_heap() -> None:
    """Give the operating system the heap that the C library keeps for later, where it can (glibc).

    Freed tensors of changing sizes leave a heap full of holes: fine-tuning grew from 4 to 7 GB over twenty steps, and
    the next stage allocated its own on top.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)


def release_memory() -> None:
    """Collect what nobody holds any longer, and trim the heap."""
    gc.collect()
    trim_heap()
