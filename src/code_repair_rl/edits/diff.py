"""Build the smallest patch that leads from one file tree to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from code_repair_rl.edits.errors import EditError, EditErrorKind
from code_repair_rl.edits.lines import CRLF, LF, fits_crlf, line_ending, split_lines
from code_repair_rl.edits.matching import Change, line_changes
from code_repair_rl.edits.patch import FileEdit, Hunk, LineEndings, Patch
from code_repair_rl.edits.paths import check_path
from code_repair_rl.edits.places import LinePlaces
from code_repair_rl.edits.renames import find_renames


def diff(before: Mapping[str, str], after: Mapping[str, str]) -> Patch:
    """The patch for which `diff(before, after).apply(before) == after`, to the byte.

    Every hunk's SEARCH holds the lines that change, and of the lines around them only as many as make it unique.

    Raises:
        EditError: `PATH_OUTSIDE` or `NOT_TEXT`: a tree has a path or a text that no patch can hold.
    """
    for tree in (before, after):
        _check_tree(tree, before if tree is after else None)
    gone = [path for path in before if path not in after]
    new = [path for path in after if path not in before]
    renames = find_renames({path: before[path] for path in gone}, {path: after[path] for path in new})
    targets = set(renames.values())
    edits = []
    for path, text in before.items():
        if path in renames:
            edits.append(_file_edit(path, text, after[renames[path]], renamed_to=renames[path]))
        elif path not in after:
            edits.append(FileEdit(path, deleted=True))
        elif after[path] != text:
            edits.append(_file_edit(path, text, after[path]))
    edits += [_file_edit(path, None, after[path]) for path in new if path not in targets]
    return Patch(tuple(edits))


def _check_tree(tree: Mapping[str, str], known: Mapping[str, str] | None) -> None:
    for path, text in tree.items():
        check_path(path)
        if known is not None and known.get(path) is text:
            continue
        if not isinstance(text, str) or not _is_encodable(text):
            raise EditError(EditErrorKind.NOT_TEXT, "the file is not text", path=path)


def _is_encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _file_edit(path: str, before: str | None, after: str, renamed_to: str | None = None) -> FileEdit:
    """The edit of one file; `before` is None where it is created."""
    old = before or ""
    endings = _line_endings(old, after)
    ending_before = LF if endings is LineEndings.RAW else line_ending(old)
    ending_after = ending_before if endings is None else CRLF if endings is LineEndings.CRLF else LF
    old_lines, old_newline = split_lines(old, ending_before)
    new_lines, new_newline = split_lines(after, ending_after)
    return FileEdit(
        path,
        minimal_hunks(old_lines, new_lines),
        created=before is None and not after,
        renamed_to=renamed_to,
        final_newline=new_newline if new_lines and new_newline != old_newline else None,
        line_endings=endings,
    )


def _line_endings(before: str, after: str) -> LineEndings | None:
    """What has to be said about line endings so that joining the lines again gives `after`."""
    if line_ending(before) == CRLF:
        if fits_crlf(after):
            return None
        return LineEndings.RAW if "\r\n" in after else LineEndings.LF
    return LineEndings.CRLF if line_ending(after) == CRLF else None


def minimal_hunks(before: Sequence[str], after: Sequence[str]) -> tuple[Hunk, ...]:
    """Hunks from lines to lines, each with a SEARCH that stands in one place of `before`."""
    if not before:
        return (Hunk((), tuple(after)),) if after else ()
    changes = line_changes(before, after)
    if not changes:
        return ()
    places = LinePlaces(before)
    grown: list[_Grown] = []
    for change in changes:
        top, end = places.grow_until_unique(change.begin, change.end)
        first = last = change
        while grown and top < grown[-1].end:  # context reached the hunk above: the two become one, still unique
            above = grown.pop()
            top, end, first = min(top, above.begin), max(end, above.end), above.first
        top, end = places.shrink_while_unique(first.begin, last.end, top, end)
        grown.append(_Grown(top, end, first, last))
    return tuple(
        Hunk(
            tuple(before[one.begin : one.end]),
            tuple(
                after[one.first.new_begin - (one.first.begin - one.begin) : one.last.new_end + (one.end - one.last.end)]
            ),
        )
        for one in grown
    )


@dataclass(frozen=True, slots=True)
class _Grown:
    """Lines `begin` to `end` of the file before: the changes from `first` to `last` and their context."""

    begin: int
    end: int
    first: Change
    last: Change
