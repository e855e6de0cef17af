"""Data for the report's page: compressed, and embedded as text that no browser could take for markup."""

from __future__ import annotations

import base64
import gzip
import json
import math
from typing import Any

from code_repair_rl.evaluation.plain_json import without_nan


def packed(data: Any) -> str:
    """`data` as JSON, gzipped, in base64: letters, digits, `+`, `/` and `=` only."""
    text = json.dumps(without_nan(data), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return packed_bytes(text.encode("utf-8", "replace"))


def packed_bytes(data: bytes) -> str:
    """`data` gzipped, in base64. The same bytes give the same text."""
    return base64.b64encode(gzip.compress(data, compresslevel=6, mtime=0)).decode("ascii")


def rounded(value: float | None, digits: int = 4) -> float | None:
    """Rounded for display, None where there is no finite number."""
    return round(value, digits) if value is not None and math.isfinite(value) else None
