"""The messages that docs/troubleshooting.md explains are messages that the project has."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
SAID = "\n".join(
    path.read_text() for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.sh")]
)  # fmt: skip
MESSAGES = re.findall(r"\*\*`([^`]+)`\*\*", PAGE)


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 15


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_that_is_explained_exists(message: str) -> None:
    fixed = [part.strip() for part in re.split(r"…|set-up: error: python3 is", message)]
    for part in filter(None, fixed):
        assert part.removeprefix("set-up: error: ").lstrip("; ") in SAID
