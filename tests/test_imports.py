"""Light rooms stay light: seen in a fresh interpreter, where nothing is imported yet."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


def _loaded_by(statement: str) -> dict[str, object]:
    """Run `statement` in a fresh interpreter: which heavy modules it loaded, and how long it took."""
    program = f"""
import json, sys, time
began = time.perf_counter()
{statement}
seconds = time.perf_counter() - began
print(json.dumps({{"heavy": [m for m in {HEAVY!r} if m in sys.modules], "seconds": seconds}}))
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(finished.stdout)
    return found


@pytest.mark.parametrize("room", ["edits", "tasks", "sandbox", "grading", "rewards", "evaluation", "runs", "recipes"])
def test_importing_a_light_room_loads_no_deep_learning_library(room: str) -> None:
    assert _loaded_by(f"import code_repair_rl.{room}")["heavy"] == []


def test_the_check_sees_a_heavy_import() -> None:
    assert "accelerate" in _loaded_by("import accelerate")["heavy"]


def test_edits_are_imported_in_under_a_tenth_of_a_second() -> None:
    # the best of three: the first fills the byte-code cache, and other processes may hold the machine up
    seconds = min(float(str(_loaded_by("import code_repair_rl.edits")["seconds"])) for _ in range(3))
    assert seconds < 0.1


def test_the_command_line_shows_its_help_without_deep_learning_libraries() -> None:
    assert _loaded_by("import code_repair_rl.cli.app")["heavy"] == []
