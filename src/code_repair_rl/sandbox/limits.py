"""How much a job may use, with the unit in every name."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may use before it is ended.

    The presets are judged defaults: generous for honest code on a shared two-core machine, short enough that
    hostile code does not hold up a pool.
    """

    wall_seconds: float = 10.0
    """From the start of the job to the kill of its whole process tree."""
    cpu_seconds: int = 5
    """Per process (`RLIMIT_CPU`)."""
    memory_bytes: int = GIB
    """Address space per process (`RLIMIT_AS`) and resident memory of all processes together (watched)."""
    processes: int = 24
    """Processes and threads alive at once."""
    disk_bytes: int = 64 * MIB
    """Size of each writable file system (`/job`, `/tmp`)."""
    file_bytes: int = 64 * MIB
    """Largest single file (`RLIMIT_FSIZE`)."""
    open_files: int = 256
    """File descriptors per process."""
    output_bytes: int = MIB
    """Standard output and standard error together; the job is ended when it writes more."""


FUNCTION = Limits()
"""One function called on plain data."""

PYTEST = Limits(
    wall_seconds=120.0,
    cpu_seconds=90,
    memory_bytes=4 * GIB,
    processes=64,
    disk_bytes=512 * MIB,
    file_bytes=256 * MIB,
    open_files=512,
    output_bytes=4 * MIB,
)
"""A repository's tests."""

AGENT_COMMAND = Limits(
    wall_seconds=60.0,
    cpu_seconds=60,
    memory_bytes=4 * GIB,
    processes=128,
    disk_bytes=GIB,
    file_bytes=512 * MIB,
    open_files=1024,
    output_bytes=16 * MIB,
)
"""One shell command of an agent; what the agent is shown of its output is cut much shorter."""
