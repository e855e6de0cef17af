"""Environments of repository tests: what a lock file pins, installed once by content into the cache folder."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.home import built_atomically, home, locked


def install_locked(lock: str) -> Path:
    """The folder that holds what `lock` pins; pip fetches it where it is not there yet.

    Only wheels are installed, and only what the lock names: nothing of a package runs outside a jail.

    Args:
        lock: requirements with pinned versions, as pip reads them.

    Raises:
        MachineryFailed: pip is missing, or could not install it; the message holds pip's last words.
    """
    folder = _folder(lock)
    with locked(f"environments/{folder.name}"):
        if folder.is_dir():
            return folder
        if importlib.util.find_spec("pip") is None:
            raise MachineryFailed("this Python has no pip", mend="run `python -m ensurepip` in this environment")
        with built_atomically(folder) as scratch:
            named = scratch / "lock.txt"
            named.write_text(lock)
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
            command += ["--no-deps", "--only-binary", ":all:", "--target", str(scratch / "packages")]
            done = subprocess.run([*command, "--requirement", str(named)], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                words = " ".join(line.strip() for line in done.stderr.strip().splitlines()[-2:]) or "no message"
                raise MachineryFailed(
                    f"pip could not install what the lock file pins: {words}",
                    mend="check that every line pins a version that has a wheel, and connect to a package index",
                )
            (scratch / "packages").mkdir(exist_ok=True)
    return folder


def locked_packages(lock: str, where: str) -> str:
    """The folder of an installed lock file's packages; nothing is fetched.

    Args:
        lock: requirements with pinned versions.
        where: who needs it, for the message.

    Raises:
        BadInput: it was not installed on this machine.
    """
    folder = _folder(lock)
    if not folder.is_dir():
        raise BadInput(
            "its tests need packages that were not installed on this machine",
            where=where,
            mend="build the set here, with `crrl tasks build … --environment LOCKFILE`",
        )
    return str(folder / "packages")


def _folder(lock: str) -> Path:
    about = f"{sys.implementation.cache_tag}\n{sys.platform}\n{lock}"
    return home() / "environments" / hashlib.sha256(about.encode()).hexdigest()[:32]
