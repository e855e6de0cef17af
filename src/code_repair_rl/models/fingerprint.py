"""Telling one state of a model's weights from another, in the time it takes to read a few megabytes of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from code_repair_rl.models.embedded import EMBEDDED_MODEL
from code_repair_rl.models.load import base_of, is_adapter, resolve
from code_repair_rl.models.tiny import TINY_MODEL

_PATTERNS = ("*.safetensors", "*.bin", "*config.json")
_PIECES = 64
_PIECE_BYTES = 1 << 16


def weights_digest(name: str) -> str:
    """Names the weights in a model's folder: other training leaves another digest.

    Of each file the size and pieces spread over all of it are looked at: training moves every weight.

    Args:
        name: as for `load_model`.

    Returns:
        Empty for a model that has no folder of its own (embedded, from the hub): its name tells it.
    """
    if name in (EMBEDDED_MODEL, TINY_MODEL) or not isinstance(folder := resolve(name), Path):
        return ""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _PATTERNS for path in folder.glob(pattern)}):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            for piece in range(_PIECES):
                file.seek(piece * max(0, size - _PIECE_BYTES) // (_PIECES - 1))
                digest.update(file.read(_PIECE_BYTES))
    if is_adapter(folder):
        digest.update(weights_digest(base_of(folder)).encode())
    return digest.hexdigest()
