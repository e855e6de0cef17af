"""How much one answer may hold: what keeps the time for a hostile text as short as its length promises."""

from __future__ import annotations

from dataclasses import dataclass

from code_repair_rl.edits.errors import EditError, EditErrorKind

MAX_CHARACTERS = 32 * 2**20
"""Longest text that is read, by default."""
MAX_PIECES = 50_000
"""Most blocks, headers, tags and hunks of unified diffs, drafts included."""
MAX_DIFF_ROWS = 1_000_000
"""Most lines in the hunks of unified diffs."""


@dataclass(slots=True)
class Budget:
    """What is left for the rest of a text."""

    pieces: int = MAX_PIECES
    diff_rows: int = MAX_DIFF_ROWS

    def take_piece(self) -> None:
        """Count one block, header, tag or hunk.

        Raises:
            EditError: `TOO_LARGE`.
        """
        self.pieces -= 1
        if self.pieces < 0:
            raise _too_large(f"the answer has more than {MAX_PIECES} blocks and headers")

    def take_diff_rows(self, count: int) -> None:
        """Count the lines of a hunk of a unified diff.

        Raises:
            EditError: `TOO_LARGE`.
        """
        self.diff_rows -= count
        if self.diff_rows < 0:
            raise _too_large(f"the answer's diffs have more than {MAX_DIFF_ROWS} lines")


def check_length(text: str, max_characters: int) -> None:
    """Refuse a text that is too long before anything is done with it.

    Raises:
        EditError: `TOO_LARGE`.
    """
    if len(text) > max_characters:
        raise _too_large(f"the answer has {len(text)} characters, more than {max_characters}")


def _too_large(what: str) -> EditError:
    return EditError(EditErrorKind.TOO_LARGE, what, hint="write only the lines that change")
