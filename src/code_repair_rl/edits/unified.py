"""Git-style unified diffs, read and written: multi-file, new, deleted and renamed files, no final newline, CRLF.

Read strictly: names must agree, and where a hunk's header counts lines, its body must have as many, no fewer and no
more (`@@` without counts is taken too). Counts are what tells a removed line `-- x` from the header `--- x` of a next
file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from code_repair_rl.edits.errors import EditError, EditErrorKind
from code_repair_rl.edits.limits import Budget
from code_repair_rl.edits.lines import split_lines
from code_repair_rl.edits.matching import Change, line_changes
from code_repair_rl.edits.patch import FileEdit, Hunk, LineEndings
from code_repair_rl.edits.paths import check_path
from code_repair_rl.edits.renames import find_renames

_EXTENDED = re.compile(
    r"(?:(?P<name>old mode|new mode|deleted file mode|new file mode|similarity index|dissimilarity index|index"
    r"|rename from|rename to|copy from|copy to|Binary files|GIT binary patch)\b ?(?P<value>[^\n]*+))(?:\n|\Z)"
)
_NAMES = re.compile(r"--- ([^\n]*+)\n\+\+\+ ([^\n]*+)(?:\n|\Z)")
_RANGE = r"(\d{1,9})(?:,(\d{1,9}))?"
_HUNK = re.compile(rf"@@(?: -{_RANGE} \+{_RANGE})? ?@@[^\n]*+(?:\n|\Z)")
_BODY = re.compile(r"(?:[ +\-\\][^\n]*+\n?|\n)*+")
_BLANKS_BEFORE_HUNK = re.compile(r"(?:[ \t\r]*+\n)*+(?=@@)")
# What looks like more of a diff where a file's part has ended. Not: the names of the next file, the `-- ` above a
# mail's signature, a rule, a bulleted list; nor indented text behind a blank line.
_NO_LINE_REMOVED = r"-- [^\n]*+\n\+\+\+ |-++[ \t\r]*+$| \S"
_LEFT_OVER = re.compile(
    rf"@@|\+|[ \t]++[^\s]|-(?!{_NO_LINE_REMOVED})|(?:[ \t\r]*+\n)++(?:\+(?! \S)|-(?!{_NO_LINE_REMOVED}))", re.MULTILINE
)
_NEXT_FILE = re.compile(r"^--- [^\n]*+\n\+\+\+ ", re.MULTILINE)
_ESCAPE = re.compile(rb'\\([0-7]{1,3}|[abtnvfr"\\])')
_ESCAPED = {b"a": b"\a", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"v": b"\v", b"f": b"\f", b"r": b"\r"}
_NOWHERE = "/dev/null"
_NO_NEWLINE = "\\ No newline at end of file"


def read_unified(text: str, begin: int, line: int, budget: Budget) -> tuple[FileEdit | None, int]:
    """The section of one file that starts at `begin` (1-based `line` of the text), and where it ends.

    None in place of an edit: the section changes nothing but the file's mode.

    Raises:
        EditError: `MALFORMED_DIFF`, `NOT_TEXT`, `PATH_OUTSIDE` or `TOO_LARGE`.
    """
    return _Section(text, begin, line, budget).read()


@dataclass(slots=True)
class _Section:
    text: str
    position: int
    line: int
    budget: Budget

    def read(self) -> tuple[FileEdit | None, int]:
        first_line = self.line
        git_names = self._git_line()
        extended = self._extended_headers()
        names = _NAMES.match(self.text, self.position)
        old, new = self._names(names, git_names, extended, first_line)
        hunks: list[Hunk] = []
        lacks: tuple[bool, bool] = (False, False)
        if names is not None:
            self._pass(names.end())
            while (header := _HUNK.match(self.text, self.position)) is not None:
                hunk, lacks = self._hunk(header, creates=old is None)
                if hunk is not None:
                    hunks.append(hunk)
                if (blanks := _BLANKS_BEFORE_HUNK.match(self.text, self.position)) is not None:
                    self._pass(blanks.end())
            self._require_all_read()
        path = old if old is not None else new
        assert path is not None
        renamed = new if old is not None and new is not None and new != old else None
        raw = any(one.endswith("\r") for hunk in hunks for side in (hunk.search, hunk.replace) for one in side)
        newline = None if lacks[0] == lacks[1] or new is None else lacks[0]
        if not hunks and old is not None and new is not None and renamed is None:
            if names is not None:
                raise self._malformed("the names stand above no hunk", first_line)
            return None, self.position
        edit = FileEdit(
            check_path(path, line=first_line),
            tuple(hunks),
            created=old is None,
            deleted=new is None,
            renamed_to=renamed and check_path(renamed, line=first_line),
            final_newline=newline,
            line_endings=LineEndings.RAW if raw else None,
            line=first_line,
        )
        return edit, self.position

    def _require_all_read(self) -> None:
        """Refuse lines that the diff shows and no header counts: applying the rest alone would be a guess."""
        found = _LEFT_OVER.match(self.text, self.position)
        if found is None:
            return
        self._pass(found.end())
        if found[0].endswith("@@"):
            raise self._malformed("the hunk's header is not complete")
        raise self._malformed("the line belongs to no hunk: its header counts fewer lines")

    def _pass(self, end: int) -> None:
        self.line += self.text.count("\n", self.position, end)
        self.position = end

    def _malformed(self, what: str, line: int | None = None) -> EditError:
        return EditError(
            EditErrorKind.MALFORMED_DIFF,
            what,
            line=self.line if line is None else line,
            hint="write the diff as `git diff` does, or use SEARCH/REPLACE blocks, which need no counts",
        )

    def _git_line(self) -> str | None:
        if not self.text.startswith("diff --git ", self.position):
            return None
        end = self.text.find("\n", self.position)
        end = len(self.text) if end < 0 else end
        names = self.text[self.position + len("diff --git ") : end]
        self._pass(min(end + 1, len(self.text)))
        return names

    def _extended_headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        while (found := _EXTENDED.match(self.text, self.position)) is not None:
            name = found["name"]
            if name in ("Binary files", "GIT binary patch"):
                raise EditError(EditErrorKind.NOT_TEXT, "the diff changes a binary file", line=self.line)
            if name in headers:
                raise self._malformed(f"the header {name!r} stands twice")
            headers[name] = found["value"]
            self._pass(found.end())
        if "copy from" in headers:
            raise self._malformed("copies are not edits that this reader knows")
        if ("rename from" in headers) != ("rename to" in headers):
            raise self._malformed("a rename says where from and where to")
        return headers

    def _names(
        self, names: re.Match[str] | None, git_names: str | None, extended: Mapping[str, str], line: int
    ) -> tuple[str | None, str | None]:
        """The path before and after; None for the side on which the file is not there."""
        created, deleted = "new file mode" in extended, "deleted file mode" in extended
        if names is None:
            if "rename from" in extended:
                return _unquoted(extended["rename from"]), _unquoted(extended["rename to"])
            path = None if git_names is None else _same_path(git_names)
            if path is None:
                raise self._malformed("the diff names no file, or two that differ", line)
            return (None if created else path), (None if deleted else path)
        old, new = (_unquoted(name.split("\t", 1)[0].rstrip(" \r")) for name in names.groups())
        if old == _NOWHERE and new == _NOWHERE:
            raise self._malformed("both names are /dev/null", line)
        if (old == _NOWHERE or old.startswith("a/")) and (new == _NOWHERE or new.startswith("b/")):
            old, new = old.removeprefix("a/"), new.removeprefix("b/")
        if old == _NOWHERE or created:
            return None, new
        if new == _NOWHERE or deleted:
            return old, None
        if old != new and (_unquoted(extended.get("rename from", "")), _unquoted(extended.get("rename to", ""))) != (
            old,
            new,
        ):
            raise self._malformed(f"the names {old!r} and {new!r} differ, and no rename is said", line)
        return old, new

    def _hunk(self, header: re.Match[str], creates: bool) -> tuple[Hunk | None, tuple[bool, bool]]:
        """One hunk, and whether the old and the new side lack a final newline."""
        first_line = self.line
        self._pass(header.end())
        found = _BODY.match(self.text, self.position)
        assert found is not None
        body = found[0]
        counted = header[1] is not None
        if not counted and (next_file := _NEXT_FILE.search(body)) is not None:
            body = body[: next_file.start()]
        self.budget.take_piece()
        self.budget.take_diff_rows(body.count("\n"))
        rows = body.split("\n")
        if not rows[-1]:
            rows.pop()
        if counted:
            wanted = (int(header[2] or "1"), int(header[4] or "1"))
            rows = self._counted(rows, wanted, first_line)
        else:
            while rows and not rows[-1]:
                rows.pop()
        self._pass(min(len(self.text), self.position + sum(map(len, rows)) + len(rows)))
        lacks = self._missing_newlines(rows, first_line)
        search = tuple([row[1:] for row in rows if row[:1] in ("", " ", "-")])
        replace = tuple([row[1:] for row in rows if row[:1] in ("", " ", "+")])
        if not search and not replace:
            return None, lacks
        start = int(header[1]) if counted else 0
        at = None if creates or not counted else start + 1 if not search else start or None
        return Hunk(search, replace, at, first_line), lacks

    def _counted(self, rows: list[str], wanted: tuple[int, int], line: int) -> list[str]:
        """The rows that belong to the hunk by the counts of its header."""
        marks = [row[:1] for row in rows]
        added, removed, notes = marks.count("+"), marks.count("-"), marks.count("\\")
        both = len(rows) - added - removed - notes
        if (both + removed, both + added) == wanted:
            return rows
        old = new = 0
        for taken, mark in enumerate(marks):
            if (old, new) == wanted and mark != "\\":
                return rows[:taken]
            old += mark not in ("+", "\\")
            new += mark not in ("-", "\\")
        if (old, new) == wanted:
            return rows
        raise self._malformed(
            f"the hunk's header counts {wanted[0]} old and {wanted[1]} new lines, but it has {old} and {new}", line
        )

    def _missing_newlines(self, rows: Sequence[str], line: int) -> tuple[bool, bool]:
        notes = [index for index, row in enumerate(rows) if row[:1] == "\\"]
        if len(notes) > 2:
            raise self._malformed("a file ends once", line)
        old = new = False
        for index in notes:
            above = rows[index - 1][:1] if index else "\\"
            if above == "\\" or any(row[:1] not in ("+", "\\") for row in rows[index + 1 :]):
                raise self._malformed("'\\ No newline' stands where the file does not end", line)
            old = old or above in ("-", " ", "")
            new = new or above in ("+", " ", "")
        return old, new


def _same_path(names: str) -> str | None:
    """The path of `a/path b/path`, if it is the same on both sides."""
    names = names.rstrip("\r")
    if names.startswith('"'):
        old, _, new = names.partition('" "')
        old, new = _unquoted(old + '"'), _unquoted('"' + new)
    else:
        half = len(names) // 2
        old, new = names[:half], names[half + 1 :]
    if old.startswith("a/") and new.startswith("b/"):
        old, new = old[2:], new[2:]
    return old if old == new else None


def _unquoted(name: str) -> str:
    """A name as git writes it: bare, or in quotes with C escapes of its UTF-8 bytes."""
    if not (len(name) >= 2 and name.startswith('"') and name.endswith('"')):
        return name
    data = _ESCAPE.sub(_unescape, name[1:-1].encode())
    return data.decode(errors="replace")


def _unescape(found: re.Match[bytes]) -> bytes:
    what = found[1]
    return bytes([int(what, 8) & 0xFF]) if what.isdigit() else _ESCAPED.get(what, what)


def unified(before: Mapping[str, str], after: Mapping[str, str], *, context: int = 3) -> str:
    """The difference of two trees as `git diff` shows it; `parse` reads it back. Empty text: no difference.

    `context` is the number of lines shown around each change, at least 1: a hunk without any cannot show whether the
    file's lines end in CRLF.
    """
    if context < 1:
        raise ValueError("a diff shows at least one line of context")
    gone = {path: text for path, text in before.items() if path not in after}
    new = {path: text for path, text in after.items() if path not in before}
    renames = find_renames(gone, new)
    targets = set(renames.values())
    sections = []
    for path, text in before.items():
        target = renames.get(path, path)
        if after.get(target) != text or target != path:
            sections.append(_file_section(path, target, text, after.get(target), context))
    sections += [_file_section(path, path, None, text, context) for path, text in new.items() if path not in targets]
    return "".join(sections)


def _file_section(path: str, target: str, before: str | None, after: str | None, context: int) -> str:
    head = [f"diff --git {_quoted('a/' + path)} {_quoted('b/' + target)}"]
    if before is None:
        head.append("new file mode 100644")
    if after is None:
        head.append("deleted file mode 100644")
    if target != path:
        head += [f"rename from {_quoted(path)}", f"rename to {_quoted(target)}"]
    hunks = _hunk_texts(before or "", after or "", context)
    if hunks:
        head.append("--- " + (_NOWHERE if before is None else _named("a/" + path)))
        head.append("+++ " + (_NOWHERE if after is None else _named("b/" + target)))
    return "\n".join([*head, *hunks]) + "\n"


def _quoted(name: str) -> str:
    if name.isprintable() and '"' not in name and "\\" not in name:
        return name
    escaped = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\{byte:03o}" for byte in name.encode()
    )
    return f'"{escaped}"'


def _named(name: str) -> str:
    """As git does, a tab ends a name with blanks, so that none of them is taken for a time stamp's."""
    quoted = _quoted(name)
    return quoted + "\t" if " " in quoted else quoted


def _hunk_texts(before: str, after: str, context: int) -> list[str]:
    old, old_newline = split_lines(before, "\n")
    new, new_newline = split_lines(after, "\n")
    # The last lines differ if only one of them is ended, though their texts are equal.
    old_keys = old if old_newline or not old else [*old[:-1], old[-1] + "\n"]
    new_keys = new if new_newline or not new else [*new[:-1], new[-1] + "\n"]
    texts: list[str] = []
    for group in _grouped(line_changes(old_keys, new_keys), context):
        begin, new_begin = max(0, group[0].begin - context), group[0].new_begin - min(group[0].begin, context)
        end = min(len(old), group[-1].end + context)
        new_end = group[-1].new_end + (end - group[-1].end)
        texts.append(f"@@ -{_range(begin, end)} +{_range(new_begin, new_end)} @@")
        at = begin
        for one in group:
            texts += _rows(" ", old, at, one.begin, old_newline)
            texts += _rows("-", old, one.begin, one.end, old_newline)
            texts += _rows("+", new, one.new_begin, one.new_end, new_newline)
            at = one.end
        texts += _rows(" ", old, at, end, old_newline)
    return texts


def _rows(mark: str, lines: Sequence[str], begin: int, end: int, newline: bool) -> list[str]:
    rows = [mark + line for line in lines[begin:end]]
    if rows and end == len(lines) and not newline:
        rows.append(_NO_NEWLINE)
    return rows


def _grouped(changes: Sequence[Change], context: int) -> list[list[Change]]:
    """Changes whose contexts touch share a hunk."""
    groups: list[list[Change]] = []
    for one in changes:
        if groups and one.begin - groups[-1][-1].end <= 2 * context:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _range(begin: int, end: int) -> str:
    count = end - begin
    start = begin + 1 if count else begin
    return f"{start}" if count == 1 else f"{start},{count}"
