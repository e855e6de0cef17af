"""Where nobody watches a bar, long work says in plain lines how far it is."""

from __future__ import annotations

import pytest

from code_repair_rl.cli.batch_progress import step_progress


def test_off_a_terminal_a_step_has_a_line_at_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with step_progress() as report:
        for done in range(201):
            report("validating", done, 200)
        report("writing", 0, 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [*(f"validating: {20 * tenth} of 200" for tenth in range(11)), "writing: 0 of 1"]
