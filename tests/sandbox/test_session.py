"""Shell sessions over a work copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.sandbox import Cause, Limits, select_backend
from code_repair_rl.sandbox.session import Session


@pytest.fixture(params=["bubblewrap", "unsafe_local"])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with select_backend(request.param).open_session(files={"a.txt": "one\n", "sub/b.txt": b"\xff"}) as session:
        yield session


def test_files_carry_over_from_command_to_command(session: Session) -> None:
    assert (
        session.run("cat a.txt; echo two >> a.txt; rm sub/b.txt; echo 'echo hi' > run; chmod +x run").stdout == b"one\n"
    )
    assert session.run("cat a.txt; ./run; ls sub 2>/dev/null").stdout == b"one\ntwo\nhi\n"
    assert session.files() == {"a.txt": b"one\ntwo\n", "run": b"echo hi\n"}


def test_folder_and_environment_carry_over(session: Session) -> None:
    session.run("cd sub; export COLOUR='light blue'; hidden=1")
    assert session.run('echo "${PWD##*/} $COLOUR $hidden"').stdout == b"sub light blue \n"


def test_exit_codes_come_back_and_a_failing_command_ends_nothing(session: Session) -> None:
    assert session.run("exit 7").exit_code == 7
    assert session.run("no-such-command").exit_code == 127
    assert session.run("if").exit_code != 0
    assert session.run("echo $((6 * 7))").stdout == b"42\n"


def test_a_command_that_takes_too_long_is_ended(session: Session) -> None:
    result = session.run("echo begun; sleep 60", limits=Limits(wall_seconds=4))
    assert result.cause is Cause.TIMEOUT and b"begun" in result.stdout
    assert session.run("cat a.txt").stdout == b"one\n"


def test_background_processes_end_with_their_command(session: Session) -> None:
    assert session.run("sleep 60 >/dev/null 2>&1 & echo done").stdout == b"done\n"


def test_a_closed_session_takes_no_command(session: Session) -> None:
    session.close()
    with pytest.raises(BadInput):
        session.run("true")


def test_a_folder_is_copied_in_and_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("print(1)\n")
    with select_backend().open_session(trees={".": str(tmp_path)}) as session:
        session.write("n.py", "import m\n")
        assert session.run("python n.py; echo 'print(2)' > m.py").stdout == b"1\n"
        assert session.files()["m.py"] == b"print(2)\n"
    assert (tmp_path / "m.py").read_text() == "print(1)\n"


def test_a_folder_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(3 << 20))
    with pytest.raises(BadInput, match="work copy"):
        select_backend().open_session(trees={".": str(tmp_path)}, limits=Limits(disk_bytes=1 << 20))
