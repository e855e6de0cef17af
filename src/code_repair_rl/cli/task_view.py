"""Tasks and their statistics on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from code_repair_rl.edits.lines import lines_of
from code_repair_rl.tasks import FunctionTests, HintLevel, RepositoryTests, Task, has_hint, messages, oracle_answer
from code_repair_rl.tasks.excerpts import stretches

if TYPE_CHECKING:
    from code_repair_rl.synthesis.statistics import Statistics
    from code_repair_rl.tasks.difficulty import PassRate

_MOST_EXAMPLES = 5
_MOST_ROWS = 12
_BAR_WIDTH = 40
_FACT_LENGTH = 200
_WHOLE_FILE_LINES = 60
"""Shorter files are shown whole."""
_LONGEST_FILE_LINES = 200
_LINES_AROUND = 25
"""Shown at most before the first and after the last faulty line of a function in a long file."""


def print_task(console: Console, task: Task) -> None:
    """Everything a person wants to know of a task, the known-good edit last.

    Of long files only the functions around the fault are shown, and of many files only those that the answer touches.
    """
    console.rule(escape(task.task_id))
    _print_facts(console, task)
    console.print()
    console.print(task.description, markup=False, highlight=False)
    faulty = {(line.path, line.number) for line in task.hints.exact_lines}
    touched = set(task.oracle if isinstance(task.oracle, Mapping) else task.files)
    for path in sorted(touched & set(task.files)) if len(task.files) > 1 else task.files:
        console.print(f"\n[bold]{escape(path)}[/bold]")
        _print_code(console, path, task.files[path], {number for where, number in faulty if where == path})
    if others := len(task.files) - len(touched & set(task.files)):
        console.print(f"({others} other files)", style="dim")
    _print_hints(console, task)
    _print_tests(console, task)
    if isinstance(task.oracle, str):
        console.print(f"\n[bold]label[/bold] {escape(task.oracle)}")
        return
    console.print("\n[bold]known-good edit[/bold]")
    console.print(_coloured(oracle_answer(task)))


def _print_facts(console: Console, task: Task) -> None:
    """What the task is and where it comes from, one fact a line."""
    facts = Table.grid(padding=(0, 2))
    origin = f"{task.origin.source} {task.origin.version}".strip()
    rows = {"kind": task.kind, "split": task.split, "problem": task.problem, "from": origin, "licence": task.licence}
    for key, value in {**rows, **task.origin.detail}.items():
        shown = str(value)
        facts.add_row(key, escape(shown if len(shown) <= _FACT_LENGTH else shown[:_FACT_LENGTH] + " …"))
    console.print(facts, highlight=False)


def _print_code(console: Console, path: str, text: str, faulty: set[int]) -> None:
    """A file with numbered lines, the faulty ones marked; of a long one the functions around those, cut where they are
    long themselves."""
    count = len(lines_of(text))
    if count <= _WHOLE_FILE_LINES or not faulty:
        parts = [(1, min(count, _LONGEST_FILE_LINES))]
    else:
        parts = [
            (max(first, min(inside) - _LINES_AROUND), min(last, max(inside) + _LINES_AROUND))
            for first, last in stretches(text, sorted(faulty))
            if (inside := [number for number in faulty if first <= number <= last])
        ]
    lexer = Syntax.guess_lexer(path, text)
    end = 0
    for first, last in parts:
        if first > end + 1:
            console.print(f"({first - end - 1} lines)", style="dim")
        console.print(
            Syntax(
                text,
                lexer,
                line_numbers=True,
                line_range=(first, last),
                highlight_lines=faulty,
                background_color="default",
                word_wrap=True,
            )
        )
        end = last
    if end < count:
        console.print(f"({count - end} lines)", style="dim")


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
    for title, counts in (("kind", found.kinds), ("tests", found.tests), ("source", found.sources)):
        _print_counts(console, title, counts)
    _print_counts(console, "licence", found.licences)
    _print_counts(console, "label", found.labels)
    if found.operators:
        table = Table("operator", *found.splits, "all", title="kinds of bugs")
        for operator, by_split in found.operators.items():
            table.add_row(
                operator, *(str(by_split.get(split, 0)) for split in found.splits), str(sum(by_split.values()))
            )
        console.print(table)
    if any(found.hints.values()):
        table = Table("hint", "tasks that have it", title="hints")
        for hint, count in found.hints.items():
            table.add_row(hint, f"{count} ({count / max(found.tasks, 1):.0%})")
        console.print(table)
    if found.localised:
        console.print("faulty line among the suspicious ones: " + ", ".join(
            f"first {count}: {share:.0%}" for count, share in found.localised.items()
        ), highlight=False)  # fmt: skip
    console.print("\nlines of the files that the answer touches", style="bold")
    _print_histogram(console, found.lengths)


def print_prompt_lengths(console: Console, lengths: Sequence[int], *, model: str, hint: str, budget: int) -> None:
    """How long prompts are in a model's tokens, and how many do not fit."""
    edges = (0, 128, 256, 512, 1024, 2048, 4096, 8192)
    counts = {f"to {edge}": sum(low < length <= edge for length in lengths) for low, edge in pairwise(edges)}
    counts["more"] = sum(length > edges[-1] for length in lengths)
    console.print(f"\ntokens of the prompt with the hint {hint}, by {model}", style="bold", markup=False)
    _print_histogram(console, counts)
    too_long = sum(length > budget for length in lengths)
    console.print(f"{len(lengths) - too_long} fit into {budget} tokens, {too_long} do not", highlight=False)


def _print_counts(console: Console, title: str, counts: Mapping[str, int]) -> None:
    """A table, most frequent first; nothing where there is nothing, the rest in one row where there is much."""
    if not counts:
        return
    table = Table(title, "tasks")
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    for name in ordered[:_MOST_ROWS]:
        table.add_row(escape(name), str(counts[name]))
    if len(ordered) > _MOST_ROWS:
        rest = ordered[_MOST_ROWS:]
        table.add_row(f"… {len(rest)} more", str(sum(counts[name] for name in rest)))
    console.print(table)


def print_pass_rates(console: Console, rates: Mapping[str, PassRate], *, model: str, hint: str) -> None:
    """How many tasks are how hard, as a histogram."""
    labels = ["never", "to 25 %", "to 50 %", "to 75 %", "below all", "always"]
    counts = dict.fromkeys(labels, 0)
    for rate in rates.values():
        if rate.samples:
            inner = labels[1 + min(3, math.ceil(rate.rate * 4) - 1)]
            counts["never" if rate.passed == 0 else "always" if rate.passed == rate.samples else inner] += 1
    console.print(f"{len(rates)} tasks rated by {model} with the hint {hint}", style="bold", markup=False)
    _print_histogram(console, counts)


def _print_histogram(console: Console, counts: Mapping[str, int]) -> None:
    most = max([1, *counts.values()])
    width = max(map(len, counts), default=0)
    for label, count in counts.items():
        console.print(f"{label:>{width}} {'█' * math.ceil(_BAR_WIDTH * count / most)} {count}", highlight=False)


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
        if tests.environment is not None and tests.environment.image is not None:
            console.print(f"tested in the image {tests.environment.image}", markup=False, highlight=False)
    elif not isinstance(task.oracle, str):
        console.print("\nno tests: an answer is compared with the known-good edit", style="dim")


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
