"""Bugs in a library and functions taken out of it, with its own suite as judge: a small library written for the test,
in the real sandbox."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.grading import Grader
from code_repair_rl.packages import sha256_of
from code_repair_rl.sandbox import select_backend
from code_repair_rl.synthesis import validate
from code_repair_rl.synthesis.bugs import Unusable
from code_repair_rl.synthesis.implement import _masks, library_functions
from code_repair_rl.synthesis.libraries import library_bugs
from code_repair_rl.synthesis.library import LIBRARIES, Library, files_in
from code_repair_rl.synthesis.suites import Suite
from code_repair_rl.tasks import Kind, RepositoryTests, StoredTree, Task, read_tasks, write_tasks

NUMBERS = '''\
def clamp(x, low, high):
    """Return `x`, or the nearer of the bounds `low` and `high` where it lies outside of them."""
    if x < low:
        return low
    if x > high:
        return high
    return x


def evens(xs):
    return [x for x in xs if x % 2 == 0]


def untested(a):
    return a + 1
'''
WORDS = """\
def shorten(word, most):
    if len(word) > most:
        return word[:most] + "."
    return word


def initials(words):
    return "".join(word[0] for word in words if word)


def vowels(word):
    count = 0
    for letter in word:
        if letter in "aeiou":
            count += 1
    return count
"""
FILES = {
    "small/__init__.py": "from small.numbers import clamp, evens\n",
    "small/numbers.py": NUMBERS,
    "small/words.py": WORDS,
    "tests/test_numbers.py": (
        "import pytest\nfrom small import clamp, evens\n\nseen = []\n\n\n"
        "@pytest.mark.parametrize('x, expected', [(0, 1), (1, 1), (2, 2), (3, 3), (9, 3)])\n"
        "def test_clamp(x, expected):\n    assert clamp(x, 1, 3) == expected\n\n\n"
        "def test_evens():\n    seen.append(1)\n    assert evens([1, 2, 3, 4]) == [2, 4]\n\n\n"
        "def test_that_needs_the_one_before():\n    assert seen and evens([2]) == [2]\n\n\n"
        "def test_that_fails_anyway():\n    assert clamp(1, 2, 3) == 7\n\n\n"
        "def test_with_a_child():\n    import os\n    child = os.fork()\n    if child == 0:\n        os._exit(0)\n"
        "    os.waitpid(child, 0)\n    assert evens([2]) == [2]\n\n\n"
        "def test_with_a_program():\n    import subprocess, sys\n"
        "    assert subprocess.run([sys.executable, '-c', '']).returncode == 0 and evens([2]) == [2]\n"
    ),
    "tests/test_words.py": (
        "from small.words import initials, shorten, vowels\n\n\n"
        "def test_shorten():\n    assert (shorten('abc', 2), shorten('ab', 2)) == ('ab.', 'ab')\n\n\n"
        "def test_initials():\n    assert initials(['ab', '', 'c']) == 'ac'\n\n\n"
        "def test_vowels():\n    assert (vowels('abide'), vowels('')) == (3, 0)\n"
    ),
    "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '--strict-markers'\n",
    "docs/index.rst": "left out\n",
    "small.egg-info/PKG-INFO": "left out\n",
}
UNSTEADY = tuple(
    f"tests/test_numbers.py::{name}"
    for name in ("test_that_fails_anyway", "test_that_needs_the_one_before", "test_with_a_child", "test_with_a_program")
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("CRRL_HOME", str(home))
        folder = home / "packages" / "small-1.0"
        folder.mkdir(parents=True)
        archive = folder / "small-1.0.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            for path, text in {**FILES, "binary.dat": "\udcff"}.items():
                data = text.encode(errors="surrogateescape")
                member = tarfile.TarInfo(f"small-1.0/{path}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        yield Library("small", "1.0", sha256_of(archive), "MIT", "small/", ("tests",))


def built(library: Library) -> list[Task]:
    return library_bugs([library], select_backend(), seed=1, limit=None, workers=1).tasks


def suite_tests(task: Task) -> RepositoryTests:
    assert isinstance(task.tests, RepositoryTests)
    return task.tests


def test_every_bug_is_caught_by_the_suite_and_undone_by_the_oracle(library: Library, tmp_path: Path) -> None:
    tasks = built(library)
    assert len(tasks) >= 8
    with Grader(workers=1) as grader:
        kept, bad = validate(tasks, grader)
    assert (kept, bad) == (tasks, [])
    functions = {
        "numbers.py::clamp",
        "numbers.py::evens",
        "words.py::shorten",
        "words.py::initials",
        "words.py::vowels",
    }
    assert {task.problem for task in tasks if "+" not in task.problem} <= {f"small/small/{one}" for one in functions}
    for task in tasks:
        tests = suite_tests(task)
        assert tests.fail_to_pass
        assert not set(UNSTEADY) & {*tests.fail_to_pass, *tests.pass_to_pass}
        assert isinstance(task.files, StoredTree)
        assert set(task.files.overlay) <= {"small/numbers.py", "small/words.py"}
        assert {path: FILES[path] for path in task.files.overlay} == task.oracle
        assert "docs/index.rst" not in task.files
        for line in (*task.hints.exact_lines, *task.hints.suspicious_lines):
            assert task.files[line.path].splitlines()[line.number - 1] == line.text
    write_tasks(tmp_path / "tasks.jsonl", tasks)
    assert list(read_tasks(tmp_path / "tasks.jsonl")) == tasks


def test_combined_bugs_lie_in_two_files_of_one_split_and_each_alone_fails(library: Library) -> None:
    tasks = built(library)
    singles = {task.problem: task for task in tasks if "+" not in task.problem}
    combined = [task for task in tasks if "+" in task.problem]
    assert combined
    with Grader(workers=1) as grader:
        for task in combined:
            parts = task.problem.split("+")
            assert {singles[part].split for part in parts} == {task.split}
            assert isinstance(task.files, StoredTree)
            assert len(task.files.overlay) == 2
            for mended in task.files.overlay:
                half = {**task.files, mended: FILES[mended]}
                verdict = grader.grade_files(task, half)
                assert not verdict.passed
                assert any(test.status != "passed" for test in verdict.tests)


def test_the_same_seed_gives_the_same_tasks_and_nothing_runs_twice(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = built(library)
    monkeypatch.setattr(Suite, "_job", lambda *_: pytest.fail("what is in the journal is not run again"))
    assert [task.model_dump_json() for task in built(library)] == [task.model_dump_json() for task in first]


def test_a_masked_function_fails_the_tests_that_execute_it(library: Library) -> None:
    tasks, left_out = library_functions([library], select_backend(), seed=1, limit=None, workers=1)
    assert {task.task_id for task in tasks} == {
        f"libraries-implement/small/small/numbers.py::clamp:1/{kind}" for kind in ("whole", "body")
    }
    assert {one.problem: one.reason for one in left_out}["small/small/words.py::vowels"] == "no docstring"
    with Grader(workers=1) as grader:
        assert validate(tasks, grader) == (tasks, [])
    for task in tasks:
        assert task.kind is Kind.IMPLEMENT
        assert task.oracle == {"small/numbers.py": NUMBERS}
        assert len(suite_tests(task).fail_to_pass) == 5
        assert ("def clamp" in task.files["small/numbers.py"]) == task.task_id.endswith("/body")
        assert "nearer of the bounds" in task.description + task.files["small/numbers.py"]


def test_a_function_whose_near_copy_stays_in_the_file_is_not_masked(library: Library) -> None:
    class Watched(Suite):
        executed = {"small/numbers.py": frozenset(range(1, 99))}  # noqa: RUF012 - stands for a property

        def tests_of(self, *_: object) -> tuple[str, ...]:
            return ("tests/test_numbers.py::test_clamp",)

    left_out: list[Unusable] = []
    twin = NUMBERS + NUMBERS[: NUMBERS.index("def evens")].replace("clamp", "bound").replace("nearer", "closer")
    assert len(_masks(Watched(library, {"small/numbers.py": NUMBERS}, select_backend()), 1, left_out)) == 2
    assert _masks(Watched(library, {"small/numbers.py": twin}, select_backend()), 1, left_out) == []
    reasons = {one.problem: one.reason for one in left_out}
    assert reasons["small/small/numbers.py::clamp/whole"] == "nearly the same as bound, which stays in the file"


def test_pinned_libraries_are_named_once_and_say_where_code_and_tests_are() -> None:
    assert len({library.name for library in LIBRARIES}) == len(LIBRARIES) >= 5
    for library in LIBRARIES:
        assert len(library.sha256) == 64
        assert library.is_source(f"{library.source.removesuffix('.py')}x.py") or library.source.endswith(".py")
        assert all(not library.is_source(f"{folder}/test_x.py") for folder in library.tests)


def test_what_is_no_source_distribution_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(b"no archive")
    with pytest.raises(BadInput, match=r"x\.tar\.gz: this is no source distribution"):
        files_in(path)


def test_a_source_distribution_is_read_as_text_without_documentation(library: Library) -> None:
    from code_repair_rl.packages import fetch_package

    files = files_in(fetch_package(library.name, library.version, library.sha256, "sdist"))
    assert set(files) == set(FILES) - {"docs/index.rst", "small.egg-info/PKG-INFO"}
