"""Settings of the deep-learning libraries that hold for the whole process."""

from __future__ import annotations


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
