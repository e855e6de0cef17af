"""What a project says of a release in its change log."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

NAMES = ("changelog", "changes", "history", "news", "release_notes", "versions")
"""How change logs are called, in any case, whatever their ending."""

_VERSION = re.compile(r"\d+\.\d+")
_BULLET = re.compile(r"^\s{0,3}[-*+]\s+")
_MOST_CHARACTERS = 600


def is_changelog(path: str) -> bool:
    """Whether a file is a change log by its name."""
    return PurePosixPath(path).name.partition(".")[0].lower() in NAMES


def changelog_of(archive: Path) -> str:
    """The text of a source distribution's change log: the one nearest to the top; empty where there is none."""
    with tarfile.open(archive) as tar:
        found = [member for member in tar if member.isfile() and is_changelog(member.name)]
        for member in sorted(found, key=lambda one: (one.name.count("/"), one.name)):
            stream = tar.extractfile(member)
            if stream is not None:
                return stream.read().decode(errors="replace")
    return ""


def entries(text: str, version: str) -> list[str]:
    """The entries of one version, each on one line, mark-up as it is."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if _heads(line, version)), None)
    if start is None:
        return []
    found: list[str] = []
    for line in lines[start + 1 :]:
        if _heads(line, None):
            break
        if _BULLET.match(line):
            found.append(_BULLET.sub("", line).strip())
        elif found and line.startswith(" ") and line.strip():
            found[-1] = f"{found[-1]} {line.strip()}"
        elif found and line.strip() and not line.startswith(("#", "=", "-", "~")):
            found.append("")  # a heading or a paragraph: what follows is no part of the entry before
    return [entry for entry in found if entry]


def about(found: Iterable[str], names: Iterable[str]) -> list[str]:
    """The entries that name one of `names`, the ones that name most of them first; at most two, not too long."""
    wanted = [re.compile(rf"(?<![\w]){re.escape(name)}(?![\w])") for name in dict.fromkeys(names) if len(name) > 2]
    counted = [(sum(bool(pattern.search(entry)) for pattern in wanted), entry) for entry in found]
    best = max((count for count, _ in counted), default=0)
    chosen = [entry for count, entry in counted if count == best and best > 0]
    return [entry[:_MOST_CHARACTERS] for entry in chosen[:2]]


def _heads(line: str, version: str | None) -> bool:
    """Whether a line heads a version's section: it begins with a version, or with a word or two and then one."""
    head = re.match(r"^(?:#+\s*|[-*]\s+)?(?:version|release|v)?\s*\[?v?(\d+(?:\.\d+)+)\b", line, re.IGNORECASE)
    if head is None or not _VERSION.match(head.group(1)):
        return False
    return version is None or head.group(1) == version
