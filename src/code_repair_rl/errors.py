"""The one error family: what is wrong, where, and how to mend it.

Every error that a user can cause or cure derives from `CrrlError`. The command line prints it as one message and
exits with its `exit_code`; a traceback therefore always means a defect of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import ValidationError


class CrrlError(Exception):
    """An error with a place and a mend.

    Args:
        what: what is wrong, as one sentence without a full stop.
        where: the file, line, key or command it is about (`"tasks.jsonl:12"`), if there is one.
        mend: what to do about it, as an imperative sentence, if we know.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, mend: str | None = None) -> None:
        super().__init__(what, where, mend)
        self.what = what
        self.where = where
        self.mend = mend

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  mend: {self.mend}" if self.mend else text

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes hand errors back pickled; exceptions with keyword arguments would not survive that.
        return _revive, (type(self), self.args, self.__dict__)


def first_complaint(error: ValidationError, is_key: Callable[[int | str], bool] = lambda part: True) -> str:
    """`key: message` of the first thing that a schema refused.

    Args:
        error: pydantic's.
        is_key: which parts of the place are keys of the file; pydantic also names the branch of a union it tried.
    """
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"] if is_key(part))
    said = str(first["msg"]).removeprefix("Value error, ")  # how pydantic marks what our own checks say
    return f"{key}: {said}" if key else said


def _revive(kind: type[CrrlError], arguments: tuple[Any, ...], state: dict[str, Any]) -> CrrlError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


class BadInput(CrrlError):  # noqa: N818 - reads as what it is
    """Wrong use or bad input: an unknown key, a damaged file, a path that is not there (exit code 2)."""


class MachineryFailed(CrrlError):  # noqa: N818 - reads as what it is
    """Our own machinery could not do its work: no isolation, no room on disk, a worker that died (exit code 3)."""

    exit_code = 3
