"""Trees of git repositories at a commit, without their history: from local mirrors, or cloned where a URL is named."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.home import home, locked

MOST_FILE_BYTES = 1_000_000
"""Larger files are left out of trees: data, not code."""

_URL = re.compile(r"(https?|ssh|git|file)://|[\w.-]+@[\w.-]+:")
_CLONE_SECONDS = 1800.0
_READ_SECONDS = 300.0


def find_repository(name: str, mirrors: str) -> Path:
    """The git folder of a repository.

    Args:
        name: `owner/name`, or only `name`.
        mirrors: a folder that holds clones as `owner/name`, `owner__name` or `name` (with `.git` or without); one
            such clone itself; or a URL prefix (`https://host`), from which it is cloned bare into the cache folder.

    Raises:
        BadInput: it is not there.
        MachineryFailed: it cannot be cloned.
    """
    if _URL.match(mirrors):
        return _cloned(name, f"{mirrors.rstrip('/')}/{name}")
    folder = Path(mirrors).expanduser()
    short = name.rpartition("/")[2]
    names = [name, name.replace("/", "__"), short]
    places = [folder / f"{one}{ending}" for one in names for ending in ("", ".git")]
    if name == short:  # the data set names no owner; a clone under any will do where there is only one
        owned = [place for ending in ("", ".git") for place in sorted(folder.glob(f"*/{name}{ending}"))]
        places += owned if len(owned) == 1 else []
    for place in (*places, *([folder] if folder.name.removesuffix(".git") in names else [])):
        if is_repository(place):
            return place
    raise BadInput(
        f"there is no clone of {name}",
        where=mirrors,
        mend=f"`git clone` it to {folder / name}, or give a URL prefix as --repositories",
    )


def is_repository(folder: Path) -> bool:
    """Whether a folder is a git repository's top, bare or not."""
    return (folder / ".git").exists() or ((folder / "objects").is_dir() and (folder / "HEAD").is_file())


def tree_at(repository: Path, commit: str) -> dict[str, str]:
    """Path to text of everything at a commit; links, binaries and large files are left out.

    It is what `git archive` gives: no history, no remotes, nothing of later commits.

    Raises:
        BadInput: no such commit, or no repository.
    """
    packed = git(repository, "archive", "--format=tar", commit)
    files: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isfile() and member.size <= MOST_FILE_BYTES else None
            if stream is None:
                continue
            try:
                text = stream.read().decode()
            except UnicodeDecodeError:
                continue
            if "\0" not in text:
                files[member.name] = text
    return files


def git(repository: Path, *arguments: str) -> bytes:
    """What a git command prints. It reads no configuration but the repository's own, and runs no hooks.

    Raises:
        BadInput: git refuses; the message holds its last words.
        MachineryFailed: there is no git, or it does not end.
    """
    program = shutil.which("git")
    if program is None:
        raise MachineryFailed("git is not installed", mend="install git")
    # Somebody else's folder is read, never run; git would refuse it for its owner.
    command = [program, "-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-C", str(repository), *arguments]
    environment = {"PATH": str(Path(program).parent), "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "HOME": "/nonexistent"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=_READ_SECONDS, env=environment, check=False)
    except subprocess.TimeoutExpired as error:
        raise MachineryFailed(f"git {arguments[0]} did not end", where=str(repository)) from error
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise BadInput(f"git {arguments[0]}: {words[-1]}", where=str(repository))
    return done.stdout


def licence_of(files: Mapping[str, str]) -> str:
    """The SPDX identifier of a tree's licence file, where it is one of the common ones; else `NOASSERTION`."""
    for path, text in sorted(files.items()):
        if "/" in path or not re.match(r"(licen[cs]e|copying)", path, re.IGNORECASE):
            continue
        words = " ".join(text.split())
        for identifier, sign in _SIGNS:
            if re.search(sign, words):
                return identifier
    return "NOASSERTION"


_SIGNS = (
    ("Apache-2.0", r"Apache License,? Version 2\.0"),
    ("MIT", r"Permission is hereby granted, free of charge, to any person obtaining a copy"),
    ("BSD-3-Clause", r"Redistribution and use in source and binary forms.*(endorse or promote|Neither the name)"),
    ("BSD-2-Clause", r"Redistribution and use in source and binary forms"),
    ("MPL-2.0", r"Mozilla Public License,? (Version|version|v\.) 2\.0"),
    ("LGPL-3.0-only", r"GNU LESSER GENERAL PUBLIC LICENSE Version 3"),
    ("GPL-3.0-only", r"GNU GENERAL PUBLIC LICENSE Version 3"),
    ("GPL-2.0-only", r"GNU GENERAL PUBLIC LICENSE Version 2"),
)
"""A sentence of each licence's text; the first that is found counts."""


def _cloned(name: str, url: str) -> Path:
    place = home() / "repositories" / f"{name.replace('/', '__')}.git"
    with locked(f"repositories/{place.name}"):
        if is_repository(place):
            return place
        program = shutil.which("git")
        if program is None:
            raise MachineryFailed("git is not installed", mend="install git")
        scratch = place.with_name(f".{place.name}.new")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.parent.mkdir(parents=True, exist_ok=True)
        try:
            done = subprocess.run(
                [program, "clone", "--quiet", "--bare", url, str(scratch)],
                capture_output=True,
                timeout=_CLONE_SECONDS,
                check=False,
            )
            words = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            if done.returncode != 0:
                raise MachineryFailed(
                    f"the repository could not be cloned: {words[-1]}",
                    where=url,
                    mend="clone it elsewhere, and name the folder as --repositories",
                )
            scratch.replace(place)
        except subprocess.TimeoutExpired as error:
            raise MachineryFailed("cloning did not end", where=url) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return place
