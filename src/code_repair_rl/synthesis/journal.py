"""What was found out already, kept as it comes: a kill at any moment loses at most what was being written."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any


class Journal:
    """Findings by key in a JSON Lines file, one appended line each. Safe for several threads.

    A torn last line (the process was killed while it wrote) is passed over and cut off.

    Args:
        path: the file; made with its folder when the first finding is put.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._found: dict[str, Any] = {}
        self._read()

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> Any:
        return self._found[key]

    def put(self, key: str, finding: Any) -> None:
        """Keep a finding (plain data); the operating system has it when this returns."""
        line = json.dumps([key, finding], ensure_ascii=False).encode() + b"\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(line)
            self._found[key] = finding

    def forget(self) -> None:
        """Delete the file: what it was kept for is done."""
        with self._lock:
            self._found.clear()
            self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        whole = content.rfind(b"\n") + 1
        for line in content[:whole].splitlines():
            try:
                key, finding = json.loads(line)
            except ValueError:
                continue
            self._found[key] = finding
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)


def digest_of(*parts: Any) -> str:
    """A key: the sha256 of plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
