"""Figures as JSON that strict readers take."""

from __future__ import annotations

import math
from typing import Any


def without_nan(value: Any) -> Any:
    """The same plain data, with null for numbers that JSON has no word for (NaN, infinities) and keys as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return value
