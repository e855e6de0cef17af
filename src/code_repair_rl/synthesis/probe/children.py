"""Work in a forked child with limits: what it sent comes back, whatever became of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

Send = Callable[[dict[str, Any]], None]


def in_child(work: Callable[[Send], None], *, cpu_seconds: float, wall_seconds: float) -> dict[str, Any]:
    """What `work` sent last from a forked child; empty where it was ended before it sent anything.

    Args:
        work: is given a function that sends plain data.
        cpu_seconds: after so much processor time the child is ended.
        wall_seconds: and after so much time by the clock.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _work_and_exit(work, reading, writing, cpu_seconds)
    os.close(writing)
    received = _read_all(reading, time.monotonic() + wall_seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    lines = received.split(b"\n")[:-1]
    result: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return result


def _work_and_exit(work: Callable[[Send], None], reading: int, writing: int, cpu_seconds: float) -> None:
    try:
        os.close(reading)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # the default action of SIGPROF ends the process
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)
        sys.stdout = sys.stderr = io.StringIO()

        def send(found: dict[str, Any]) -> None:
            data = json.dumps(found).encode() + b"\n"
            while data:
                data = data[os.write(writing, data) :]

        work(send)
    finally:
        os._exit(0)


def _read_all(reading: int, deadline: float) -> bytes:
    pieces = []
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([reading], [], [], left)
        if not ready:
            break
        piece = os.read(reading, 1 << 16)
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces)
