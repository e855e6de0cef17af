"""Choosing the backend."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.sandbox.containers import Container
from code_repair_rl.sandbox.job import Probe, Sandbox
from code_repair_rl.sandbox.one_shot import Bubblewrap, UnsafeLocal

_BACKENDS: dict[str, Callable[[], Sandbox]] = {
    "bubblewrap": Bubblewrap,
    "docker": partial(Container, "docker"),
    "podman": partial(Container, "podman"),
    "apptainer": partial(Container, "apptainer"),
    "unsafe_local": UnsafeLocal,
}
_ISOLATING = ("bubblewrap",)
"""What `auto` tries, best first. `unsafe_local` is never chosen for you."""

_known: dict[str, Sandbox] = {}
_lock = threading.Lock()


def backends() -> tuple[str, ...]:
    """The names that `select_backend` knows."""
    return tuple(_BACKENDS)


def select_backend(name: str = "auto") -> Sandbox:
    """The sandbox called `name`; `auto` is the first isolating one that works here (probed once per process).

    Raises:
        BadInput: no such backend.
        MachineryFailed: it does not work on this machine; the message says how to mend it.
    """
    if name != "auto" and name not in _BACKENDS:
        raise BadInput(f"no sandbox is called {name!r}", where="backend", mend=f"use auto, {', '.join(_BACKENDS)}")
    with _lock:
        if name in _known:
            return _known[name]
        failed: list[Probe] = []
        for candidate in _ISOLATING if name == "auto" else (name,):
            sandbox = _known.get(candidate) or _BACKENDS[candidate]()
            probe = sandbox.probe()
            if probe.works:
                _known[candidate] = _known[name] = sandbox
                return sandbox
            failed.append(probe)
    raise MachineryFailed(
        "no isolating sandbox works on this machine: " + "; ".join(f"{probe.name}: {probe.detail}" for probe in failed),
        where="sandbox",
        mend=failed[0].mend or None,
    )


def probe_all() -> list[Probe]:
    """Every backend, really tried, for `crrl doctor`."""
    return [make().probe() for make in _BACKENDS.values()]
