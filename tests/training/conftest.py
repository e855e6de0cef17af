"""Small real material: a few tasks that the grader can judge, and the tiny model."""

import pytest

from code_repair_rl.tasks import Example, FunctionTests, Hints, Kind, Line, Origin, Split, Task


def task(number: int, split: Split = Split.TRAIN) -> Task:
    """A function that adds `number`, with the wrong sign."""
    broken, fixed = f"    return x - {number}\n", f"    return x + {number}\n"
    head = f"def add_{number}(x):\n"
    return Task(
        task_id=f"add-{number}",
        kind=Kind.REPAIR,
        files={"solution.py": head + broken},
        description=f"Add {number} to x.",
        hints=Hints(exact_lines=(Line(path="solution.py", number=2, text=broken.rstrip("\n")),)),
        oracle={"solution.py": head + fixed},
        tests=FunctionTests(
            path="solution.py",
            entry_point=f"add_{number}",
            visible=(Example(call=f"add_{number}(1)", expected=str(1 + number)),),
            hidden=(Example(call=f"add_{number}(7)", expected=str(7 + number)),),
        ),
        split=split,
        problem=f"add-{number}",
        origin=Origin(source="test", detail={"operator": "arithmetic"}),
        licence="MIT",
    )


@pytest.fixture(scope="session")
def tasks() -> list[Task]:
    return [task(number) for number in range(1, 7)]


@pytest.fixture
def plain_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimiser is plain SGD with rate 1: a step is the gradient itself."""
    from torch.optim import SGD

    from code_repair_rl.training.grpo import RepairGRPOTrainer

    monkeypatch.setattr(
        RepairGRPOTrainer,
        "create_optimizer",
        lambda self, *_: setattr(self, "optimizer", SGD(self.model.parameters(), 1.0)),
    )
