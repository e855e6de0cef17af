"""What a model is asked: tasks, their parts, prompts and readers."""

from code_repair_rl.tasks.faults import exact_lines, faulty_lines
from code_repair_rl.tasks.files import built_set, load_tasks, read_tasks, task_file, write_tasks
from code_repair_rl.tasks.pairs import read_pairs
from code_repair_rl.tasks.prompts import has_hint, messages, oracle_answer
from code_repair_rl.tasks.splits import split_of
from code_repair_rl.tasks.task import (
    Environment,
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
from code_repair_rl.tasks.trees import StoredTree, store_tree

__all__ = [
    "Environment",
    "Example",
    "FunctionTests",
    "HintLevel",
    "Hints",
    "Kind",
    "Line",
    "Origin",
    "RepositoryTests",
    "Split",
    "StoredTree",
    "Task",
    "Tests",
    "built_set",
    "exact_lines",
    "faulty_lines",
    "has_hint",
    "load_tasks",
    "messages",
    "oracle_answer",
    "read_pairs",
    "read_tasks",
    "split_of",
    "store_tree",
    "task_file",
    "write_tasks",
]
