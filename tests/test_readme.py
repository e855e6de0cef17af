"""What the README and the Makefile promise is there: its commands, its links, its library example."""

import re
import subprocess
from pathlib import Path

import pytest
import typer

from code_repair_rl.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _commands() -> dict[str, typer.core.TyperCommand]:
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_the_table_of_commands_is_the_commands_that_exist() -> None:
    listed = re.findall(r"^\| `crrl ([a-z-]+)", README, re.M)
    assert sorted(listed) == sorted(_commands())


def test_the_subcommands_in_the_table_exist() -> None:
    for group, names in re.findall(r"^\| `crrl ([a-z-]+) ([a-z]+(?:\\\|[a-z]+)+)`", README, re.M):
        assert set(names.split("\\|")) <= set(_commands()[group].commands), group


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", page.read_text())  # what looks like a link in code is none
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_library_example_runs_as_far_as_it_needs_nothing_built() -> None:
    example = README.partition("```python\n")[2].partition("```")[0].partition("\n\nfrom code_repair_rl.grading")[0]
    names = {"answer": "a.py\n<<<<<<< SEARCH\nx = 1\n=======\nx = 2\n>>>>>>> REPLACE\n", "source": "x = 1\n"}
    exec(example, names)
    assert names["after"] == {"a.py": "x = 2\n"}


def test_the_makefile_helps_with_every_target_that_it_promises() -> None:
    shown = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    for target in ("demo", "test", "slow", "lint", "bench", "study", "clean"):
        assert re.search(rf"^  {target} ", shown, re.M)
