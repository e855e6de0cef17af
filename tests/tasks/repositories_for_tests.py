"""A small git repository, made for the purpose: a bug, and the commit that fixes it with a test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

LICENCE = "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy\nof this …\n"
BEFORE = {
    "LICENSE": LICENCE,
    "shop/__init__.py": "",
    "shop/price.py": "def price(count):\n    return count * 3 - 1\n\n\ndef name():\n    return 'shop'\n",
    "tests/test_price.py": "from shop.price import name\n\n\ndef test_name():\n    assert name() == 'shop'\n",
}
AFTER = {
    "shop/price.py": "def price(count):\n    return count * 3 + 1\n\n\ndef name():\n    return 'shop'\n",
    "tests/test_price.py": (
        "from shop.price import name, price\n\n\ndef test_name():\n    assert name() == 'shop'\n\n\n"
        "def test_price():\n    assert price(2) == 7\n"
    ),
}


def git(folder: Path, *arguments: str) -> str:
    environment = {
        **{"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"},
        **{"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_AUTHOR_DATE": "2020-01-01T00:00:00Z"},
        **{"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org"},
        **{"GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z"},
    }
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True, env=environment
    ).stdout


def commit(folder: Path, files: Mapping[str, str | None], message: str) -> str:
    """Write (or with None delete) files, commit them, and give the commit's hash."""
    if not (folder / ".git").exists():
        folder.mkdir(parents=True, exist_ok=True)
        git(folder, "init", "--quiet", "--initial-branch=main")
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD").strip()
