"""Running one process from outside: feeding it, reading it up to a cap, ending it on time, watching its memory."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event

import psutil

from code_repair_rl.sandbox.job import Cause

_CHUNK = 1 << 16
_WATCH_SECONDS = 0.2
"""How often memory is looked at; jobs shorter than this cost nothing to watch."""


@dataclass(slots=True)
class Supervised:
    """What came out of a process."""

    read: dict[int, bytearray] = field(default_factory=dict)
    """By descriptor."""
    cause: Cause | None = None
    """The limit that ended it, if one did."""


def supervise(
    process: subprocess.Popen[bytes],
    *,
    write: Mapping[int, bytes],
    read: Mapping[int, int],
    output: frozenset[int],
    output_bytes: int,
    wall_seconds: float,
    memory_bytes: int,
    stop: Event | None = None,
) -> Supervised:
    """Feed and read `process` until all its readable descriptors are closed or a limit is met; kill it then.

    Args:
        process: running.
        write: descriptor to what is written there; each is closed after.
        read: descriptor to the most bytes that are kept of it.
        output: those of `read` that count towards `output_bytes`.
        output_bytes: what the process may write to `output` together.
        wall_seconds: until it is killed.
        memory_bytes: resident memory of its whole tree.
        stop: once it is set, the process is killed.
    """
    done = Supervised({descriptor: bytearray() for descriptor in read})
    deadline = time.monotonic() + wall_seconds
    next_look = time.monotonic() + _WATCH_SECONDS
    pending = {descriptor: memoryview(data) for descriptor, data in write.items()}
    with selectors.DefaultSelector() as selector:
        for descriptor in pending:
            os.set_blocking(descriptor, False)
            selector.register(descriptor, selectors.EVENT_WRITE)
        for descriptor in read:
            os.set_blocking(descriptor, False)
            selector.register(descriptor, selectors.EVENT_READ)
        waiting = set(read)
        written = 0
        while waiting:
            now = time.monotonic()
            if now >= deadline:
                done.cause = Cause.TIMEOUT
                break
            if now >= next_look:
                if stop is not None and stop.is_set():
                    done.cause = Cause.INFRASTRUCTURE
                    break
                if tree_memory_bytes(process.pid) > memory_bytes:
                    done.cause = Cause.OUT_OF_MEMORY
                    break
                next_look = time.monotonic() + _WATCH_SECONDS
            for key, _ in selector.select(min(deadline, next_look) - now if next_look > now else 0):
                descriptor = key.fd
                if descriptor in pending:
                    if _write_some(descriptor, pending):
                        selector.unregister(descriptor)
                    continue
                data = _read_some(descriptor)
                if data is None:
                    continue
                if not data:
                    selector.unregister(descriptor)
                    waiting.discard(descriptor)
                    continue
                kept = done.read[descriptor]
                kept += data[: max(0, read[descriptor] - len(kept))]
                if descriptor in output:
                    written += len(data)
            if written > output_bytes:
                done.cause = Cause.OUTPUT_LIMIT
                break
    if done.cause is not None:
        end(process)
    return done


def tree_memory_bytes(pid: int) -> int:
    """Resident memory of a process and all below it; 0 where it is gone."""
    total = 0
    with suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with everything below it and wait for it."""
    tree: list[psutil.Process] = []
    with suppress(psutil.Error):
        tree = psutil.Process(process.pid).children(recursive=True)
    for member in tree:
        with suppress(psutil.Error):
            member.kill()
    with suppress(ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def _write_some(descriptor: int, pending: dict[int, memoryview]) -> bool:
    """True when all is written, or nobody reads any more."""
    try:
        count = os.write(descriptor, pending[descriptor][:_CHUNK]) if pending[descriptor] else 0
    except BlockingIOError:
        return False
    except OSError:
        count = len(pending[descriptor])
    pending[descriptor] = pending[descriptor][count:]
    if pending[descriptor]:
        return False
    del pending[descriptor]
    os.close(descriptor)
    return True


def _read_some(descriptor: int) -> bytes | None:
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""
