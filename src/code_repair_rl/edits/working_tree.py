"""A folder on disk as a file tree: read lazily, never through symbolic links, written whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from code_repair_rl.edits.errors import EditError, EditErrorKind
from code_repair_rl.edits.paths import check_path
from code_repair_rl.errors import BadInput
from code_repair_rl.home import write_all

_VERSION_CONTROL = {".git", ".hg", ".svn"}
"""Neither listed nor touched, whatever the case of their letters: what stands there is executed by the next command."""
_SKIPPED_FOLDERS = {".venv", "__pycache__", "node_modules"}
"""Not listed (a patch that names files in them can still touch them, except where the caller protects them)."""
_UNREADABLE_MEND = "make it readable, or name a folder without it"


class WorkingTree(Mapping[str, str]):
    """The UTF-8 files below `root`, by POSIX path relative to it; with `only`, that one file and no other.

    Raises:
        EditError: on reading a path: `PATH_OUTSIDE` if it leads through a symbolic link or is not `only`, `PROTECTED`
            if it belongs to version control, `FILE_EXISTS` if it leads through a file, `NOT_TEXT` if the file is not
            UTF-8, `NO_SUCH_FILE` if it is no regular file.
        BadInput: on reading or listing: a file or folder cannot be read.
    """

    def __init__(self, root: Path, only: str | None = None) -> None:
        self.root = root
        self.only = only
        self._listed: list[str] | None = None

    def __getitem__(self, path: str) -> str:
        file = self._file(path)
        if not os.path.lexists(file):
            raise KeyError(path)
        if not file.is_file():
            raise EditError(EditErrorKind.NO_SUCH_FILE, "this is no regular file", path=path)
        try:
            with _reading(file):
                return file.read_bytes().decode()
        except UnicodeDecodeError as error:
            raise EditError(EditErrorKind.NOT_TEXT, "the file is not UTF-8 text", path=path) from error

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and self._file(path).is_file()

    def __iter__(self) -> Iterator[str]:
        if self._listed is None:
            self._listed = sorted(self._walk()) if self.only is None else [self.only]
        return iter(self._listed)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def write(self, changes: Mapping[str, str | None]) -> None:
        """Make the files be as `changes` says (None: gone); all texts are on disk before the first file is replaced.

        A replaced file keeps its mode; folders that lose their last file stay.

        Raises:
            EditError: `PATH_OUTSIDE`, `PROTECTED` or `FILE_EXISTS`, as on reading.
            BadInput: a file or folder cannot be written to; nothing was changed if that shows before the first file is
                replaced.
            MachineryFailed: the disk is full; the same goes for it.
        """
        texts = {self._file(path): text for path, text in changes.items()}
        for file, text in texts.items():
            if text is None and not os.access(file.parent, os.W_OK):
                raise BadInput("the file cannot be deleted (Permission denied)", where=str(file))
        try:
            write_all({file: text.encode() for file, text in texts.items() if text is not None})
            for file, text in texts.items():
                if text is None:
                    file.unlink()
        finally:
            self._listed = None

    def _file(self, path: str) -> Path:
        check_path(path)
        if self.only not in (None, path):
            raise EditError(
                EditErrorKind.PATH_OUTSIDE,
                f"only {self.only!r} is to be edited",
                path=path,
                hint="give the folder as the root, and the answer may touch all of its files",
            )
        if any(map(_is_version_control, path.split("/"))):
            raise EditError(
                EditErrorKind.PROTECTED,
                "the file belongs to version control, which answers must not touch",
                path=path,
                hint="mend the code itself",
            )
        file = self.root
        names = path.split("/")
        for place, name in enumerate(names, 1):
            file = file / name
            mode = _mode(file)
            if mode is None:
                return self.root.joinpath(*names)
            if stat.S_ISLNK(mode):
                raise EditError(
                    EditErrorKind.PATH_OUTSIDE,
                    "the path leads through a symbolic link",
                    path=path,
                    hint="name the file by its real place in the tree",
                )
            if place < len(names) and not stat.S_ISDIR(mode):
                raise EditError(
                    EditErrorKind.FILE_EXISTS,
                    f"{'/'.join(names[:place])!r} is a file, not a folder",
                    path=path,
                    hint="choose a path that is free",
                )
        return file

    def _walk(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self.root, onerror=_refuse_unreadable):
            folders[:] = [name for name in folders if not (name in _SKIPPED_FOLDERS or _is_version_control(name))]
            for name in names:
                file = Path(folder) / name
                if stat.S_ISREG(_mode(file) or 0) and not _is_version_control(name):
                    yield file.relative_to(self.root).as_posix()


def _is_version_control(name: str) -> bool:
    return name.casefold() in _VERSION_CONTROL


def _mode(file: Path) -> int | None:
    """Of the file, folder or link itself; None where nothing is there."""
    with _reading(file):
        try:
            return file.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=str(file), mend=_UNREADABLE_MEND) from error


def _refuse_unreadable(error: OSError) -> None:
    raise BadInput(f"cannot be read ({error.strerror})", where=error.filename, mend=_UNREADABLE_MEND) from error
