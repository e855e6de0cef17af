"""The examples in the documentation run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from code_repair_rl.edits import EditErrorKind

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("page", ["edits.md", "rewards.md"])
def test_examples_run(page: str) -> None:
    examples = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, page, "exec"), {})


def test_every_kind_of_refusal_is_documented() -> None:
    page = (DOCS / "edits.md").read_text()
    assert [kind for kind in EditErrorKind if f"`{kind.value}`" not in page] == []
