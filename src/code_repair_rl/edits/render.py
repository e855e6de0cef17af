"""A patch as canonical text: path, headers, SEARCH/REPLACE blocks with markers longer than any in their content."""

from __future__ import annotations

import re

from code_repair_rl.edits.patch import FileEdit, Hunk, Patch
from code_repair_rl.edits.paths import write_path

EMPTY_PATCH = "*** Empty Patch"
ADD_FILE = "*** Add File: "
DELETE_FILE = "*** Delete File: "
RENAME_FILE = "*** Rename File: "
MOVE_TO = "*** Move to: "
NO_NEWLINE = "*** No Newline at End of File"
NEWLINE = "*** Newline at End of File"
LINE_ENDINGS = "*** Line Endings: "
AT_LINE = "*** At Line: "

SHORTEST_MARKER = 7
"""As in git's conflict markers."""

# Also what the parser takes for a marker: see there.
_MARKER_LIKE = re.compile(r"^(?:(<{7,}+) SEARCH|(={7,}+)|(>{7,}+) REPLACE(?:[ \t]*+</answer>)?)[ \t\r]*+$")


def render(patch: Patch, *, paths: bool = True) -> str:
    """The canonical text of `patch`; see `Patch.text`."""
    if not patch.edits:
        return EMPTY_PATCH + "\n"
    with_paths = paths or len(patch.edits) > 1
    return "".join(_edit_text(edit, with_paths) for edit in patch.edits)


def _edit_text(edit: FileEdit, with_path: bool) -> str:
    lines = [*_opening(edit, with_path)]
    if edit.line_endings is not None:
        lines.append(LINE_ENDINGS + edit.line_endings)
    if edit.final_newline is not None:
        lines.append(NEWLINE if edit.final_newline else NO_NEWLINE)
    for hunk in edit.hunks:
        lines += _block(hunk)
    return "\n".join(lines) + "\n" if lines else ""


def _opening(edit: FileEdit, with_path: bool) -> list[str]:
    path = None if edit.path is None else write_path(edit.path)
    if edit.renamed_to is not None:
        return [RENAME_FILE + (path or ""), MOVE_TO + write_path(edit.renamed_to)]
    if edit.deleted:
        return [DELETE_FILE + (path or "")]
    if edit.created:
        return [ADD_FILE + (path or "")]
    creates = any(not hunk.search and hunk.at is None for hunk in edit.hunks)
    return [path] if path is not None and (with_path or creates) else []


def _block(hunk: Hunk) -> list[str]:
    length = _marker_length(hunk)
    return [
        *([f"{AT_LINE}{hunk.at}"] if hunk.at is not None else []),
        "<" * length + " SEARCH",
        *hunk.search,
        "=" * length,
        *hunk.replace,
        ">" * length + " REPLACE",
    ]


def _marker_length(hunk: Hunk) -> int:
    """The shortest length that no marker-like line of the hunk has."""
    taken = set()
    for side in (hunk.search, hunk.replace):
        for line in side:
            if line[:1] in "<=>" and line and (found := _MARKER_LIKE.match(line)):
                taken.add(len(found[found.lastindex or 0]))
    length = SHORTEST_MARKER
    while length in taken:
        length += 1
    return length
