"""`crrl fix` on a small project of a user's: what it prints, what it applies, and what it refuses."""

import json
import shutil
import subprocess
from codecs import BOM_UTF8
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from code_repair_rl.cli import app, fix
from code_repair_rl.errors import BadInput
from tests.pipelines.fix.reciting import RecitingEngine, block

BROKEN = '''\
def mean(values):
    """Return the arithmetic mean."""
    total = 0
    for value in values:
        total -= value
    return total / len(values)
'''
MENDED = BROKEN.replace("-=", "+=")
TEST = "from stats import mean\n\ndef test_mean():\n    assert mean([1, 2, 3]) == 2\n"
QUICK = "python -c 'from stats import mean; assert mean([1, 2, 3]) == 2'"
MEND = block("        total -= value", "        total += value")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stats.py").write_text(BROKEN)
    (tmp_path / "test_stats.py").write_text(TEST)
    monkeypatch.chdir(tmp_path)
    return tmp_path


Answering = Callable[[Callable[[str, int], list[str]]], RecitingEngine]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Answering:
    """Let a rule answer in a model's place."""

    def install(answers: Callable[[str, int], list[str]]) -> RecitingEngine:
        engine = RecitingEngine(answers)
        monkeypatch.setattr(fix, "_engine", lambda model: engine)
        return engine

    return install


def _crrl(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(app, ["fix", *arguments], input=answer)


def test_the_passing_patch_is_shown_and_applied_on_yes(project: Path, answering: Answering) -> None:
    answering(lambda prompt, n: [MEND] * n)
    result = _crrl("stats.py", "--tests", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 pytest -q", "--samples", "8", answer="y\n")
    assert result.exit_code == 0, result.output
    assert "-        total -= value" in result.stdout
    assert "+        total += value" in result.stdout
    assert "8 answers sampled: 1 tested" in result.stdout
    assert "isolation: bubblewrap" in result.stdout
    assert (project / "stats.py").read_text() == MENDED


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_on_no_and_on_no_answer_nothing_is_written(project: Path, answering: Answering, answer: str) -> None:
    answering(lambda prompt, n: [MEND] * n)
    result = _crrl("stats.py", "--tests", QUICK, "--samples", "8", answer=answer)
    assert result.exit_code == 0
    assert "not applied" in result.stdout
    assert (project / "stats.py").read_text() == BROKEN


def test_a_script_gets_one_object_and_applies_with_yes_only(project: Path, answering: Answering) -> None:
    answering(lambda prompt, n: [MEND] * n)
    arguments = ["stats.py", "--tests", QUICK, "--samples", "4", "--hint-lines", "5", "--json"]
    told = json.loads(_crrl(*arguments).stdout)
    assert told["found"] is True
    assert told["applied"] is False
    assert told["path"] == "stats.py"
    assert told["suspicious_lines"] == [5]
    assert "+        total += value" in told["diff"]
    assert told["tally"]["sampled"] == 4
    assert (project / "stats.py").read_text() == BROKEN
    assert json.loads(_crrl(*arguments, "--yes").stdout)["applied"] is True
    assert (project / "stats.py").read_text() == MENDED


def test_code_whose_tests_pass_is_left_alone_without_a_model(project: Path, answering: Answering) -> None:
    engine = answering(lambda prompt, n: [MEND] * n)
    (project / "stats.py").write_text(MENDED)
    result = _crrl("stats.py", "--tests", QUICK)
    assert result.exit_code == 0
    assert "nothing to repair" in result.stdout
    assert engine.asked == []


def test_where_no_answer_passes_the_answer_is_no(project: Path, answering: Answering) -> None:
    answering(lambda prompt, n: [block("    total = 0", "    total = 1")] * n)
    result = _crrl("stats.py", "--tests", QUICK, "--samples", "8")
    assert result.exit_code == 1
    assert "no repair found" in result.stdout
    assert (project / "stats.py").read_text() == BROKEN


def test_only_the_lines_that_were_executed_are_tried_and_named_lines_go_first(
    project: Path, answering: Answering
) -> None:
    (project / "stats.py").write_text("def unused(x):\n    return x + 1\n\n\n" + BROKEN)
    engine = answering(lambda prompt, n: [""] * n)
    assert _crrl("stats.py", "--tests", QUICK, "--samples", "16").exit_code == 1
    assert len(engine.asked) > 2
    assert not any("unused" in prompt for prompt, _ in engine.asked)
    engine.asked.clear()
    _crrl("stats.py", "--tests", QUICK, "--samples", "4", "--hint-lines", "2")
    assert all("Suspicious:\n    return x + 1" in prompt for prompt, _ in engine.asked)


def test_the_description_and_the_real_model_prompt_hold_no_test_file(project: Path, answering: Answering) -> None:
    engine = answering(lambda prompt, n: [""] * n)
    _crrl("stats.py", "--tests", QUICK, "--samples", "1", "--description", "Average of numbers.")
    (prompt, _), *_ = engine.asked
    assert prompt.startswith("Average of numbers.")
    assert "def test_mean" not in prompt


def test_a_file_that_changed_meanwhile_is_left_alone(project: Path, answering: Answering) -> None:
    def answer_late(prompt: str, count: int) -> list[str]:
        (project / "stats.py").write_text("# edited by hand\n")
        return [MEND] * count

    answering(answer_late)
    result = _crrl("stats.py", "--tests", QUICK, "--samples", "1", "--hint-lines", "5", "--yes")
    assert isinstance(result.exception, BadInput)
    assert "changed while repairs were tested" in str(result.exception)
    assert (project / "stats.py").read_text() == "# edited by hand\n"


def test_line_endings_and_permissions_stay(project: Path, answering: Answering) -> None:
    answering(lambda prompt, n: [MEND] * n)
    (project / "stats.py").write_bytes(BROKEN.replace("\n", "\r\n").encode())
    (project / "stats.py").chmod(0o755)
    assert _crrl("stats.py", "--tests", QUICK, "--samples", "1", "--hint-lines", "5", "-y").exit_code == 0
    assert (project / "stats.py").read_bytes() == MENDED.replace("\n", "\r\n").encode()
    assert (project / "stats.py").stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize(
    "written",
    [
        str.encode,
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.rstrip("\n").encode(),
        lambda text: text.replace("    total =", "\x0c\n    total =").encode(),
        lambda text: BOM_UTF8 + text.encode(),
    ],
    ids=["plain", "CRLF", "no final newline", "form feed", "byte-order mark"],
)
def test_git_applies_the_diff_that_is_shown(
    project: Path, answering: Answering, written: Callable[[str], bytes]
) -> None:
    answering(lambda prompt, n: [MEND] * n)
    (project / "stats.py").write_bytes(written(BROKEN))
    arguments = ["stats.py", "--tests", QUICK, "--samples", "1"]
    diff = json.loads(_crrl(*arguments, "--json").stdout)["diff"]
    assert diff in _crrl(*arguments, answer="n\n").stdout_bytes.decode()
    subprocess.run(["git", "apply", "-"], input=diff.encode(), check=True, cwd=project)
    assert (project / "stats.py").read_bytes() == written(MENDED)


def test_a_byte_order_mark_is_no_obstacle_and_stays(project: Path, answering: Answering) -> None:
    answering(lambda prompt, n: [MEND] * n)
    (project / "stats.py").write_bytes(BOM_UTF8 + BROKEN.encode())
    assert _crrl("stats.py", "--tests", QUICK, "--samples", "1", "--hint-lines", "5", "-y").exit_code == 0
    assert (project / "stats.py").read_bytes() == BOM_UTF8 + MENDED.encode()


def test_the_real_model_code_runs_end_to_end(project: Path) -> None:
    # random weights write noise: the honest answer is no
    arguments = ["--tests", QUICK, "--model", "tiny-random", "--samples", "2", "--max-new-tokens", "8", "--json"]
    result = _crrl("stats.py", *arguments)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["tally"]["sampled"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.py", "--tests", "pytest"], "no such file"),
        (["/etc/hostname", "--tests", "pytest"], "not in the project's folder"),
        (["empty.py", "--tests", "pytest"], "is empty"),
        (["latin.py", "--tests", "pytest"], "not UTF-8"),
        (["stats.py", "--tests", "pytest", "--hint-lines", "99"], "none is 99"),
        (["stats.py", "--tests", "pytest", "--hint-lines", "five"], "names no line"),
        (["stats.py", "test_stats.py", "--tests", "pytest", "--hint-lines", "5"], "stats.py:12"),
        (["stats.py", "--tests", "no-such-command"], "cannot run in the sandbox"),
        (["stats.py", "--tests", "pytest absent_test.py"], "ran no test"),
        (["stats.py", "--tests", "false", "--model", "no such model"], "no such model"),
        (["stats.py", "--tests", "false", "--python", "/bin/ls"], "not a Python"),
    ],
)
def test_wrong_use_is_one_clear_error(project: Path, arguments: list[str], message: str) -> None:
    (project / "empty.py").touch()
    (project / "latin.py").write_bytes("x = 'é'\n".encode("latin-1"))
    result = _crrl(*arguments)
    assert isinstance(result.exception, BadInput)
    assert message in str(result.exception)
    assert (project / "stats.py").read_text() == BROKEN


def test_without_isolation_it_runs_only_when_told_to_and_says_so(project: Path, answering: Answering) -> None:
    answering(lambda prompt, n: [MEND] * n)
    result = _crrl(
        "stats.py",
        "--tests",
        QUICK,
        "--samples",
        "1",
        "--hint-lines",
        "5",
        "--unsafe-local",
        "-y",
    )
    assert result.exit_code == 0, result.output
    assert "isolation: unsafe-local" in result.stdout
    assert "no isolation" in result.stderr
