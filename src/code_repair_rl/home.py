"""The one cache folder, and the few ways in which files get into it whole.

Everything that the project downloads or derives lives under `CRRL_HOME` (default: the user's cache directory).
Two processes may use it at once: what is built is built under a lock, in a scratch folder beside its destination,
and moved there in one step, so that a reader sees either nothing or the finished thing.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from code_repair_rl.errors import BadInput, MachineryFailed

ENVIRONMENT_VARIABLE = "CRRL_HOME"
_LONGEST_PREFIX_BYTES = 100
"""Of a scratch file's name: with what makes it unique it must not be too long where the name itself is not."""


def home() -> Path:
    """The cache folder, made if it is absent.

    Raises:
        BadInput: it cannot be made or is not a folder.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        folder = Path(named).expanduser().absolute()
    else:
        import platformdirs

        folder = Path(platformdirs.user_cache_dir("code-repair-rl"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"the cache folder cannot be made ({error.strerror})",
            where=str(folder),
            mend=f"point {ENVIRONMENT_VARIABLE} at a folder you can write to",
        ) from error
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock `name` (slashes allowed) of the cache folder; other processes wait their turn."""
    import filelock

    path = home() / "locks" / (name.replace("/", "--") + ".lock")
    path.parent.mkdir(exist_ok=True)
    with filelock.FileLock(path):
        yield


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `content` to `path` so that a reader, or a kill at any moment, finds the old file or the new one.

    A file that is replaced keeps its mode.

    Raises:
        BadInput: nothing can be written there.
        MachineryFailed: the disk is full.
    """
    write_all({path: content.encode() if isinstance(content, str) else content})


def write_all(contents: Mapping[Path, bytes]) -> None:
    """As `write_atomically` for several files: all contents are on the disk before the first file is replaced.

    Where that fails, folders made for them go again.

    Raises:
        BadInput: nothing can be written there.
        MachineryFailed: the disk is full.
    """
    folders: list[Path] = []
    scratches: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            with _naming(path):
                _make_folders(path.parent, folders)
                scratches[path] = _scratch_file(path)
                _fill(scratches[path], content, _mode_of(path))
        for path, scratch in scratches.items():
            with _naming(path):
                scratch.replace(path)
    except BaseException:
        for scratch in scratches.values():
            scratch.unlink(missing_ok=True)
        for folder in reversed(folders):
            with suppress(OSError):  # it holds something by now
                folder.rmdir()
        raise


def _make_folders(folder: Path, made: list[Path]) -> None:
    """Make the folder and those above it that are absent, and note each in `made`."""
    absent = []
    while not folder.exists():
        absent.append(folder)
        folder = folder.parent
    for one in reversed(absent):
        one.mkdir(exist_ok=True)
        made.append(one)


def _scratch_file(path: Path) -> Path:
    prefix = os.fsdecode(os.fsencode(f".{path.name}")[:_LONGEST_PREFIX_BYTES])
    handle, scratch = tempfile.mkstemp(prefix=f"{prefix}.", dir=path.parent)
    os.close(handle)
    return Path(scratch)


def _fill(scratch: Path, content: bytes, mode: int) -> None:
    with scratch.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    scratch.chmod(mode)


def _mode_of(path: Path) -> int:
    """Of the file, or what new files get."""
    if path.exists():
        return path.stat().st_mode & 0o7777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


@contextmanager
def built_atomically(destination: Path) -> Iterator[Path]:
    """A scratch folder that becomes `destination` when the block ends well, and vanishes when it does not.

    An existing `destination` is replaced.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    try:
        yield scratch
        if destination.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{destination.name}.old.", dir=destination.parent))
            destination.replace(old / "was")
            scratch.replace(destination)
            shutil.rmtree(old, ignore_errors=True)
        else:
            scratch.replace(destination)
        destination.chmod(0o755)
    except OSError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise _named(error, destination) from error
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def require_free_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Refuse to begin `what` where `folder`'s disk has less than `needed_bytes` free.

    Raises:
        MachineryFailed: too little room; nothing was written.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise MachineryFailed(
            f"{what} needs {needed_bytes / 2**20:.0f} MiB, but only {free_bytes / 2**20:.0f} MiB are free",
            where=str(folder),
            mend=f"free some space, or point {ENVIRONMENT_VARIABLE} (and the run directory) at another disk",
        )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _named(error, path) from error


def _named(error: OSError, path: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MachineryFailed("no room left on the disk", where=str(path), mend="free some space and run again")
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG):
        return BadInput(f"cannot be written ({error.strerror})", where=str(path), mend="name another place")
    return error
