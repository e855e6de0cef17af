"""What a model writes: SEARCH/REPLACE blocks and unified diffs, read and applied exactly, compared by tokens.

patch = parse(answer)                # EditError with .kind, .line and .hint, never a guess
after = patch.apply(files)           # a new tree; `files` is not touched
patch = diff(before, after)          # diff(b, a).apply(b) == a, to the byte
str(patch)                           # canonical text; parse(str(p)) == p
"""

from code_repair_rl.edits.diff import diff
from code_repair_rl.edits.errors import EditError, EditErrorKind
from code_repair_rl.edits.parse import parse
from code_repair_rl.edits.patch import Applied, FileEdit, Hunk, LineEndings, Patch, Tolerance
from code_repair_rl.edits.unified import unified

__all__ = [
    "Applied",
    "EditError",
    "EditErrorKind",
    "FileEdit",
    "Hunk",
    "LineEndings",
    "Patch",
    "Tolerance",
    "diff",
    "parse",
    "unified",
]
