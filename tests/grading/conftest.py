from __future__ import annotations

from collections.abc import Iterator

import pytest

from code_repair_rl.grading import Grader


@pytest.fixture(scope="session")
def grader() -> Iterator[Grader]:
    with Grader(workers=2) as grader:
        yield grader
