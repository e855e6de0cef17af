"""A folder on disk as a file tree: read lazily, never through symbolic links, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from code_repair_rl.edits.errors import EditError, EditErrorKind
from code_repair_rl.edits.paths import check_path

_VERSION_CONTROL = {".git", ".hg", ".svn"}
"""Neither listed nor touched, whatever the case of their letters: what stands there is executed by the next command."""
_SKIPPED_FOLDERS = {".venv", "__pycache__", "node_modules"}
"""Not listed (a patch that names files in them can still touch them, except where the caller protects them)."""


class WorkingTree(Mapping[str, str]):
    """The UTF-8 files below `root`, by POSIX path relative to it; with `only`, that one file and no other.

    Raises:
        EditError: on reading a path: `PATH_OUTSIDE` if it leads through a symbolic link or is not `only`, `PROTECTED`
            if it belongs to version control, `NOT_TEXT` if the file is not UTF-8, `NO_SUCH_FILE` if it is no regular
            file.
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
            return file.read_bytes().decode()
        except UnicodeDecodeError as error:
            raise EditError(EditErrorKind.NOT_TEXT, "the file is not UTF-8 text", path=path) from error

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and os.path.lexists(self._file(path))

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
            EditError: `PATH_OUTSIDE` or `PROTECTED`, as on reading.
            OSError: the disk is full or a folder cannot be written to; no file was replaced if that shows while the
                texts are laid out.
        """
        staged: list[tuple[Path, Path]] = []
        try:
            for path, text in changes.items():
                if text is not None:
                    file = self._file(path)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    staged.append((_stage(file, text.encode()), file))
            for scratch, file in staged:
                scratch.replace(file)
            for path, text in changes.items():
                if text is None:
                    self._file(path).unlink()
        finally:
            self._listed = None
            for scratch, _ in staged:
                with suppress(FileNotFoundError):
                    scratch.unlink()

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
        for part in path.split("/"):
            file = file / part
            if file.is_symlink():
                raise EditError(
                    EditErrorKind.PATH_OUTSIDE,
                    "the path leads through a symbolic link",
                    path=path,
                    hint="name the file by its real place in the tree",
                )
        return file

    def _walk(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if not (name in _SKIPPED_FOLDERS or _is_version_control(name))]
            for name in names:
                file = Path(folder) / name
                if file.is_file() and not file.is_symlink() and not _is_version_control(name):
                    yield file.relative_to(self.root).as_posix()


def _is_version_control(name: str) -> bool:
    return name.casefold() in _VERSION_CONTROL


def _stage(file: Path, data: bytes) -> Path:
    """The data in a scratch file beside `file`, with its mode (or the one that new files get)."""
    handle, scratch = tempfile.mkstemp(prefix=f".{file.name[:100]}.", dir=file.parent)
    with os.fdopen(handle, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    if file.exists():
        mode = file.stat().st_mode & 0o7777
    else:
        umask = os.umask(0)
        os.umask(umask)
        mode = 0o666 & ~umask
    Path(scratch).chmod(mode)
    return Path(scratch)
