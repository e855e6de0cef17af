"""The room is light: scripts and workers import it without paying for torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


def in_a_fresh_interpreter(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("room", ["edits", "rewards"])
def test_importing_loads_no_torch(room: str) -> None:
    heavy = in_a_fresh_interpreter(
        f"import sys, code_repair_rl.{room}; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    assert heavy == "[]"


def test_importing_edits_takes_less_than_100_ms_and_loads_no_pydantic() -> None:
    code = (
        "import time; t = time.process_time(); import code_repair_rl.edits; t = time.process_time() - t;"
        "import sys; print(t, 'pydantic' in sys.modules)"
    )
    runs = [in_a_fresh_interpreter(code).split() for _ in range(3)]
    assert min(float(seconds) for seconds, _ in runs) < 0.1
    assert {pydantic for _, pydantic in runs} == {"False"}
