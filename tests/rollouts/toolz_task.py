"""A bug in toolz, for agents: its tree as it is published, one line of `take_nth` broken, its own tests as judges."""

from code_repair_rl.packages import cached_package
from code_repair_rl.synthesis.library import LIBRARIES, files_in
from code_repair_rl.tasks import Kind, Origin, RepositoryTests, Split, Task

PATH = "toolz/itertoolz.py"
RIGHT = "    return itertools.islice(seq, 0, None, n)\n"
WRONG = "    return itertools.islice(seq, 1, None, n)\n"
TESTS = "toolz/tests/test_itertoolz.py"
TOOLZ = next(library for library in LIBRARIES if library.name == "toolz")


def toolz_is_there() -> bool:
    """Whether `scripts/fetch_test_data.py` has been run."""
    return cached_package(TOOLZ.name, TOOLZ.version, TOOLZ.sha256) is not None


def toolz_task() -> Task:
    archive = cached_package(TOOLZ.name, TOOLZ.version, TOOLZ.sha256)
    assert archive is not None
    files = files_in(archive)
    assert RIGHT in files[PATH]
    return Task(
        task_id="toolz-take_nth",
        kind=Kind.REPAIR,
        files={**files, PATH: files[PATH].replace(RIGHT, WRONG)},
        description="`toolz.take_nth(2, [10, 20, 30])` leaves out the first element: every nth item of a sequence "
        "begins with its first one.",
        oracle={PATH: files[PATH]},
        tests=RepositoryTests(
            fail_to_pass=(f"{TESTS}::test_take_nth",),
            pass_to_pass=(f"{TESTS}::test_take", f"{TESTS}::test_first", f"{TESTS}::test_nth"),
        ),
        split=Split.TRAIN,
        problem="toolz/take_nth",
        origin=Origin(source="toolz", version=TOOLZ.version),
        licence=TOOLZ.licence,
    )
