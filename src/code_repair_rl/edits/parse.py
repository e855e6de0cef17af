"""Read an edit from what a model wrote: SEARCH/REPLACE blocks, canonical headers and unified diffs.

The text is scanned once, forwards, with possessive patterns that start at line beginnings only, so the time is linear
in the text whatever it holds. Outside blocks only the lines named below mean something; all others (prose, code
fences) are passed over. Inside a block only markers of the block's own length do.

- `path`, then `<<<<<<< SEARCH`, lines, `=======`, lines, `>>>>>>> REPLACE`: markers have seven or more signs, all three
  the same number. The path is the nearest line above the block that is neither blank nor the opening of a code fence,
  if it reads as a path (`paths.read_path`); else the block belongs to the file of the block before it; the first block
  of a text may have no path at all, which means the tree's only file.
- `*** ` headers (`render.py`): they stand below the path line.
- `<answer>` at the beginning of a line, or `</think>` anywhere in one, but not in quotes: what came before was a draft
  and is dropped.
  `</answer>`: what comes after is not read.
- `diff --git`, or `--- ` with `+++ ` below it: a unified diff (`unified.py`). A hunk's header anywhere else is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from code_repair_rl.edits.errors import EditError, EditErrorKind
from code_repair_rl.edits.limits import MAX_CHARACTERS, Budget, check_length
from code_repair_rl.edits.patch import FileEdit, Hunk, LineEndings, Patch
from code_repair_rl.edits.paths import check_path, read_path

MAX_LINE_NUMBER_DIGITS = 9

_EVENT = (
    r"(?P<search><{7,}+) SEARCH[ \t\r]*+$"
    r"|[ \t]*+(?P<tag></?answer>|<think>)"
    r"|\*\*\* (?P<header>(?:Empty Patch|Add File|Delete File|Rename File|No Newline at End of File"
    r"|Newline at End of File|Line Endings|At Line)\b[^\n]*+)"
    r"|(?P<diff>diff --git |--- [^\n]*+\n\+\+\+ )"
    r"|(?P<hunk>@@ -\d)"
)
_HERE = re.compile(_EVENT, re.MULTILINE)
_AHEAD = re.compile(f"^(?:{_EVENT})", re.MULTILINE)
_THOUGHT = "</think>"
"""Often behind the last sentence, and without an opening: templates write that into the prompt."""
_ANSWER = re.compile(r"^[ \t]*+<answer>", re.MULTILINE)
_MOVE_TO = re.compile(r"\n\*\*\* Move to: ([^\n]*+)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_HINT_FORM = "write <<<<<<< SEARCH, the lines to find, =======, the lines to put there, >>>>>>> REPLACE"


def parse(text: str, *, max_characters: int = MAX_CHARACTERS) -> Patch:
    """The edit that `text` holds.

    Args:
        text: a model's whole answer, or a patch file.
        max_characters: longest text that is read.

    Raises:
        EditError: with `kind` and `line`: there is no edit, or any part of it breaks the grammar. Nothing is guessed
            and nothing is skipped: one bad block refuses the whole answer.
    """
    check_length(text, max_characters)
    if not text.isascii() and (found := _SURROGATE.search(text)):
        raise EditError(
            EditErrorKind.NOT_TEXT,
            "the answer holds half of a surrogate pair, which no file can",
            line=text.count("\n", 0, found.start()) + 1,
        )
    if "\r\n" in text and text.count("\n") == text.count("\r\n"):
        text = text.replace("\r\n", "\n")  # written on a system that ends all lines so: says nothing about the file
    return _Reader(text).read()


def holds_an_edit(text: str) -> bool:
    """Whether an edit can be read from the text; whether it applies to anything is another question."""
    try:
        parse(text)
    except EditError:
        return False
    return True


@dataclass(slots=True)
class _Section:
    """What was read so far about one file."""

    path: str | None
    line: int
    hunks: list[Hunk] = field(default_factory=list)
    created: bool = False
    deleted: bool = False
    renamed_to: str | None = None
    final_newline: bool | None = None
    line_endings: LineEndings | None = None

    def edit(self) -> FileEdit:
        return FileEdit(
            self.path,
            tuple(self.hunks),
            self.created,
            self.deleted,
            self.renamed_to,
            self.final_newline,
            self.line_endings,
            self.line,
        )


class _Reader:
    """One pass over one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.counted = (0, 1)
        """A position and its line number: numbers are counted on from here, so that all of them cost one pass."""
        self.budget = Budget()
        self.drop_drafts()

    def drop_drafts(self) -> None:
        self.sections: dict[str | None, _Section] = {}
        self.current: _Section | None = None
        self.empty_patch: int | None = None
        self.stray_hunk: int | None = None
        self.at_line: int | None = None

    def read(self) -> Patch:
        position = 0
        while True:
            found = _HERE.match(self.text, position) or _AHEAD.search(self.text, position)
            thought = self.end_of_thought(position, len(self.text) if found is None else found.start())
            if found is None and thought is None:
                return self.finish()
            self.budget.take_piece()
            if found is None or thought is not None:
                self.drop_drafts()
                position = thought or position
                continue
            begin, end = found.span()
            if found["search"] is not None:
                position = self.block(len(found["search"]), position, begin, end)
            elif found["tag"] is not None:
                position = self.tag(found["tag"], end)
            elif found["header"] is not None:
                position = self.header(found["header"].rstrip(" \t\r"), position, begin, end)
            elif found["hunk"] is not None:
                self.stray_hunk, position = begin, end
            else:
                position = self.unified_diff(begin)

    def end_of_thought(self, start: int, stop: int) -> int | None:
        """Where the last `</think>` in between ends; one in quotes is what a sentence is about."""
        while (place := self.text.rfind(_THOUGHT, start, stop)) >= 0:
            if self.text[place - 1 : place] not in ("`", "'", '"'):
                return place + len(_THOUGHT)
            stop = place
        return None

    def finish(self) -> Patch:
        if self.at_line is not None:
            raise self.refuse(EditErrorKind.MALFORMED_HEADER, "'At Line' stands before no block", len(self.text))
        if self.stray_hunk is not None:
            raise self.refuse(
                EditErrorKind.MALFORMED_DIFF,
                "a hunk stands below no file's names",
                self.stray_hunk,
                "write --- a/path and +++ b/path above the hunks of each file, and nothing between them",
            )
        if self.empty_patch is not None and self.sections:
            raise self.refuse(
                EditErrorKind.MALFORMED_HEADER, "the answer says 'Empty Patch' and has edits too", self.empty_patch
            )
        if not self.sections and self.empty_patch is None:
            raise EditError(EditErrorKind.UNREADABLE, "the answer holds no edit", hint=_HINT_FORM)
        return Patch(tuple([section.edit() for section in self.sections.values()]))

    def tag(self, tag: str, end: int) -> int:
        """Drop drafts, or skip what is not part of the answer; gives the position to read on from."""
        if tag == "<think>":
            end = self.text.find(_THOUGHT, end)
            self.drop_drafts()
            return end if end >= 0 else len(self.text)
        if tag == "</answer>":
            another = _ANSWER.search(self.text, end)
            if another is None:
                return len(self.text)
            end = another.end()
        self.drop_drafts()
        return end

    def block(self, length: int, gap: int, begin: int, end: int) -> int:
        """Read the block whose opening marker is at `begin` to `end`; `gap` is where the text before it begins."""
        section = self.section_above(gap, begin)
        divider = self.marker(length, end)
        if divider is None or divider["divider"] is None:
            raise self.bad_search_part(divider, begin)
        close = self.marker(length, divider.end())
        if close is None:
            raise self.unterminated(begin)
        if close["close"] is None:
            raise self.refuse(
                EditErrorKind.NESTED_MARKER,
                "a marker stands inside the REPLACE part",
                close.start(),
                "close each block before the next; where the code itself has such lines, make all three markers longer",
            )
        search = self.lines(end + 1, divider.start())
        replace = self.lines(divider.end() + 1, close.start())
        at_line, self.at_line = self.at_line, None
        if search or replace:
            section.hunks.append(Hunk(search, replace, at_line, self.line_at(begin)))
        elif section.path is not None and at_line is None:
            section.created = True
        else:
            raise self.refuse(EditErrorKind.EMPTY_SEARCH, "the block has neither SEARCH nor REPLACE lines", begin)
        return close.end()

    def lines(self, begin: int, end: int) -> tuple[str, ...]:
        return tuple(self.text[begin : end - 1].split("\n")) if end > begin else ()

    def marker(self, length: int, position: int) -> re.Match[str] | None:
        """The next marker line of exactly that length."""
        pattern = _markers(length) if length <= _LONGEST_COMPILED else _ANY_MARKERS
        found = pattern.search(self.text, position)
        while found is not None and len(found["signs"] or "") != length:
            found = pattern.search(self.text, found.end())
        return found

    def bad_search_part(self, found: re.Match[str] | None, begin: int) -> EditError:
        if found is None:
            return self.unterminated(begin)
        if found["close"] is not None:
            return self.refuse(
                EditErrorKind.MISSING_DIVIDER,
                "the block is closed without a divider",
                found.start(),
                "put ======= between the lines to find and the lines to put there",
            )
        return self.refuse(
            EditErrorKind.NESTED_MARKER,
            "another block opens inside the SEARCH part",
            found.start(),
            "close each block before the next; where the code itself has such lines, make all three markers longer",
        )

    def unterminated(self, begin: int) -> EditError:
        return self.refuse(
            EditErrorKind.UNTERMINATED,
            "the block is not closed before the text ends",
            begin,
            "end it with >>>>>>> REPLACE",
        )

    def section_above(self, gap: int, begin: int) -> _Section:
        """The section that the nearest line above `begin` names, or else the current one."""
        above = self.text[gap:begin].rstrip(" \t\r\n")
        last = above.rpartition("\n")[2]
        if last.lstrip(" \t").startswith(("```", "~~~")):
            above = above[: len(above) - len(last)].rstrip(" \t\r\n")
            last = above.rpartition("\n")[2]
        path = read_path(last)
        if path is not None:
            self.current = self.section(path, begin)
        elif self.current is None:
            self.current = self.sections[None] = _Section(None, self.line_at(begin))
        return self.current

    def section(self, path: str, position: int) -> _Section:
        section = self.sections.get(path)
        if section is None:
            line = self.line_at(position)
            section = self.sections[path] = _Section(check_path(path, line=line), line)
        return section

    def header(self, header: str, gap: int, begin: int, end: int) -> int:
        name, _, value = header.partition(": ")
        if name == "Empty Patch" and not value:
            self.empty_patch = begin
        elif name in ("Add File", "Delete File", "Rename File") and value:
            return self.file_header(name, value, begin, end)
        elif name in ("Newline at End of File", "No Newline at End of File") and not value:
            section = self.section_above(gap, begin)
            if section.final_newline is not None:
                raise self.bad_header(header, begin)
            section.final_newline = name.startswith("Newline")
        elif name == "Line Endings" and value in list(LineEndings):
            section = self.section_above(gap, begin)
            if section.line_endings is not None:
                raise self.bad_header(header, begin)
            section.line_endings = LineEndings(value)
        elif name == "At Line" and self.at_line is None and _is_line_number(value):
            self.section_above(gap, begin)
            self.at_line = int(value)
        else:
            raise self.bad_header(header, begin)
        return end

    def file_header(self, name: str, value: str, begin: int, end: int) -> int:
        section = self.section(self.header_path(value, begin), begin)
        if section.created or section.deleted or section.renamed_to is not None:
            raise self.bad_header(f"{name}: {value}", begin)
        self.current = section
        if name == "Add File":
            section.created = True
        elif name == "Delete File":
            section.deleted = True
        else:
            target = _MOVE_TO.match(self.text, end)
            if target is None:
                raise self.bad_header(f"{name}: {value}", begin, "follow it with a line '*** Move to: new/path'")
            section.renamed_to = check_path(self.header_path(target[1], end + 1), line=self.line_at(end + 1))
            end = target.end()
        return end

    def header_path(self, value: str, position: int) -> str:
        """After a header there is no prose to mistake for a path, so anything unquoted is taken as it stands."""
        path = read_path(value)
        if path is not None:
            return path
        if value.startswith('"'):
            raise self.bad_header(value, position, "a path in quotes is a JSON string")
        return check_path(value.strip(" \t\r"), line=self.line_at(position))

    def unified_diff(self, begin: int) -> int:
        from code_repair_rl.edits.unified import read_unified

        edit, end = read_unified(self.text, begin, self.line_at(begin), self.budget)
        if edit is None:
            return end
        if edit.path in self.sections:
            raise EditError(EditErrorKind.OVERLAPPING, "the file is edited twice", line=edit.line, path=edit.path)
        self.current = self.sections[edit.path] = _Section(
            edit.path,
            edit.line or 1,
            list(edit.hunks),
            edit.created,
            edit.deleted,
            edit.renamed_to,
            edit.final_newline,
            edit.line_endings,
        )
        return end

    def line_at(self, position: int) -> int:
        begin, number = self.counted
        if position < begin:
            return number - self.text.count("\n", position, begin)
        self.counted = (position, number + self.text.count("\n", begin, position))
        return self.counted[1]

    def refuse(self, kind: EditErrorKind, what: str, position: int, hint: str | None = None) -> EditError:
        return EditError(kind, what, line=self.line_at(position), hint=hint)

    def bad_header(self, header: str, position: int, hint: str | None = None) -> EditError:
        return self.refuse(
            EditErrorKind.MALFORMED_HEADER,
            f"the header {header[:100]!r} cannot stand here or is not complete",
            position,
            hint,
        )


def _is_line_number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= MAX_LINE_NUMBER_DIGITS and int(value) > 0


_LONGEST_COMPILED = 16
"""Blocks with longer markers share one pattern: a text could use thousands of lengths, and compiling is slow."""


@lru_cache(maxsize=_LONGEST_COMPILED)
def _markers(length: int) -> re.Pattern[str]:
    return _marker_pattern(f"{{{length}}}")


def _marker_pattern(count: str) -> re.Pattern[str]:
    # `signs` is whichever run of signs stands there; the look-ahead leaves `</answer>` for the next event.
    return re.compile(
        rf"^(?=(?P<signs>[<=>]{count}))"
        rf"(?:(?P<open><{count} SEARCH)[ \t\r]*+$"
        rf"|(?P<divider>={count})[ \t\r]*+$"
        rf"|(?P<close>>{count} REPLACE)(?=(?:[ \t]*+</answer>)?[ \t\r]*+$))",
        re.MULTILINE,
    )


_ANY_MARKERS = _marker_pattern("{7,}+")
