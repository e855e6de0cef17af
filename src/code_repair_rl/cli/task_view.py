"""Tasks and their statistics on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from code_repair_rl.tasks import FunctionTests, HintLevel, RepositoryTests, Task, has_hint, messages, oracle_answer

if TYPE_CHECKING:
    from code_repair_rl.synthesis.statistics import Statistics

_MOST_EXAMPLES = 5
_BAR_WIDTH = 40


def print_task(console: Console, task: Task) -> None:
    """Everything a person wants to know of a task, the known-good edit last."""
    origin = f"{task.origin.source} {task.origin.version}".strip()
    detail = ", ".join(f"{key} {value}" for key, value in task.origin.detail.items())
    console.rule(escape(task.task_id))
    console.print(
        f"{task.kind} · {task.split} · problem {task.problem} · {origin} ({detail}) · {task.licence}", markup=False
    )
    console.print()
    console.print(task.description, markup=False, highlight=False)
    faulty = {(line.path, line.number) for line in task.hints.exact_lines}
    shown = {line.path for line in task.hints.exact_lines} or set(
        task.oracle if isinstance(task.oracle, Mapping) else ()
    )
    for path, text in task.files.items():
        if len(task.files) > 1 and path not in shown:
            continue
        console.print(f"\n[bold]{escape(path)}[/bold]")
        lines = {number for where, number in faulty if where == path}
        console.print(Syntax(text, "python", line_numbers=True, highlight_lines=lines, background_color="default"))
    _print_hints(console, task)
    _print_tests(console, task)
    if not isinstance(task.oracle, str):
        console.print("\n[bold]known-good edit[/bold]")
        console.print(_coloured(oracle_answer(task)))
    else:
        console.print(f"\n[bold]label[/bold] {escape(task.oracle)}")


def print_prompt(console: Console, task: Task, hint: HintLevel) -> None:
    """The prompt as a model reads it, and the answer it hopes for."""
    if not has_hint(task, hint):
        console.print(f"(this task has no hint of level {hint}; it is asked without one)\n", style="dim")
    for message in messages(task, hint):
        console.rule(message["role"])
        console.print(message["content"], markup=False, highlight=False, soft_wrap=True)
    console.rule("known-good answer")
    console.print(oracle_answer(task), markup=False, highlight=False, soft_wrap=True)


def print_statistics(console: Console, found: Statistics) -> None:
    """Counts as tables, lengths as a histogram."""
    table = Table("split", "tasks", "problems", title="splits")
    for split, (tasks, problems) in found.splits.items():
        table.add_row(split, str(tasks), str(problems))
    table.add_row("all", str(found.tasks), str(found.problems))
    console.print(table)
    if found.operators:
        table = Table("operator", *found.splits, "all", title="kinds of bugs")
        for operator, counts in found.operators.items():
            table.add_row(operator, *(str(counts.get(split, 0)) for split in found.splits), str(sum(counts.values())))
        console.print(table)
    table = Table("hint", "tasks that have it", title="hints")
    for hint, count in found.hints.items():
        table.add_row(hint, f"{count} ({count / max(found.tasks, 1):.0%})")
    console.print(table)
    if found.localised:
        console.print("faulty line among the suspicious ones: " + ", ".join(
            f"first {count}: {share:.0%}" for count, share in found.localised.items()
        ), highlight=False)  # fmt: skip
    console.print("\nlines of code shown", style="bold")
    most = max(found.lengths.values(), default=1)
    for label, count in found.lengths.items():
        console.print(f"{label:>9} {'█' * math.ceil(_BAR_WIDTH * count / most)} {count}", highlight=False)


def _print_hints(console: Console, task: Task) -> None:
    hints = task.hints
    if hints.failing_call:
        console.print(f"\n[bold]failing call[/bold] {escape(hints.failing_call)}", highlight=False)
    if hints.suspicious_lines:
        numbers = ", ".join(f"{line.path}:{line.number}" for line in hints.suspicious_lines)
        console.print(f"[bold]suspicious lines[/bold] {escape(numbers)}", highlight=False)


def _print_tests(console: Console, task: Task) -> None:
    tests = task.tests
    if isinstance(tests, FunctionTests):
        table = Table("test", "call", "gives")
        for label, examples in (("visible", tests.visible), ("hidden", tests.hidden)):
            for example in examples[:_MOST_EXAMPLES]:
                table.add_row(label, escape(example.call), escape(example.expected))
            if len(examples) > _MOST_EXAMPLES:
                table.add_row(label, f"… {len(examples) - _MOST_EXAMPLES} more", "")
        if tests.check:
            table.add_row("hidden", f"a check of {len(tests.check.splitlines())} lines", "")
        console.print(table)
    elif isinstance(tests, RepositoryTests):
        table = Table("test", "id")
        for label, ids in (("must pass", tests.fail_to_pass), ("must still pass", tests.pass_to_pass)):
            for test in ids[:_MOST_EXAMPLES]:
                table.add_row(label, escape(test))
            if len(ids) > _MOST_EXAMPLES:
                table.add_row(label, f"… {len(ids) - _MOST_EXAMPLES} more")
        console.print(table)


def _coloured(answer: str) -> str:
    """SEARCH lines in red, REPLACE lines in green."""
    colour, lines = "", []
    for line in answer.split("\n"):
        if line.startswith(("<<<<<<<", "=======", ">>>>>>>")):
            colour = {"<": "red", "=": "green", ">": ""}[line[0]]
            lines.append(f"[dim]{escape(line)}[/dim]")
        else:
            lines.append(f"[{colour}]{escape(line)}[/{colour}]" if colour and line else escape(line))
    return "\n".join(lines)
