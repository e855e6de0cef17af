"""Installed copies of what a task is about are found, and the code under test does not see them."""

from pathlib import Path

import pytest

from code_repair_rl.grading import Grader, Outcome
from code_repair_rl.grading.copies import installed_copies
from code_repair_rl.tasks import RepositoryTests
from tests.grading.test_repository_grading import FILES, task

LOOKS_FOR_A_COPY = """import os
import sys


def total(numbers):
    copies = [place for place in sys.path if os.path.exists(os.path.join(place, "rich", "console.py"))]
    return 0 if copies else sum(numbers)
"""


@pytest.mark.parametrize(("package", "outcome"), [("rich", Outcome.PASSED), ("other", Outcome.FAILED)])
def test_the_code_under_test_sees_no_copy_of_the_tasks_own_package(
    grader: Grader, package: str, outcome: Outcome
) -> None:
    one = task(("test_total",))
    one = one.model_copy(update={"files": {**FILES, f"src/{package}/__init__.py": ""}})
    verdict = grader.grade_files(one, {**one.files, "src/shop/cart.py": LOOKS_FOR_A_COPY})
    assert verdict.outcome is outcome, verdict


def test_vendored_compiled_and_shared_names_are_found(tmp_path: Path) -> None:
    there = [
        "shop/__init__.py", "shop.cpython-311-x86_64-linux-gnu.so", "__pycache__/shop.cpython-311.pyc",
        "other/_vendor/shop/cart.py", "company/division/cart/__init__.py",
    ]  # fmt: skip
    elsewhere = ["shopping/__init__.py", "company/division/till/__init__.py", "pytest.py", "other/shop.py"]
    for path in [*there, *elsewhere]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    files = {
        "src/shop/__init__.py": "",
        "src/shop/cart.py": "",
        "src/company/division/cart/__init__.py": "",
        "pytest.py": "",
    }
    one = task(()).model_copy(update={"files": files, "tests": RepositoryTests(fail_to_pass=(), source_roots=("src",))})
    found = {str(Path(path).relative_to(tmp_path)) for path in installed_copies(one, [str(tmp_path)]) if "tmp" in path}
    assert found == {
        "shop", "shop.cpython-311-x86_64-linux-gnu.so", "__pycache__/shop.cpython-311.pyc", "other/_vendor/shop",
        "company/division/cart",
    }  # fmt: skip
