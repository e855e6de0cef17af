"""`crrl edits` as a person at a terminal uses it."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from code_repair_rl.cli import main

CODE = "def f(x):\n    return x - 1\n"
FIX = "a.py\n<<<<<<< SEARCH\n    return x - 1\n=======\n    return x + 1\n>>>>>>> REPLACE\n"


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def crrl(*words: str | Path, stdin: str | bytes = b"", cwd: Path) -> Done:
    """Run the command in this process: the same entry point, without an interpreter's start for each call."""
    out, err = io.StringIO(), io.StringIO()
    data = stdin.encode() if isinstance(stdin, str) else stdin
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        patched.chdir(cwd)
        patched.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        patched.setattr(sys, "argv", ["crrl", "edits", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "pkg").mkdir(parents=True)
    (folder / "a.py").write_text(CODE)
    (folder / "pkg" / "b.py").write_bytes(b"x = 1\r\n")
    return folder


def test_a_piped_answer_is_applied(tree: Path) -> None:
    (tree / "a.py").chmod(0o755)
    done = crrl("apply", stdin="Here:\n" + FIX, cwd=tree)
    assert done.returncode == 0, done.stderr
    assert (tree / "a.py").read_text() == CODE.replace("-", "+")
    assert stat.S_IMODE((tree / "a.py").stat().st_mode) == 0o755
    assert "+    return x + 1" in done.stdout
    assert "modified: a.py" in done.stderr
    assert sorted(path.name for path in tree.iterdir()) == ["a.py", "pkg"]  # no scratch files


def test_it_works_at_the_end_of_a_real_pipe(tree: Path) -> None:
    command = [sys.executable, "-m", "code_repair_rl", "edits", "apply"]
    done = subprocess.run(command, input=FIX.encode(), capture_output=True, cwd=tree)
    assert done.returncode == 0, done.stderr
    assert (tree / "a.py").read_text() == CODE.replace("-", "+")
    again = subprocess.run(command, input=FIX.encode(), capture_output=True, cwd=tree)
    assert again.returncode == 2
    assert b"Traceback" not in again.stderr


def test_a_dry_run_shows_and_changes_nothing(tree: Path) -> None:
    done = crrl("apply", "--dry-run", "--json", stdin=FIX, cwd=tree)
    shown = json.loads(done.stdout)
    assert (done.returncode, shown["applied"], shown["rung"]) == (0, False, "exact")
    assert shown["changes"] == {"a.py": "modified"}
    assert (tree / "a.py").read_text() == CODE


def test_files_come_go_and_keep_their_line_endings(tree: Path) -> None:
    answer = (
        "*** Delete File: a.py\nnew/c.py\n<<<<<<< SEARCH\n=======\ny = 1\n>>>>>>> REPLACE\n"
        "pkg/b.py\n<<<<<<< SEARCH\nx = 1\n=======\nx = 2\n>>>>>>> REPLACE\n"
    )
    file = tree.parent / "answer.txt"
    file.write_text(answer)
    done = crrl("apply", file, "--root", tree, "--json", cwd=tree.parent)
    assert json.loads(done.stdout)["changes"] == {"a.py": "deleted", "new/c.py": "created", "pkg/b.py": "modified"}
    assert not (tree / "a.py").exists()
    assert (tree / "new" / "c.py").read_text() == "y = 1\n"
    assert (tree / "pkg" / "b.py").read_bytes() == b"x = 2\r\n"


def test_an_answer_without_a_path_goes_onto_the_file_named_as_root(tree: Path) -> None:
    done = crrl("apply", "--root", "a.py", stdin=FIX.removeprefix("a.py\n"), cwd=tree)
    assert done.returncode == 0, done.stderr
    assert (tree / "a.py").read_text() == CODE.replace("-", "+")


@pytest.mark.parametrize(
    "answer",
    [
        FIX + "b.py\n<<<<<<< SEARCH\n=======\nmine = 2\n>>>>>>> REPLACE\n",
        "*** Rename File: a.py\n*** Move to: b.py\n",
        "*** Delete File: b.py\n",
        FIX.replace("a.py", "new.py"),
    ],
)
def test_with_one_file_as_root_no_other_file_is_touched(tree: Path, answer: str) -> None:
    (tree / "b.py").write_text("mine = 1\n")
    for command, code in (("apply", 2), ("check", 1)):
        done = crrl(command, "--root", "a.py", stdin=answer, cwd=tree)
        assert done.returncode == code
        assert "only 'a.py' is to be edited" in done.stderr
    assert {path.name for path in tree.iterdir()} == {"a.py", "b.py", "pkg"}
    assert (tree / "a.py").read_text() == CODE
    assert (tree / "b.py").read_text() == "mine = 1\n"


def test_one_bad_block_leaves_every_file_as_it_was(tree: Path) -> None:
    done = crrl("apply", stdin=FIX + FIX.replace("a.py", "pkg/b.py"), cwd=tree)
    assert done.returncode == 2
    assert "pkg/b.py" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tree / "a.py").read_text() == CODE


def test_symbolic_links_are_not_followed(tree: Path) -> None:
    outside = tree.parent / "outside.py"
    outside.write_text(CODE)
    (tree / "link.py").symlink_to(outside)
    (tree / "up").symlink_to(tree.parent)
    for path in ("link.py", "up/outside.py"):
        done = crrl("apply", stdin=FIX.replace("a.py", path), cwd=tree)
        assert done.returncode == 2
        assert "symbolic link" in done.stderr
    assert outside.read_text() == CODE


def test_protected_files_are_left_alone(tree: Path) -> None:
    done = crrl("apply", "--protect", "pkg", "--protect", "a.*", stdin=FIX, cwd=tree)
    assert done.returncode == 2
    assert "must not be edited" in done.stderr


@pytest.mark.parametrize("path", [".git/config", ".git", "vendored/.GIT/hooks/pre-commit", ".hg/hgrc", "a/.svn/x"])
def test_version_control_is_never_touched(tree: Path, path: str) -> None:
    answers = (
        f'"{path}"\n<<<<<<< SEARCH\n=======\n[core]\n\tfsmonitor = "touch owned"\n>>>>>>> REPLACE\n',
        f"*** Rename File: a.py\n*** Move to: {path}\n",
    )
    for answer in answers:
        done = crrl("apply", stdin=answer, cwd=tree)
        assert done.returncode == 2
        assert "belongs to version control" in done.stderr
    assert {file.name for file in tree.iterdir()} == {"a.py", "pkg"}


def test_a_worktrees_link_to_its_repository_is_not_listed(tree: Path) -> None:
    other = tree.parent / "other"
    (other / "pkg").mkdir(parents=True)
    (other / ".git").write_text("gitdir: /elsewhere\n")
    (other / "a.py").write_text(CODE)
    (other / "pkg" / "b.py").write_bytes(b"x = 1\r\n")
    assert crrl("diff", tree, other, cwd=tree).stdout == "*** Empty Patch\n"


@pytest.mark.parametrize(
    "path", ["x" * 300 + ".py", "é" * 130, "/".join(["x" * 200] * 30), "\\ud800.py", "a.py/x.py", "a.py/x/y.py", "pkg"]
)
def test_a_path_that_no_file_can_have_is_a_refused_answer(tree: Path, path: str) -> None:
    block = "<<<<<<< SEARCH\n=======\ny = 1\n>>>>>>> REPLACE\n"
    for answer in (f'new/c.py\n{block}"{path}"\n{block}', f'*** Rename File: a.py\n*** Move to: "{path}"\n'):
        assert crrl("check", stdin=answer, cwd=tree).returncode == 1
        done = crrl("apply", stdin=answer, cwd=tree)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
    assert {file.name for file in tree.iterdir()} == {"a.py", "pkg"}


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called locked cannot be read, by nobody: a real one would not stop root."""
    read_bytes, scandir = Path.read_bytes, os.scandir

    def refuse(path: str | os.PathLike[str]) -> None:
        if "locked" in os.fspath(path):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))

    def read(path: Path) -> bytes:
        refuse(path)
        return read_bytes(path)

    def scan(path: str | os.PathLike[str]) -> object:
        refuse(path)
        return scandir(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    monkeypatch.setattr(os, "scandir", scan)


@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize("place", ["locked.py", "locked/a.py"])
def test_what_cannot_be_read_is_an_error_and_no_absent_file(tree: Path, place: str) -> None:
    other = tree.parent / "other"
    (other / place).parent.mkdir(parents=True)
    (other / place).write_text(CODE)
    for folders in ((tree, other), (other, tree)):
        done = crrl("diff", *folders, cwd=tree)
        assert done.returncode == 2
        assert "cannot be read (Permission denied)" in done.stderr


def test_where_a_file_cannot_be_deleted_nothing_is_changed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place).name != "pkg")
    done = crrl("apply", stdin=FIX + "*** Delete File: pkg/b.py\n", cwd=tree)
    assert done.returncode == 2
    assert "cannot be deleted" in done.stderr
    assert (tree / "a.py").read_text() == CODE


@pytest.mark.usefixtures("locked")
def test_a_file_that_cannot_be_read_is_not_edited(tree: Path) -> None:
    (tree / "locked.py").write_text(CODE)
    for command in ("apply", "check"):
        done = crrl(command, stdin=FIX.replace("a.py", "locked.py"), cwd=tree)
        assert done.returncode == 2
        assert "cannot be read (Permission denied)" in done.stderr


def test_check_answers_with_its_exit_code(tree: Path) -> None:
    assert crrl("check", stdin=FIX, cwd=tree).returncode == 0
    lenient = FIX.replace("    return", "return")
    assert crrl("check", stdin=lenient, cwd=tree).returncode == 1
    assert crrl("check", "--tolerance", "indentation", stdin=lenient, cwd=tree).returncode == 0
    done = crrl("check", "--json", stdin="a.py\n<<<<<<< SEARCH\n", cwd=tree)
    assert done.returncode == 1
    error = json.loads(done.stdout)
    assert (error["ok"], error["kind"], error["line"]) == (False, "unterminated", 2)
    assert (tree / "a.py").read_text() == CODE


def test_diff_and_apply_lead_there_and_back(tree: Path) -> None:
    fixed = tree.parent / "fixed.py"
    fixed.write_text(CODE.replace("-", "+"))
    done = crrl("diff", "a.py", fixed, cwd=tree)
    assert done.stdout == FIX
    assert crrl("diff", "a.py", fixed, "--no-paths", cwd=tree).stdout == FIX.removeprefix("a.py\n")
    assert "@@ -1,2 +1,2 @@" in crrl("diff", "a.py", fixed, "--unified", cwd=tree).stdout
    numbers = json.loads(crrl("diff", "a.py", fixed, "--json", cwd=tree).stdout)
    assert (numbers["files"], numbers["blocks"], numbers["changed_tokens"]) == (1, 1, 2)
    assert crrl("apply", stdin=done.stdout, cwd=tree).returncode == 0
    assert crrl("diff", "a.py", fixed, cwd=tree).stdout == "*** Empty Patch\n"


def test_folders_are_compared_as_trees(tree: Path) -> None:
    other = tree.parent / "other"
    other.mkdir()
    (other / "a.py").write_text(CODE)
    assert crrl("diff", tree, other, cwd=tree).stdout == "*** Delete File: pkg/b.py\n"


@pytest.mark.parametrize(
    "words",
    [
        ("apply", "missing.txt"),
        ("apply", "--root", "missing"),
        ("diff", "a.py", "missing.py"),
        ("diff", "a.py", "pkg"),
        ("apply", "--tolerance", "loose"),
    ],
)
def test_wrong_use_ends_with_2_and_a_message(tree: Path, words: tuple[str, ...]) -> None:
    done = crrl(*words, stdin=FIX, cwd=tree)
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_bytes_that_are_no_text_are_refused(tree: Path) -> None:
    assert crrl("apply", stdin=b"ok\n\xff", cwd=tree).returncode == 2
    (tree / "a.py").write_bytes(b"\xff\n")
    done = crrl("apply", stdin=FIX, cwd=tree)
    assert done.returncode == 2
    assert "not UTF-8" in done.stderr
