"""What a model writes: SEARCH/REPLACE blocks and unified diffs, read and applied exactly, compared by tokens.

patch = parse(answer)                # EditError with .kind, .line and .hint, never a guess
after = patch.apply(files)           # a new tree; `files` is not touched
patch = diff(before, after)          # diff(b, a).apply(b) == a, to the byte
str(patch)                           # canonical text; parse(str(p)) == p
"""

from code_repair_rl.edits.compare import (
    Localisation,
    changed_lines,
    changed_tokens,
    code_tokens,
    edit_gain,
    file_localisation,
    line_localisation,
    similarity,
)
from code_repair_rl.edits.diff import diff
from code_repair_rl.edits.errors import EditError, EditErrorKind
from code_repair_rl.edits.parse import holds_an_edit, parse
from code_repair_rl.edits.patch import Applied, Changes, FileEdit, Hunk, LineEndings, Patch, Tolerance
from code_repair_rl.edits.unified import unified

__all__ = [
    "Applied",
    "Changes",
    "EditError",
    "EditErrorKind",
    "FileEdit",
    "Hunk",
    "LineEndings",
    "Localisation",
    "Patch",
    "Tolerance",
    "changed_lines",
    "changed_tokens",
    "code_tokens",
    "diff",
    "edit_gain",
    "file_localisation",
    "holds_an_edit",
    "line_localisation",
    "parse",
    "similarity",
    "unified",
]
