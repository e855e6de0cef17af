"""Paths as a report shows them: relative to the run, never absolute, because a report is made to be passed on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHOWN_PARTS = 3
"""Of a path that lies elsewhere so many last parts are shown."""

ENVIRONMENT_KEYS = (
    "started_unix_seconds",
    "status",
    "seed",
    "code_repair_rl",
    "git",
    "python",
    "processor",
    "cores",
    "memory_bytes",
    "threads",
    "libraries",
)
"""What a report tells of a session; its command line and the machine's name and kernel stay in `environment.json`."""


def shown_path(text: str, run_path: Path) -> str:
    """`text`, shortened where it is an absolute path: from the folder that holds the run, or its last parts only."""
    if not text.startswith(("/", "~")) or "\n" in text or len(text) < 2:
        return text
    path = Path(text)
    for folder in (run_path.parent, run_path.parent.parent):
        if folder != Path(folder.anchor) and path.is_relative_to(folder):
            return str(path.relative_to(folder))
    parts = path.parts[1:]
    return "…/" + "/".join(parts[-SHOWN_PARTS:]) if len(parts) > SHOWN_PARTS else "…/" + "/".join(parts[-1:])


def without_absolute_paths(value: Any, run_path: Path) -> Any:
    """Plain data with every string that is an absolute path as `shown_path` has it."""
    if isinstance(value, str):
        return shown_path(value, run_path)
    if isinstance(value, Mapping):
        return {key: without_absolute_paths(item, run_path) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_absolute_paths(item, run_path) for item in value]
    return value


def shown_environment(session: Mapping[str, Any]) -> dict[str, Any]:
    """What of a session of `environment.json` a report tells."""
    return {key: session[key] for key in ENVIRONMENT_KEYS if key in session}
