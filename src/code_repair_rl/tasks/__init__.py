"""What a model is asked: tasks, their parts, prompts and readers."""

from code_repair_rl.tasks.task import (
    Example,
    FunctionTests,
    HintLevel,
    Hints,
    Kind,
    Line,
    Origin,
    RepositoryTests,
    Split,
    Task,
    Tests,
)

__all__ = [
    "Example",
    "FunctionTests",
    "HintLevel",
    "Hints",
    "Kind",
    "Line",
    "Origin",
    "RepositoryTests",
    "Split",
    "Task",
    "Tests",
]
