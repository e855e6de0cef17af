from __future__ import annotations

import pytest

from code_repair_rl.grading.policy import calls_on_the_runner, graded_tree, shadows
from code_repair_rl.tasks import RepositoryTests

TESTS = RepositoryTests(
    fail_to_pass=("tests/test_a.py::test_x",), test_files={"tests/test_a.py": "pristine"}, source_roots=("src",)
)
BEFORE = {"src/a.py": "a", "tests/test_a.py": "old", "conftest.py": "c", "setup.cfg": "s"}


def test_only_the_source_is_the_answers() -> None:
    after = {
        "src/a.py": "A",
        "src/new.py": "n",
        "tests/test_a.py": "hacked",
        "conftest.py": "hacked",
        "x/conftest.py": "h",
    }
    tree, notes = graded_tree(BEFORE, after, TESTS)
    assert tree == {
        "src/a.py": "A", "src/new.py": "n", "tests/test_a.py": "pristine", "conftest.py": "c", "setup.cfg": "s",
    }  # fmt: skip
    assert len(notes) == 4 and any("setup.cfg was put back" in note for note in notes)


def test_a_deleted_source_file_stays_deleted() -> None:
    tree, notes = graded_tree(BEFORE, {path: text for path, text in BEFORE.items() if path != "src/a.py"}, TESTS)
    assert "src/a.py" not in tree and not notes


def test_what_the_tests_import_from_their_folders_is_not_the_answers() -> None:
    before = {**BEFORE, "tests/helpers.py": "pristine", "src/tests.py": "s"}
    after = {**before, "tests/helpers.py": "hacked", "tests/deep/data.txt": "new", "src/tests.py": "S"}
    tree, notes = graded_tree(before, after, TESTS)
    assert tree["tests/helpers.py"] == "pristine" and "tests/deep/data.txt" not in tree and tree["src/tests.py"] == "S"
    assert len(notes) == 2


@pytest.mark.parametrize(
    "text", ["import pytest", "from unittest import mock", "def f():\n    import unittest.mock as u"]
)
def test_source_that_newly_imports_what_tests_are_made_of_is_named(text: str) -> None:
    after = {**BEFORE, "src/a.py": text}
    own_tests = {"tests/test_b.py": text, "src/test_c.py": text}
    assert "src/a.py imports" in calls_on_the_runner(BEFORE, after, {}, TESTS)
    assert "src/a.py imports" in calls_on_the_runner({**BEFORE, **own_tests}, {**after, **own_tests}, own_tests, TESTS)
    assert calls_on_the_runner({**BEFORE, "src/b.py": text}, after, {}, TESTS) == ""
    assert calls_on_the_runner(BEFORE, after, {"src/a.py": text}, TESTS) == ""
    own = "from . import pytest\nfrom .mock import x"
    assert calls_on_the_runner(BEFORE, {**BEFORE, "src/a.py": own}, {}, TESTS) == ""


def test_a_new_file_that_does_is_left_out() -> None:
    text = "import pytest"
    after = {**BEFORE, "reproduce.py": text, "src/test_new.py": text}
    assert calls_on_the_runner(BEFORE, after, {}, TESTS) == ""
    tree, notes = graded_tree(BEFORE, after, TESTS)
    assert "reproduce.py" not in tree and "src/test_new.py" in tree and "imports pytest" in notes[0]
    assert "reproduce.py" in graded_tree({**BEFORE, "src/b.py": text}, {**after, "src/b.py": text}, TESTS)[0]


@pytest.mark.parametrize("path", ["src/json.py", "pytest.py", "src/_pytest/x.py", "src/os/__init__.py", "pluggy.py"])
def test_new_modules_that_shadow_the_runner_are_left_out(path: str) -> None:
    assert shadows(path, TESTS)
    assert path not in graded_tree(BEFORE, {**BEFORE, path: ""}, TESTS)[0]


@pytest.mark.parametrize("path", ["src/shop/json.py", "src/cart.py", "docs/json.md/x"])
def test_other_new_modules_are_not(path: str) -> None:
    assert not shadows(path, TESTS)
