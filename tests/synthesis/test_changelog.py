"""What a change log says of a release."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from code_repair_rl.synthesis.changelog import about, changelog_of, entries, is_changelog

MARKDOWN = """\
# Changes

## 26.2.0

_(September 7, 2026)_

- Fixed `IndexedSet.update` adding the iterables
  themselves instead of their elements
- Added `ellipsize`

## 26.1.0

- Something older
"""
UNDERLINED = """\
Release 0.6.1 (Nov 01, 2026)
----------------------------

Bug Fixes

* Fix IndexError in format().
* Fix splitting of
  nested cases.

Release 0.6.0 (Jan 01, 2026)
----------------------------

* Older.
"""


@pytest.mark.parametrize(
    ("text", "version", "expected"),
    [
        (
            MARKDOWN,
            "26.2.0",
            [
                "Fixed `IndexedSet.update` adding the iterables themselves instead of their elements",
                "Added `ellipsize`",
            ],
        ),
        (MARKDOWN, "26.1.0", ["Something older"]),
        (MARKDOWN, "26.2", []),
        (UNDERLINED, "0.6.1", ["Fix IndexError in format().", "Fix splitting of nested cases."]),
        ("v1.2\n====\n\n- One.\n\nv1.1\n====\n\n- Two.\n", "1.2", ["One."]),
        ("", "1.0", []),
    ],
)
def test_entries_are_those_of_the_version_alone(text: str, version: str, expected: list[str]) -> None:
    assert entries(text, version) == expected


def test_entries_about_a_name_name_it_as_a_whole_word() -> None:
    found = ["Fix `update` of sets", "Fix updates of lists", "Fix IndexedSet.update and more"]
    assert about(found, ["update"]) == ["Fix `update` of sets", "Fix IndexedSet.update and more"]
    assert about(found, ["IndexedSet", "update"]) == ["Fix IndexedSet.update and more"]
    assert about(found, ["of"]) == []
    assert about(found, ["nothing"]) == []


def test_the_change_log_nearest_to_the_top_is_read(tmp_path: Path) -> None:
    archive = tmp_path / "x-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path, text in {"x-1.0/docs/changes.rst": "deep", "x-1.0/CHANGELOG.md": "top"}.items():
            member = tarfile.TarInfo(path)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    assert changelog_of(archive) == "top"
    assert is_changelog("docs/HISTORY.rst")
    assert not is_changelog("src/exchanges.py")
