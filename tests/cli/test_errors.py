"""How errors leave the command line: one message with its mend, an exit code, and no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest


def _crrl(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "code_repair_rl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


def test_bad_input_is_one_message_with_place_and_mend_and_exit_code_2(tmp_path: Path) -> None:
    finished = _crrl("fix", "absent.py", "--tests", "true", cwd=tmp_path)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr == "error: absent.py: no such file\n  mend: name a file of the project\n"


def test_a_message_is_printed_as_it_is_even_where_it_looks_like_markup(tmp_path: Path) -> None:
    finished = _crrl("fix", "[bold]x[/bold].py", "--tests", "true", cwd=tmp_path)
    assert "error: [bold]x[/bold].py: no such file" in finished.stderr


def _command(body: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`crrl` with one more command, which does this."""
    program = (
        "import sys; from code_repair_rl.cli import app, main; from code_repair_rl.errors import MachineryFailed\n"
        f"@app.command('try-it')\ndef try_it():\n    {body}\n"
        "sys.argv = ['crrl', 'try-it']; main()\n"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("arguments", [["nonsense"], ["fix"], ["fix", "a.py"], ["doctor", "--wrong"]])
def test_wrong_use_ends_with_2(arguments: list[str]) -> None:
    finished = _crrl(*arguments)
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr


def test_machinery_that_fails_ends_with_3(tmp_path: Path) -> None:
    finished = _command("raise MachineryFailed('the worker died', mend='start it again')", tmp_path)
    assert finished.returncode == 3
    assert finished.stderr == "error: the worker died\n  mend: start it again\n"


def test_an_interrupt_says_how_to_go_on(tmp_path: Path) -> None:
    finished = _command("raise KeyboardInterrupt", tmp_path)
    assert finished.returncode == 130
    assert finished.stderr.endswith("interrupted; run the same command again to go on\n")


def test_the_version_and_the_help_are_there() -> None:
    assert _crrl("--version").stdout.startswith("crrl 0.")
    finished = _crrl("--help")
    assert finished.returncode == 0
    assert "doctor" in finished.stdout
