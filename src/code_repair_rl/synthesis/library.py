"""The libraries that repository tasks are made of: pinned source distributions with suites that run offline."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from code_repair_rl.errors import BadInput

_MOST_FILE_BYTES = 400_000
_LEFT_OUT = ("docs/", "doc/", ".github/", "examples/", "bench/", "benchmark/", "benchmarks/", "misc/")


@dataclass(frozen=True, slots=True)
class Library:
    """A pinned source distribution with its own tests."""

    name: str
    version: str
    sha256: str
    licence: str
    source: str
    """The folder (or file) of the code, relative to the distribution's top."""
    tests: tuple[str, ...]
    """Folders of the tests."""
    source_roots: tuple[str, ...] = (".",)
    """Folders put on the import path."""

    def is_source(self, path: str) -> bool:
        """Whether a path is code of the library itself, not of its tests."""
        return path.startswith(self.source) and path.endswith(".py") and not self.is_test(path)

    def is_test(self, path: str) -> bool:
        """Whether a path belongs to the tests."""
        return path.startswith(tuple(f"{folder}/" for folder in self.tests))


LIBRARIES: tuple[Library, ...] = (
    Library(
        "toolz",
        "1.2.0",
        "9667a038e9d6ecba37995e26cb2f59ec6420b6ad8dd9677de59db9b956b08490",
        "BSD-3-Clause",
        "toolz/",
        ("toolz/tests", "toolz/sandbox/tests"),
    ),
    Library(
        "cachetools",
        "8.0.1",
        "deb1d376d4d28c2f33f3e3058043b005e0af75c35c094bd54053e27d2906ad95",
        "MIT",
        "src/cachetools/",
        ("tests",),
        ("src",),
    ),
    Library(
        "boltons",
        "26.2.0",
        "d39cfd15c1a1c3bd4d705c82252fa9edb8e4f5e8cc039f8e39afac7b1b47e92c",
        "BSD-3-Clause",
        "boltons/",
        ("tests",),
    ),
    Library(
        "sqlparse",
        "0.6.1",
        "ca722573f848ff2d30e40ea30f53a104b7dea7635ea9285891263eb2c58fb6e7",
        "BSD-3-Clause",
        "sqlparse/",
        ("tests",),
    ),
    Library(
        "mistune",
        "3.4.0",
        "2eaf7952af928ca8d33b779762effc1da517b62c6ad85ec8ca957e3b07b9782a",
        "BSD-3-Clause",
        "src/mistune/",
        ("tests",),
        ("src",),
    ),
    Library(
        "tabulate",
        "0.10.0",
        "e2cfde8f79420f6deeffdeda9aaec3b6bc5abce947655d17ac662b126e48a60d",
        "MIT",
        "tabulate/",
        ("test",),
    ),
    Library(
        "more-itertools",
        "11.2.1",
        "cbf08fd0af284dc69718b9b76a8e6203df624d70209ea511e4219d350c856f63",
        "MIT",
        "more_itertools/",
        ("tests",),
    ),
)
"""Fastest suites first: a small subset is made of the first alone."""


def files_in(archive: Path) -> dict[str, str]:
    """Path to text of a source distribution, below its top folder; binaries, documentation and meta data left out.

    Raises:
        BadInput: it is no source distribution.
    """
    files: dict[str, str] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                path = PurePosixPath(*PurePosixPath(member.name).parts[1:]).as_posix()
                stream = tar.extractfile(member) if member.isfile() and member.size <= _MOST_FILE_BYTES else None
                if stream is None or path.startswith(_LEFT_OUT) or ".egg-info/" in path:
                    continue
                try:
                    files[path] = stream.read().decode()
                except UnicodeDecodeError:
                    continue
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BadInput(f"this is no source distribution ({error})", where=str(archive)) from error
    return dict(sorted(files.items()))
