"""The report's part about labels: baselines beside the model, votes, reliability, in a real browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from code_repair_rl.evaluation.classification import ClassificationResult, ClassifiedTask, classification_path
from code_repair_rl.reporting import write_report
from code_repair_rl.reporting.classification import classifications
from code_repair_rl.runs import RunDir
from tests.evaluation.test_classification import B, V, said
from tests.reporting.browser import chromium
from tests.reporting.recorded import HOSTILE, recorded_run


def _recorded(folder: Path) -> RunDir:
    """A run whose evaluation was of labels."""
    run = recorded_run(folder)
    name = next(iter(run.eval_names()))
    tasks = tuple(
        ClassifiedTask(
            f"t{n}", f"p{n // 2}", truth, str(n // 2), 6, 1, {"majority class": B, "bag of words": V},
            tuple(said(truth if (n + s) % 3 else None, 2, f1=0.5) for s in range(4)),
        )
        for n, truth in enumerate([V, B] * 8)
    )  # fmt: skip
    note = f"NOTHING IS CLAIMED {HOSTILE}"
    result = ClassificationResult(name, "m", "s", "test", "0", (B, V), 4, 0.8, (note,), tasks)
    path = classification_path(run, name)
    path.parent.mkdir()
    path.write_text(json.dumps(result.to_json()))
    return run


def test_the_page_shows_labels_beside_their_baselines(tmp_path: Path) -> None:
    run = _recorded(tmp_path / "run")
    (found,), notes = classifications(run, "run")
    assert not notes
    assert [row[0] for row in found["scores"]] == [
        "one sample", "majority of 4", "evidence-weighted of 4", "random", "majority class", "bag of words",
    ]  # fmt: skip
    page = write_report([run])
    profile = tmp_path / "profile"
    with chromium(profile) as browser:
        browser.size(1280, 800)
        browser.open(page.as_uri())
        browser.run(
            "[...document.querySelectorAll('#tabs button')].find((b) => b.textContent.includes('Labels')).click()"
        )
        text = browser.run("document.getElementById('main').innerText")
        for word in (
            "NOTHING IS CLAIMED",
            "bag of words",
            "MCC",
            "VD-S",
            "both right",
            "citing every line",
            "no-think",
        ):
            assert word in text
        titles = browser.run("[...document.querySelectorAll('.chart h3')].map((h) => h.textContent).join('|')")
        assert "Test-time compute" in titles
        assert "Reliability" in titles
        browser.wait("document.querySelectorAll('.chart .main-svg').length >= 2")
        assert browser.errors == []
        assert browser.run("window.hacked") is None
    shutil.rmtree(profile, ignore_errors=True)


def test_a_run_without_labels_has_no_such_part(tmp_path: Path) -> None:
    assert classifications(recorded_run(tmp_path / "run"), "run") == ([], [])


def test_a_damaged_file_becomes_a_note(tmp_path: Path) -> None:
    run = _recorded(tmp_path / "run")
    classification_path(run, next(iter(run.eval_names()))).write_text("{}")
    found, (note,) = classifications(run, "run")
    assert not found
    assert "is not shown" in note
