"""A small function task and a small repository task."""

from __future__ import annotations

from code_repair_rl.tasks import Example, FunctionTests, Kind, Origin, Split, Task

GOOD = "def mean(numbers):\n    return sum(numbers) / len(numbers)\n"
BAD = "def mean(numbers):\n    return sum(numbers) / 2\n"
CHECK = """
METADATA = {}
def check(candidate):
    assert True, "a constant assertion is no test"
    for k in (1, 2):
        assert candidate([k, k + 2]) == k + 1
    assert abs(candidate([0.1, 0.2, 0.3]) - 0.2) < 1e-6
"""


def function_task(**tests: object) -> Task:
    """Repair `mean`; `tests` replaces parts of its tests."""
    parts: dict[str, object] = {
        "path": "mean.py",
        "entry_point": "mean",
        "check": CHECK,
        "visible": (Example(call="mean([1, 2, 3])", expected="2"),),
        "hidden": (Example(call="mean([1.0, 2.0, 2.0])", expected="1.6666666667"),),
    }
    return Task(
        task_id="mean",
        kind=Kind.REPAIR,
        files={"mean.py": BAD},
        description="The arithmetic mean.",
        oracle={"mean.py": GOOD},
        tests=FunctionTests.model_validate({**parts, **tests}),
        split=Split.TRAIN,
        problem="mean",
        origin=Origin(source="tests"),
        licence="Apache-2.0",
    )


def answer(text: str, before: str = BAD, path: str = "mean.py") -> str:
    """An answer that replaces a whole file."""
    return f"{path}\n<<<<<<< SEARCH\n{before}=======\n{text}>>>>>>> REPLACE\n"
