"""Small real tasks that the tests of several rooms can build on."""

from __future__ import annotations

from code_repair_rl.tasks import Example, FunctionTests, Hints, Kind, Line, Origin, Split, Task

FAULTY = "def add(a, b):\n    return a - b\n"
WHOLE = "def add(a, b):\n    return a + b\n"


def addition(task_id: str = "addition/0", *, problem: str = "addition", split: Split = Split.TRAIN) -> Task:
    """A one-line bug with a visible and a hidden example."""
    return Task(
        task_id=task_id,
        kind=Kind.REPAIR,
        files={"solution.py": FAULTY},
        description="Return the sum of a and b.\n>>> add(1, 2)\n3",
        hints=Hints(
            failing_call="add(1, 2) returns -1, expected 3",
            suspicious_lines=(Line(path="solution.py", number=2, text="    return a - b"),),
            exact_lines=(Line(path="solution.py", number=2, text="    return a - b"),),
        ),
        oracle={"solution.py": WHOLE},
        tests=FunctionTests(
            path="solution.py",
            entry_point="add",
            check="def check(candidate):\n    assert candidate(40, 2) == 42\n",
            visible=(Example(call="add(1, 2)", expected="3"),),
            hidden=(Example(call="add(123456, -7)", expected="123449"),),
        ),
        split=split,
        problem=problem,
        origin=Origin(source="written for the tests"),
        licence="Apache-2.0",
    )
