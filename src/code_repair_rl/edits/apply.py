"""Apply a patch to a file tree: everything is located in the original first, then all of it happens or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace as with_fields
from itertools import pairwise

from code_repair_rl.edits.errors import EditError, EditErrorKind
from code_repair_rl.edits.lines import CRLF, LF, join_lines, line_ending, split_lines
from code_repair_rl.edits.locate import Located, SearchableFile
from code_repair_rl.edits.patch import Changes, FileEdit, Hunk, LineEndings, Patch, Tolerance
from code_repair_rl.edits.paths import check_path, is_protected


def find_changes(patch: Patch, files: Mapping[str, str], *, tolerance: Tolerance, protected: Sequence[str]) -> Changes:
    """What `patch` makes of the files it touches; see `Patch.changes`."""
    edits = _by_path(patch, files)
    leaving = {path for path, edit in edits if edit.deleted or edit.renamed_to is not None}
    texts: dict[str, str] = {}
    lines: dict[str, int | None] = {}
    rung = Tolerance.EXACT
    for path, edit in edits:
        _check_paths(path, edit, protected)
        text, needed = _edited(path, edit, files, tolerance)
        if needed.rank > rung.rank:
            rung = needed
        if edit.deleted:
            continue
        target = path if edit.renamed_to is None else edit.renamed_to
        if target in texts or (target != path and target not in leaving and files.get(target) is not None):
            raise EditError(
                EditErrorKind.FILE_EXISTS,
                f"{target!r} is there already",
                line=edit.line,
                path=path,
                hint="rename to a path that is free, or delete that file in the same patch",
            )
        texts[target] = text
        lines[target] = edit.line
    for path, line in lines.items():
        for folder in _folders_above(path) if path not in files else ():
            if folder in texts or (folder in files and folder not in leaving):
                raise EditError(
                    EditErrorKind.FILE_EXISTS,
                    f"{folder!r} is a file, not a folder",
                    line=line,
                    path=path,
                    hint="choose a path that is free",
                )
    changed: dict[str, str | None] = {path: None for path in leaving if path not in texts}
    changed.update({path: text for path, text in texts.items() if path not in files or files[path] != text})
    return Changes(changed, rung)


def _folders_above(path: str) -> Iterable[str]:
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)


def _by_path(patch: Patch, files: Mapping[str, str]) -> list[tuple[str, FileEdit]]:
    """The edits with the path that each is about."""
    if not patch.edits or patch.edits[0].path is not None:
        return [(edit.path, edit) for edit in patch.edits if edit.path is not None]
    unnamed, *named = patch.edits
    if len(files) != 1:
        raise EditError(
            EditErrorKind.NO_PATH,
            f"the edit names no file, and the tree has {len(files)}",
            line=unnamed.line,
            hint="put the file's path on the line above <<<<<<< SEARCH",
        )
    only = next(iter(files))
    merged = [(only, unnamed)]
    for edit in named:
        if edit.path == only:
            merged[0] = (only, _merged(unnamed, edit))
        elif edit.path is not None:
            merged.append((edit.path, edit))
    return merged


def _merged(unnamed: FileEdit, named: FileEdit) -> FileEdit:
    """Both edits of one file, which the answer names in its later blocks only."""
    return with_fields(
        named,
        hunks=(*unnamed.hunks, *named.hunks),
        final_newline=unnamed.final_newline if named.final_newline is None else named.final_newline,
        line_endings=named.line_endings or unnamed.line_endings,
    )


def _check_paths(path: str, edit: FileEdit, protected: Iterable[str]) -> None:
    for one in (path, edit.renamed_to):
        if one is None:
            continue
        check_path(one, line=edit.line)
        if is_protected(one, protected):
            raise EditError(
                EditErrorKind.PROTECTED,
                "the file must not be edited",
                line=edit.line,
                path=one,
                hint="mend the code elsewhere: this file is not part of the question",
            )


def _edited(path: str, edit: FileEdit, files: Mapping[str, str], tolerance: Tolerance) -> tuple[str, Tolerance]:
    """The text of one file afterwards, and the rung it took."""
    before = files.get(path)
    if before is None:
        if not edit.created and (not edit.hunks or any(hunk.search or hunk.at is not None for hunk in edit.hunks)):
            raise EditError(
                EditErrorKind.NO_SUCH_FILE,
                "the tree has no such file",
                line=edit.line,
                path=path,
                hint=_similar_path(path, files),
            )
        before = ""
    elif not isinstance(before, str):
        raise EditError(EditErrorKind.NOT_TEXT, "the file is not text", line=edit.line, path=path)
    if edit.created and before:
        raise EditError(
            EditErrorKind.EMPTY_SEARCH,
            "the edit creates a file that is there and has text",
            line=edit.line,
            path=path,
            hint="put the lines to change into SEARCH",
        )
    ending_before, ending_after = _endings(before, edit)
    lines, final_newline = split_lines(before, ending_before)
    located = _locate_all(path, lines, edit, tolerance, ending_before)
    after = _replaced(lines, located)
    if edit.deleted and edit.hunks and after:
        raise EditError(
            EditErrorKind.SEARCH_NOT_FOUND,
            f"the file is to be deleted, but has {len(after)} lines that the edit does not take away",
            line=edit.line,
            path=path,
        )
    if edit.final_newline is not None:
        final_newline = edit.final_newline
    rung = max((one.rung for one in located), key=lambda one: one.rank, default=Tolerance.EXACT)
    return join_lines(after, final_newline, ending_after), rung


def _endings(before: str, edit: FileEdit) -> tuple[str, str]:
    """What separates lines in the file as it is, and as it will be."""
    own = line_ending(before)
    if edit.line_endings is None:
        return own, own
    if edit.line_endings is LineEndings.RAW:
        return LF, LF
    return own, CRLF if edit.line_endings is LineEndings.CRLF else LF


def _locate_all(path: str, lines: Sequence[str], edit: FileEdit, tolerance: Tolerance, ending: str) -> list[Located]:
    """Where all hunks stand, from the top of the file to its end."""
    if not edit.hunks:
        return []
    file = SearchableFile(path, lines, hunks=len(edit.hunks))
    located = [_locate(file, hunk, tolerance, ending) for hunk in edit.hunks]
    if len(located) == 1:
        return located
    located.sort(key=lambda one: (one.begin, one.end))
    for above, below in pairwise(located):
        # Two insertions at one place have no order of their own, so they overlap too.
        if below.begin < above.end or (below.begin, below.end) == (above.begin, above.end):
            raise EditError(
                EditErrorKind.OVERLAPPING,
                f"two blocks change line {below.begin + 1}",
                line=max(above.hunk.line or 0, below.hunk.line or 0) or None,
                path=path,
                places=(below.begin + 1,),
                hint="make one block of the two",
            )
    return located


def _locate(file: SearchableFile, hunk: Hunk, tolerance: Tolerance, ending: str) -> Located:
    if ending == LF or not hunk.search:
        return file.locate(hunk, tolerance)
    try:
        return file.locate(hunk, Tolerance.EXACT)
    except EditError as error:
        both = (*hunk.search, *hunk.replace)
        if error.kind is not EditErrorKind.SEARCH_NOT_FOUND:
            raise
        if not all(line.endswith("\r") for line in both):
            return file.locate(hunk, tolerance)
    # The answer writes out the carriage returns that end the file's lines; they are no part of the lines here.
    search, replace = (tuple(line[:-1] for line in side) for side in (hunk.search, hunk.replace))
    return file.locate(Hunk(search, replace, hunk.at, hunk.line), tolerance)


def _replaced(lines: Sequence[str], located: Sequence[Located]) -> list[str]:
    after: list[str] = []
    end = 0
    for one in located:
        after += lines[end : one.begin]
        after += one.replace
        end = one.end
    after += lines[end:]
    return after


def _similar_path(path: str, files: Mapping[str, str]) -> str:
    """A hint that names the file that was probably meant."""
    from difflib import get_close_matches

    name = path.rpartition("/")[2]
    same_name = [one for one in files if one.rpartition("/")[2] == name]
    close = same_name or get_close_matches(path[:200], list(files)[:1000], n=1)
    if not close:
        return "name a file of the tree; an empty SEARCH creates a new one"
    return f"did you mean {close[0]!r}?"
