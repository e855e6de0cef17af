"""Why an edit was refused: one exception with a kind, a line and a hint."""

from __future__ import annotations

from enum import StrEnum

from code_repair_rl.errors import CrrlError


class EditErrorKind(StrEnum):
    """Why an edit could not be read or applied. The value goes into verdicts and reward terms."""

    UNREADABLE = "unreadable"
    """The text holds no edit at all, and is not the canonical empty patch either."""
    UNTERMINATED = "unterminated"
    """A block was opened and the text ended before its closing marker (often: the token limit)."""
    MISSING_DIVIDER = "missing-divider"
    """A block was closed without a divider between SEARCH and REPLACE."""
    NESTED_MARKER = "nested-marker"
    """A marker of the block's own length stands inside the block, where content belongs."""
    MALFORMED_HEADER = "malformed-header"
    """A `*** ` header line is out of place or its value is not one it can have."""
    MALFORMED_DIFF = "malformed-diff"
    """A unified diff breaks its own grammar: names that disagree, counts that do not fit the hunk."""
    SEARCH_NOT_FOUND = "search-not-found"
    """No place in the file has the SEARCH lines under the tolerance allowed."""
    AMBIGUOUS = "ambiguous"
    """The SEARCH lines stand in several places of the file."""
    OVERLAPPING = "overlapping"
    """Two blocks want to change the same lines of the original, or one file is edited in ways that exclude
    each other."""
    NO_PATH = "no-path"
    """A block names no file, and the tree does not have exactly one."""
    NO_SUCH_FILE = "no-such-file"
    """The edit changes, deletes or renames a file that the tree does not have."""
    FILE_EXISTS = "file-exists"
    """A rename's target is already there, or what would have to be a folder is a file."""
    PATH_OUTSIDE = "path-outside"
    """The path is absolute, climbs with `..`, leads through a symbolic link, or is one that no file can have."""
    PROTECTED = "protected"
    """The path is one that the caller does not let answers touch, or (on disk) belongs to version control."""
    EMPTY_SEARCH = "empty-search"
    """An empty SEARCH creates a file, but the file is there and has text."""
    NOT_TEXT = "not-text"
    """The file or the answer is not text: bytes, lone surrogates, a binary diff."""
    TOO_LARGE = "too-large"
    """The answer is longer, or has more blocks, than the limit."""


class EditError(CrrlError):
    """An edit that is refused, whole: nothing was applied.

    Attributes:
        kind: which rule it broke.
        line: 1-based line of the answer's text it is about; None where there is no such line.
        path: the file it is about, where known.
        places: 1-based lines of the file: all candidates of an ambiguous search (at most the first hundred), the
            nearest place of one not found.
        hint: what would mend it.
    """

    def __init__(
        self,
        kind: EditErrorKind,
        what: str,
        *,
        line: int | None = None,
        path: str | None = None,
        places: tuple[int, ...] = (),
        hint: str | None = None,
    ) -> None:
        where = ", ".join(([f"answer line {line}"] if line is not None else []) + ([path] if path is not None else []))
        super().__init__(what, where=where or None, mend=hint)
        self.kind = kind
        self.line = line
        self.path = path
        self.places = places
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.kind, self.what, self.line, self.path, self.places, self.hint))


def _rebuild(
    kind: EditErrorKind, what: str, line: int | None, path: str | None, places: tuple[int, ...], hint: str | None
) -> EditError:
    """Unpickling: keyword-only arguments cannot go through the default protocol."""
    return EditError(kind, what, line=line, path=path, places=places, hint=hint)
