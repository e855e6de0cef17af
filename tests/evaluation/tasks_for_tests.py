"""Small repair tasks that grade in milliseconds."""

from __future__ import annotations

from code_repair_rl.edits import diff
from code_repair_rl.tasks import Example, FunctionTests, Hints, Kind, Line, Origin, Split, Task


def task(number: int, problem: str | None = None, operator: str = "comparison") -> Task:
    before = f"def f(x):\n    y = x + {number}\n    if y < 0:\n        return 0\n    return y - 1\n"
    after = before.replace("y - 1", "y + 1")
    return Task(
        task_id=f"toy/{number}",
        kind=Kind.REPAIR,
        files={"solution.py": before},
        description=f"Add {number + 1} to a number that is not negative.",
        hints=Hints(exact_lines=(Line(path="solution.py", number=5, text="    return y - 1"),)),
        oracle={"solution.py": after},
        tests=FunctionTests(
            path="solution.py",
            entry_point="f",
            visible=(Example(call="f(1)", expected=str(number + 2)),),
            hidden=(Example(call="f(5)", expected=str(number + 6)),),
        ),
        split=Split.VALIDATION,
        problem=problem or f"p{number}",
        origin=Origin(source="toy", detail={"operator": operator}),
        licence="MIT",
    )


def oracle_answer(one: Task) -> str:
    return str(diff(dict(one.files), one.files_after_oracle()))


def wrong_answer(one: Task) -> str:
    before = one.files["solution.py"]
    return str(diff(dict(one.files), {"solution.py": before.replace("return 0", "return 7")}))
