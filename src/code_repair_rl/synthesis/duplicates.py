"""Near-duplicates across splits: what would let a model be judged on what it was trained on.

Code is compared by shingles: stretches of tokens, with names of the code's own written alike, without comments and
layout. Two problems whose shingles overlap by more than a threshold (Jaccard) are near-duplicates.
"""

from __future__ import annotations

import builtins
import io
import keyword
import tokenize
from collections.abc import Iterable, Mapping, Sequence

from code_repair_rl.synthesis.masking import Function
from code_repair_rl.synthesis.near_copies import alike, near_copies
from code_repair_rl.synthesis.validation import Quarantined
from code_repair_rl.tasks import Kind, RepositoryTests, Split, Task, faulty_lines
from code_repair_rl.tasks.excerpts import excerpt

THRESHOLD = 0.7
"""Jaccard similarity from which two problems count as the same one. A judgement: among the HumanEval solutions the
twins (brackets of one kind and of another) have 0.76, functions that only share an idiom less than 0.65."""

_SHINGLE_TOKENS = 5
_KEPT_NAMES = frozenset(keyword.kwlist) | frozenset(dir(builtins))
_LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
_ORDER = (Split.TEST, Split.VALIDATION, Split.TRAIN)
"""Who stays: a duplicate leaves the split that comes later here."""


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """The text's stretches of five tokens, normalised; of a shorter text the one stretch there is."""
    tokens = _tokens(text)
    count = max(1, len(tokens) - _SHINGLE_TOKENS + 1)
    return (
        frozenset(tuple(tokens[start : start + _SHINGLE_TOKENS]) for start in range(count)) if tokens else frozenset()
    )


def function_shingles(function: Function, text: str) -> frozenset[tuple[str, ...]]:
    """`shingles` of a function of `text`, signature and body: the docstring says what it does, not how."""
    return shingles(f"{function.signature}\n{text[function.body_start : function.end]}")


def open_copies(functions: Sequence[Function], text: str) -> dict[Function, str]:
    """The functions that nearly stand in their file a second time, and as which: with one of them masked, the other
    would show what to write.

    Args:
        functions: all of the file, in its order (`functions_in`).
        text: the file.
    """
    found: dict[Function, str] = {}
    for one, two in alike([function_shingles(function, text) for function in functions], THRESHOLD):
        first, second = functions[one], functions[two]
        if first.end <= second.start:  # what stands inside a function is masked along with it
            found.setdefault(first, f"nearly the same as {second.qualified_name}, which stays in the file")
            found.setdefault(second, f"nearly the same as {first.qualified_name}, which stays in the file")
    return found


def without_near_duplicates(
    tasks: Sequence[Task], threshold: float = THRESHOLD
) -> tuple[list[Task], list[Quarantined]]:
    """The tasks without those whose problem nearly is a problem of another split, and those with the reason.

    A problem in training that nearly is one in validation or test goes; one in validation that nearly is one in test
    goes. Within a split nothing goes: intervals are clustered by problem there, and repetition does no harm.
    Classification tasks stay as they are: they were compared function by function when they were made.
    """
    if all(task.kind is Kind.CLASSIFY for task in tasks):
        return list(tasks), []
    texts = _texts(tasks)
    names = sorted(texts)
    split_of_problem = {task.problem: task.split for task in tasks}
    marks, splits = [shingles(texts[name]) for name in names], [split_of_problem[name] for name in names]
    dropped: dict[str, str] = {}
    for pair in near_copies(marks, splits, threshold):
        stays, goes = sorted((names[place] for place in pair), key=lambda name: _ORDER.index(split_of_problem[name]))
        dropped.setdefault(goes, f"nearly the same as {stays} of the {split_of_problem[stays]} split")
    kept = [task for task in tasks if task.problem not in dropped]
    return kept, [Quarantined(task, dropped[task.problem]) for task in tasks if task.problem in dropped]


def _texts(tasks: Iterable[Task]) -> dict[str, str]:
    """For each problem the repaired code: the faults differ, the problem is what they have in common."""
    texts: dict[str, str] = {}
    for task in tasks:
        if task.problem not in texts:
            texts[task.problem] = _text(task)
    return texts


def _text(task: Task) -> str:
    """The repaired files; of a repository only the functions that the repair touches, for all its tasks share files."""
    if not isinstance(task.oracle, Mapping):
        return "\n".join(text for _, text in sorted(task.files.items()))
    texts = []
    for path, text in sorted(task.oracle.items()):
        if text is None:
            continue
        if isinstance(task.tests, RepositoryTests):
            changed = faulty_lines(text, task.files.get(path, ""))
            count = len(text.splitlines())
            text = excerpt(text, [number for number in changed if number <= count]) if changed else text
        texts.append(text)
    return "\n".join(texts)


def _tokens(text: str) -> list[str]:
    """Token texts; names that are neither keyword, built-in nor attribute are written alike. What is not Python is
    cut at white space."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError, ValueError):
        return text.split()
    found: list[str] = []
    for token in tokens:
        if token.type in _LAYOUT:
            continue
        own = token.type == tokenize.NAME and token.string not in _KEPT_NAMES and found[-1:] != ["."]
        found.append("_" if own else token.string)
    return found
