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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from code_repair_rl.errors import BadInput, MachineryFailed

ENVIRONMENT_VARIABLE = "CRRL_HOME"


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

    Raises:
        BadInput: nothing can be written there.
        MachineryFailed: the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise _named(error, path) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(scratch).chmod(0o666 & ~umask)
        Path(scratch).replace(path)
    except OSError as error:
        Path(scratch).unlink(missing_ok=True)
        raise _named(error, path) from error
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


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


def _named(error: OSError, path: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MachineryFailed("no room left on the disk", where=str(path), mend="free some space and run again")
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG):
        return BadInput(f"cannot be written ({error.strerror})", where=str(path), mend="name another place")
    return error
