"""Where a fault lies, told from the code before and after its repair."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from code_repair_rl.edits.lines import lines_of
from code_repair_rl.tasks.task import Line


def faulty_lines(faulty: str, whole: str) -> list[int]:
    """1-based lines of `faulty` that an edit to `whole` changes or takes away; where a line is only missing, the one
    before the gap (the one after it at the top of the file)."""
    before, after = lines_of(faulty), lines_of(whole)
    lines: list[int] = []
    for tag, start, end, _, _ in difflib.SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes():
        if tag in ("replace", "delete"):
            lines.extend(range(start + 1, end + 1))
        elif tag == "insert":
            written = [number for number in range(start, 0, -1) if before[number - 1].strip()]
            lines.append(written[0] if written else 1)
    return lines


def exact_lines(before: Mapping[str, str], after: Mapping[str, str | None]) -> tuple[Line, ...]:
    """`faulty_lines` of every file that `after` names and that was there, with their texts."""
    found: list[Line] = []
    for path, whole in after.items():
        if whole is None or path not in before:
            continue
        texts = lines_of(before[path])
        lines = [number for number in faulty_lines(before[path], whole) if number <= len(texts)]
        found.extend(Line(path=path, number=number, text=texts[number - 1]) for number in lines)
    return tuple(found)
