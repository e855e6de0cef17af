"""The cache folder holds whole things only: with two processes at once, a kill in the middle, and a full disk."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.home import built_atomically, home, locked, require_free_space, write_atomically


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def _leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


class TestHome:
    def test_is_the_folder_that_the_environment_names_made_if_absent(self, cache: Path) -> None:
        assert home() == cache
        assert cache.is_dir()

    def test_a_tilde_means_the_users_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("CRRL_HOME", "~/kept here")
        assert home() == tmp_path / "kept here"

    def test_a_file_in_its_place_is_bad_input_that_names_the_variable(self, cache: Path) -> None:
        cache.write_text("in the way")
        with pytest.raises(BadInput, match="CRRL_HOME") as caught:
            home()
        assert caught.value.where == str(cache)


class TestWriteAtomically:
    def test_writes_text_and_bytes_and_makes_the_folder(self, tmp_path: Path) -> None:
        write_atomically(tmp_path / "a" / "text", "für\r\n")
        write_atomically(tmp_path / "a" / "bytes", b"\x00\xff")
        assert (tmp_path / "a" / "text").read_bytes() == "für\r\n".encode()
        assert (tmp_path / "a" / "bytes").read_bytes() == b"\x00\xff"

    def test_the_file_gets_ordinary_permissions(self, tmp_path: Path) -> None:
        umask = os.umask(0o027)
        try:
            write_atomically(tmp_path / "file", "x")
        finally:
            os.umask(umask)
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640

    def test_a_file_that_is_replaced_keeps_its_permissions(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "file").chmod(0o755)
        write_atomically(tmp_path / "file", "x")
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o755

    def test_a_name_may_be_as_long_as_the_file_system_allows(self, tmp_path: Path) -> None:
        path = tmp_path / ("é" * 127)
        write_atomically(path, "x")
        assert path.read_text() == "x"

    def test_folders_made_in_vain_go_again(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput):
            write_atomically(tmp_path / "a" / "b" / ("x" * 300), "x")
        assert list(tmp_path.iterdir()) == []

    def test_a_reader_beside_two_writers_sees_one_whole_text_or_the_other(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        write_atomically(path, "a" * 200_000)
        program = """
import sys
from pathlib import Path
from code_repair_rl.home import write_atomically
for _ in range(60):
    write_atomically(Path(sys.argv[1]), sys.argv[2] * 200_000)
"""
        writers = [_start(program, path, letter) for letter in "ab"]
        seen = set()
        while any(writer.poll() is None for writer in writers):
            text = path.read_text()
            seen.add((len(text), text[0], text.strip(text[0]) == ""))
        assert all(writer.wait() == 0 for writer in writers)
        assert seen <= {(200_000, "a", True), (200_000, "b", True)}
        assert _leftovers(tmp_path) == []

    def test_on_a_full_disk_the_old_file_stays_whole_and_the_error_says_so(self, small_disk: Path) -> None:
        path = small_disk / "file"
        write_atomically(path, "old")
        with pytest.raises(MachineryFailed, match="no room left") as caught:
            write_atomically(path, b"x" * 4_000_000)
        assert caught.value.where == str(path)
        assert path.read_text() == "old"
        assert _leftovers(small_disk) == []

    def test_a_size_limit_in_the_middle_leaves_the_old_file_whole(self, tmp_path: Path) -> None:
        write_atomically(tmp_path / "file", "old")
        program = """
import resource, signal, sys
from pathlib import Path
from code_repair_rl.home import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically(Path(sys.argv[1]), "x" * 5000)
except OSError:
    sys.exit(7)
"""
        assert _start(program, tmp_path / "file").wait() == 7
        assert (tmp_path / "file").read_text() == "old"
        assert _leftovers(tmp_path) == []


class TestBuiltAtomically:
    def test_what_is_built_appears_whole_at_the_end(self, tmp_path: Path) -> None:
        with built_atomically(tmp_path / "set") as scratch:
            (scratch / "a").write_text("1")
            assert not (tmp_path / "set").exists()
        assert (tmp_path / "set" / "a").read_text() == "1"
        assert _leftovers(tmp_path) == []

    def test_an_older_build_is_replaced_whole(self, tmp_path: Path) -> None:
        for name in ("old", "new"):
            with built_atomically(tmp_path / "set") as scratch:
                (scratch / name).write_text(name)
        assert [path.name for path in (tmp_path / "set").iterdir()] == ["new"]
        assert _leftovers(tmp_path) == []

    def test_an_error_in_the_middle_leaves_what_was_there(self, tmp_path: Path) -> None:
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "old").touch()

        def build() -> None:
            with built_atomically(tmp_path / "set") as scratch:
                (scratch / "half").write_text("x")
                raise ValueError

        with pytest.raises(ValueError):
            build()
        assert [path.name for path in (tmp_path / "set").iterdir()] == ["old"]
        assert _leftovers(tmp_path) == []

    def test_a_kill_in_the_middle_leaves_nothing_at_the_destination_and_the_next_build_works(self, cache: Path) -> None:
        program = """
import sys
from pathlib import Path
from code_repair_rl.home import built_atomically, locked
with locked("set"), built_atomically(Path(sys.argv[1])) as scratch:
    (scratch / "half").write_text("x")
    print("half way", flush=True)
    sys.stdin.read()
"""
        process = _start(program, home() / "set")
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (cache / "set").exists()
        with locked("set"), built_atomically(cache / "set") as scratch:  # the killed holder's lock is gone with it
            (scratch / "whole").touch()
        assert [path.name for path in (cache / "set").iterdir()] == ["whole"]

    def test_a_full_disk_in_the_middle_is_our_error_and_leaves_nothing(self, small_disk: Path) -> None:
        def build() -> None:
            with built_atomically(small_disk / "set") as scratch:
                (scratch / "big").write_bytes(b"x" * 4_000_000)

        with pytest.raises(MachineryFailed, match="no room left"):
            build()
        assert list(small_disk.iterdir()) == []


class TestLocked:
    def test_two_processes_at_once_build_one_after_the_other(self, cache: Path) -> None:
        program = """
import sys
from code_repair_rl.home import home, locked
for _ in range(50):
    with locked("counter/one"):
        path = home() / "count"
        path.write_text(str(int(path.read_text()) + 1))
"""
        (home() / "count").write_text("0")
        processes = [_start(program) for _ in range(2)]
        assert [process.wait() for process in processes] == [0, 0]
        assert (cache / "count").read_text() == "100"  # without the lock, increments get lost


class TestRequireFreeSpace:
    def test_says_nothing_where_there_is_room(self, tmp_path: Path) -> None:
        require_free_space(tmp_path, 1, "a test")

    def test_refuses_with_both_numbers_where_there_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(MachineryFailed, match=r"the demo needs 1000000000 MiB, but only \d+ MiB are free"):
            require_free_space(tmp_path, 10**9 * 2**20, "the demo")


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of 1 MiB, which takes root to mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a small disk cannot be mounted here (root is needed)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
