import json

import pytest
from typer.testing import CliRunner

from code_repair_rl.cli import app
from code_repair_rl.errors import BadInput
from code_repair_rl.models import EMBEDDED_MODEL, TINY_MODEL, embedded_model_folder


def test_the_list_says_what_is_ready_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("CRRL_HOME", str(tmp_path))
    found = CliRunner().invoke(app, ["model", "list", "--json"])
    ready = {row["name"]: row["ready"] for row in json.loads(found.stdout)}
    assert ready == {EMBEDDED_MODEL: False, TINY_MODEL: True}
    assert "crrl model fetch" in CliRunner().invoke(app, ["model", "list"]).stdout


@pytest.mark.skipif(embedded_model_folder() is None, reason="run `crrl model fetch` first")
def test_fetching_again_is_done_at_once():
    found = CliRunner().invoke(app, ["model", "fetch", "--json"])
    assert json.loads(found.stdout) == {"name": EMBEDDED_MODEL, "folder": str(embedded_model_folder())}


def test_an_unknown_precision_is_refused_before_anything_is_loaded(tmp_path):
    found = CliRunner().invoke(app, ["model", "export", TINY_MODEL, str(tmp_path / "out"), "--dtype", "int8"])
    assert isinstance(found.exception, BadInput)
    assert not (tmp_path / "out").exists()
