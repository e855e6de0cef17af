"""Python files to make tasks of: a folder, a file, an installed package, a source distribution or a wheel."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

from code_repair_rl.errors import BadInput

_LEFT_OUT = {"node_modules", "site-packages", "venv", "env", "build", "dist", "__pycache__", "tests", "test", "docs"}
_MOST_BYTES = 1_000_000
_ARCHIVES = (".tar.gz", ".tgz", ".zip", ".whl")
_UNKNOWN = "NOASSERTION"
"""SPDX's word for a licence that nobody stated."""
_SPDX_OF_CLASSIFIER = {
    "MIT License": "MIT",
    "BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
}
"""Trove classifiers as package metadata names licences. Plain "BSD" is nearly always the three-clause one."""


@dataclass(frozen=True, slots=True)
class PythonFile:
    """One file with what must travel with it."""

    path: str
    """Relative, POSIX."""
    text: str
    """Line endings as they are in the file."""
    source: str
    """The package's, folder's or data set's name."""
    version: str = ""
    licence: str = _UNKNOWN
    repository: str = ""
    """Where the source holds files of many."""


def python_files(source: str, *, licence: str | None = None) -> list[PythonFile]:
    """The Python files of a source, sorted by path; tests, environments and what is not UTF-8 are left out.

    Args:
        source: a folder, a `.py` file, an archive (`.tar.gz`, `.zip`, `.whl`), or the name of an installed package or
            distribution.
        licence: SPDX identifier where the source itself does not say; overrides what it says.

    Raises:
        BadInput: nothing of the kind is there, or it holds no Python files.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        found = _of_folder(path, path.resolve().name, "", licence or _UNKNOWN)
    elif path.is_file() and path.name.endswith(_ARCHIVES):
        found = _of_archive(path, licence)
    elif path.is_file():
        text = _decoded(path.read_bytes())
        found = [] if text is None else [PythonFile(path.name, text, path.stem, licence=licence or _UNKNOWN)]
    else:
        found = _of_package(source, licence)
    if not found:
        raise BadInput("there are no Python files", where=source)
    return sorted(found, key=lambda file: file.path)


def _of_folder(folder: Path, name: str, version: str, licence: str, *, below: str = "") -> list[PythonFile]:
    found: list[PythonFile] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(one for one in folders if one not in _LEFT_OUT and not one.startswith("."))
        for file in sorted(names):
            full = Path(place) / file
            relative = (PurePosixPath(below) / full.relative_to(folder).as_posix()).as_posix()
            if not _is_wanted(relative) or not full.is_file() or full.stat().st_size > _MOST_BYTES:
                continue
            text = _decoded(full.read_bytes())
            if text is not None:
                found.append(PythonFile(relative, text, name, version, licence))
    return found


def _of_archive(path: Path, licence: str | None) -> list[PythonFile]:
    contents = dict(_members(path))
    about = next(
        (text for name, text in contents.items() if re.fullmatch(r"(.*\.dist-info/METADATA|[^/]+/PKG-INFO)", name)), ""
    )
    headers = HeaderParser().parsestr(about)
    name, version = headers.get("Name") or path.name.partition(".")[0], headers.get("Version") or ""
    stated = licence or _licence(
        headers.get("License-Expression"), headers.get("License"), headers.get_all("Classifier")
    )
    is_wheel = path.suffix == ".whl"
    found = []
    for member, text in contents.items():
        relative = member if is_wheel else "/".join(PurePosixPath(member).parts[1:])
        parts = PurePosixPath(relative).parts[:-1]
        if _is_wanted(relative) and not any(part in _LEFT_OUT or part.startswith(".") for part in parts):
            found.append(PythonFile(relative, text, name, version, stated))
    return found


def _members(path: Path) -> Iterator[tuple[str, str]]:
    """Name and text of an archive's small text files."""
    try:
        if path.name.endswith((".zip", ".whl")):
            with zipfile.ZipFile(path) as packed:
                for info in packed.infolist():
                    text = _decoded(packed.read(info)) if 0 < info.file_size <= _MOST_BYTES else None
                    if text is not None:
                        yield info.filename, text
            return
        with tarfile.open(path) as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isfile() and member.size <= _MOST_BYTES else None
                text = _decoded(stream.read()) if stream is not None else None
                if text is not None:
                    yield member.name, text
    except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError) as error:
        raise BadInput(f"this archive cannot be read ({error})", where=str(path)) from error


def _of_package(name: str, licence: str | None) -> list[PythonFile]:
    """Files of an installed distribution, or of the distribution that an import name belongs to."""
    try:
        owners = importlib.metadata.packages_distributions().get(name, [name])
        distribution = importlib.metadata.distribution(owners[0])
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return _of_module(name, licence)
    about = distribution.metadata
    expression, one_line = ((about.get_all(key) or [None])[0] for key in ("License-Expression", "License"))
    stated = licence or _licence(expression, one_line, about.get_all("Classifier"))
    found = []
    for file in distribution.files or []:
        relative = file.as_posix()
        outside = relative.startswith("..") or any(part in _LEFT_OUT for part in file.parts[:-1])
        full = Path(str(file.locate()))
        if outside or not _is_wanted(relative) or not full.is_file() or full.stat().st_size > _MOST_BYTES:
            continue
        text = _decoded(full.read_bytes())
        if text is not None:
            found.append(PythonFile(relative, text, about["Name"], distribution.version, stated))
    return found or _of_module(name, licence)  # an editable installation lists no files of its own


def _of_module(name: str, licence: str | None) -> list[PythonFile]:
    """Files of an importable module that no distribution lists: the standard library's, an editable installation's."""
    is_name = re.fullmatch(r"[A-Za-z_]\w*", name)
    spec = importlib.util.find_spec(name) if is_name else None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise BadInput(
            f"{name!r} is no folder, no file and no installed package",
            where="--from",
            mend=f"check the path, or `pip install {name}`, or `pip download --no-deps --no-binary :all: {name}` and "
            "name the file",
        )
    origin = Path(spec.origin)
    if spec.submodule_search_locations:
        return _of_folder(origin.parent, name, "", licence or _UNKNOWN, below=name)
    text = _decoded(origin.read_bytes())
    return [] if text is None else [PythonFile(origin.name, text, name, licence=licence or _UNKNOWN)]


def _licence(expression: str | None, stated: str | None, classifiers: list[str] | None) -> str:
    if expression:
        return expression.strip()
    found = [_SPDX_OF_CLASSIFIER.get(one.rpartition(" :: ")[2]) for one in classifiers or [] if "License ::" in one]
    known = sorted({one for one in found if one})
    if known:
        return " OR ".join(known)
    one_line = (stated or "").strip()
    return one_line if re.fullmatch(r"[A-Za-z0-9.+-]{2,40}", one_line) else _UNKNOWN


def _is_wanted(path: str) -> bool:
    name = PurePosixPath(path).name
    return name.endswith(".py") and not name.startswith("test_") and not name.endswith("_test.py")


def _decoded(content: bytes) -> str | None:
    """The text; None for what is not UTF-8 or holds bytes that no source does."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
