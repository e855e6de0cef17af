"""The contracts that `make lint` checks cover every room, and files keep to the house's names and sizes."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "code_repair_rl"
MAY_IMPORT = {
    "edits": set(),
    "sandbox": set(),
    "runs": set(),
    "recipes": set(),
    "tasks": {"edits"},
    "grading": {"tasks", "edits", "sandbox"},
    "synthesis": {"tasks", "grading", "sandbox", "edits"},
    "rewards": {"grading", "tasks", "edits"},
    "models": {"recipes"},
    "rollouts": {"tasks", "edits", "sandbox", "grading", "models", "runs"},
    "training": {"rollouts", "rewards", "grading", "tasks", "edits", "models", "runs", "recipes"},
    "evaluation": {"grading", "tasks", "edits", "runs", "rollouts"},
    "reporting": {"runs", "evaluation"},
    "planning": {"recipes"},
}
"""The table of docs/architecture.md."""


def _rooms() -> set[str]:
    return {path.parent.name for path in SOURCE.glob("*/__init__.py")}


def _contracts() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    return found


def _forbidden_to(room: str) -> set[str]:
    name = f"code_repair_rl.{room}"
    return {
        module.rpartition(".")[2]
        for contract in _contracts()
        if name in contract["source_modules"]
        for module in contract["forbidden_modules"]
        if module.startswith("code_repair_rl.")
    }


@pytest.mark.parametrize("room", sorted(_rooms() - {"cli", "pipelines"}))
def test_a_room_may_import_what_the_table_says_and_nothing_else(room: str) -> None:
    assert room in MAY_IMPORT, f"say in docs/architecture.md and here what {room} may import"
    assert _forbidden_to(room) == _rooms() - MAY_IMPORT[room] - {room}


def test_pipelines_are_wired_by_the_command_line_and_never_the_other_way_round() -> None:
    assert _forbidden_to("pipelines") == {"cli"}


def test_the_root_modules_import_no_room() -> None:
    for module in ("errors", "home", "packages"):
        assert _forbidden_to(module) == _rooms()


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_is_named_after_what_it_does_and_short_enough_to_read(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc"}
    assert len(path.read_text().splitlines()) <= 480, "a file over about 400 lines is asking to become two"
