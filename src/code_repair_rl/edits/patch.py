"""What an edit is, once read: hunks of whole lines, grouped by file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Tolerance(StrEnum):
    """How closely SEARCH lines must match the file's; each rung includes the ones before it."""

    EXACT = "exact"
    """Every character of every line. Only the file's own line ending (CRLF) need not be written."""
    TRAILING_WHITESPACE = "trailing-whitespace"
    """Blanks at the ends of lines are not compared."""
    INDENTATION = "indentation"
    """All lines may be shifted by one and the same indentation; the replacement is shifted with them."""

    @property
    def rank(self) -> int:
        """0 for the strictest."""
        return _RANKS[self]


_RANKS = {tolerance: rank for rank, tolerance in enumerate(Tolerance)}


class LineEndings(StrEnum):
    """What an edit makes of a file's line endings, where it does not simply keep them."""

    CRLF = "CRLF"
    """Every line of the file ends in CRLF afterwards."""
    LF = "LF"
    """Every line of the file ends in a line feed afterwards, whatever it ended in before."""
    RAW = "raw"
    """The file mixes endings: lines end at line feeds, and carriage returns are written out in the hunks."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """Replace the lines `search`, which stand in one place of the original file, by `replace`."""

    search: tuple[str, ...]
    """Whole lines without their endings. Empty: the file is absent or empty (or `at` says where to insert)."""
    replace: tuple[str, ...]
    at: int | None = None
    """1-based line of the original where `search` should stand: decides between several places, and is where an empty
    `search` inserts. Unified diffs say it; blocks need not."""
    line: int | None = field(default=None, compare=False, repr=False)
    """1-based line of the answer's text where the hunk began, for messages."""


@dataclass(frozen=True, slots=True)
class FileEdit:
    """All that a patch does to one file."""

    path: str | None
    """POSIX, relative to the tree's root; None: the tree's only file."""
    hunks: tuple[Hunk, ...] = ()
    created: bool = False
    """The file may be absent and is there afterwards, even if no hunk gives it text."""
    deleted: bool = False
    """The file is gone afterwards. Hunks, if any, must take away all of its lines."""
    renamed_to: str | None = None
    final_newline: bool | None = None
    """Whether the last line is ended afterwards; None keeps the file's own way (a new file's is ended)."""
    line_endings: LineEndings | None = None
    """None keeps the file's own (a new file's is a line feed)."""
    line: int | None = field(default=None, compare=False, repr=False)
    """1-based line of the answer's text where the file was named, for messages."""

    def __post_init__(self) -> None:
        whole = self.created or self.deleted or self.renamed_to is not None
        if self.path is None and whole:
            raise ValueError("an edit that creates, deletes or renames a file names it")
        if not (whole or self.hunks or self.final_newline is not None or self.line_endings is not None):
            raise ValueError("an edit of a file does something to it: an empty patch has no edits at all")
        if self.deleted and (self.created or self.renamed_to is not None):
            raise ValueError("a deleted file is neither created nor renamed")


@dataclass(frozen=True, slots=True)
class Changes:
    """What a patch makes of the files it touches; all others stay as they are."""

    texts: dict[str, str | None]
    """Path to the text afterwards, None where the file is gone. Only files that really differ from before."""
    rung: Tolerance
    """The most tolerant rung that any hunk needed."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The tree after a patch, and how closely the patch matched."""

    files: dict[str, str]
    rung: Tolerance
    """The most tolerant rung that any hunk needed."""
    changed: frozenset[str]
    """Paths whose text differs from before, created, deleted and both ends of renames included."""


@dataclass(frozen=True, slots=True)
class Patch:
    """An edit of a file tree. `str(patch)` is its canonical text, and `parse` reads that back as an equal patch."""

    edits: tuple[FileEdit, ...] = ()
    """At most one for each file; one without a path comes first."""

    def __post_init__(self) -> None:
        paths = [edit.path for edit in self.edits]
        if len(set(paths)) < len(paths) or None in paths[1:]:
            raise ValueError("a patch has one edit for each file, and one without a path comes first")

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path named, in order, both ends of a rename included; a file that is not named has none."""
        named = (path for edit in self.edits for path in (edit.path, edit.renamed_to) if path is not None)
        return tuple(dict.fromkeys(named))

    def apply(
        self,
        files: Mapping[str, str],
        *,
        tolerance: Tolerance = Tolerance.EXACT,
        protected: Iterable[str] = (),
    ) -> dict[str, str]:
        """The tree after the edit; `files` is not touched.

        Args:
            files: path to text.
            tolerance: the most tolerant rung allowed.
            protected: paths, folders or shell patterns that the edit must not touch.

        Raises:
            EditError: any hunk or header cannot be applied; then nothing is.
        """
        return self.apply_with(files, tolerance=tolerance, protected=protected).files

    def apply_with(
        self,
        files: Mapping[str, str],
        *,
        tolerance: Tolerance = Tolerance.EXACT,
        protected: Iterable[str] = (),
    ) -> Applied:
        """As `apply`, and says also which rung of tolerance was needed and which paths changed."""
        changes = self.changes(files, tolerance=tolerance, protected=protected)
        after = {path: text for path, text in files.items() if changes.texts.get(path, "") is not None}
        after.update({path: text for path, text in changes.texts.items() if text is not None})
        return Applied(after, changes.rung, frozenset(changes.texts))

    def changes(
        self,
        files: Mapping[str, str],
        *,
        tolerance: Tolerance = Tolerance.EXACT,
        protected: Iterable[str] = (),
    ) -> Changes:
        """As `apply`, but gives only the files that differ: of a lazy tree nothing is read but what is edited."""
        from code_repair_rl.edits.apply import find_changes

        return find_changes(self, files, tolerance=tolerance, protected=tuple(protected))

    def text(self, *, paths: bool = True) -> str:
        """Canonical text; with `paths=False` without the path line, for a patch that edits one file in place.

        Text without a path applies to any tree of exactly one file. A patch that creates, deletes or renames files,
        or edits several, keeps its paths: leaving them out would change what it says.
        """
        from code_repair_rl.edits.render import render

        return render(self, paths=paths)

    def __str__(self) -> str:
        return self.text()
