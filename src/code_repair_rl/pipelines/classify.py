"""Is this file vulnerable: what several answers of a model say together, section by section."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from code_repair_rl.edits.lines import lines_of
from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation.classification import LabelledSample, is_vulnerable, labelled_sample
from code_repair_rl.evaluation.votes import evidence_weighted, majority, shares
from code_repair_rl.grading.label_scores import UNREADABLE
from code_repair_rl.rollouts import Engine, Sampling
from code_repair_rl.synthesis.outer_functions import first_line_of, outer_functions
from code_repair_rl.synthesis.vulnerabilities import DESCRIPTION
from code_repair_rl.tasks import Kind, Origin, Split, Task, messages
from code_repair_rl.tasks.classification import BENIGN
from code_repair_rl.tasks.vulnerabilities import language_of

_ASKED_OR_HARMLESS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Import, ast.ImportFrom)


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of the file that is asked about at once."""

    name: str
    """The function's name; empty for the whole file."""
    first: int
    last: int
    """1-based lines, both included."""
    task: Task


@dataclass(frozen=True, slots=True)
class NotAsked:
    """A stretch of the file about which nothing is said."""

    name: str
    """The function's name; empty for code outside of functions."""
    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class Sections:
    """A file in the stretches that are asked about, and the rest of it."""

    asked: tuple[Section, ...]
    not_asked: tuple[NotAsked, ...] = ()


@dataclass(frozen=True, slots=True)
class CitedLine:
    """A line that answers cite as evidence."""

    number: int
    """1-based, in the file."""
    share: float
    """Of the answers that voted for the verdict."""
    text: str


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the answers about one section say together."""

    section: Section
    label: str
    """The majority's; among tied ones the one with more weight of evidence. `unreadable` where none could be read."""
    vote_share: float
    """Of all answers, those that could not be read included."""
    votes: Mapping[str, float]
    """Label to share."""
    weighted_label: str
    """By the evidence-weighted vote."""
    lines: tuple[CitedLine, ...]
    """Cited by answers that voted for the verdict, the most cited first."""
    misquoted: int
    """Citations of theirs that are not in the file as quoted."""
    answers: tuple[str, ...]

    @property
    def vulnerable(self) -> bool:
        """Whether the verdict claims a vulnerability."""
        return self.readable and is_vulnerable(self.label)

    @property
    def readable(self) -> bool:
        """Whether there is a verdict at all."""
        return self.label != UNREADABLE


def sections_of(
    path: str,
    text: str,
    engine: Engine,
    *,
    labels: Sequence[str],
    max_prompt_tokens: int,
    lines: tuple[int, int] | None = None,
) -> Sections:
    """The file as a whole where its prompt fits, else (Python) its functions one by one.

    What is no function then, beside imports and docstrings, is named as not asked about, and so are functions that are
    too long.

    Args:
        path: decides on the language.
        text: the file.
        engine: counts tokens.
        labels: those that are asked for; empty for any CWE.
        max_prompt_tokens: the longest prompt.
        lines: only this stretch, where given.

    Raises:
        BadInput: nothing of it fits.
    """
    count = len(lines_of(text))
    if lines is not None and not 1 <= lines[0] <= lines[1] <= count:
        raise BadInput(f"the file has {count} lines, and no {lines[0]}-{lines[1]}", where="--lines")
    whole = _section("", *(lines or (1, count)), path, text, labels)
    if _fits(whole, engine, max_prompt_tokens):
        return Sections((whole,))
    too_long = f"its prompt has more than {max_prompt_tokens} tokens"
    if lines is None and language_of(path, text) == "python":
        functions, outside = _parts(text)
        every = [_section(name, *place, path, text, labels) for name, place in functions]
        asked = tuple(one for one in every if _fits(one, engine, max_prompt_tokens))
        if asked:
            rest = [NotAsked(one.name, one.first, one.last, too_long) for one in every if one not in asked]
            rest += [NotAsked("", *place, "it stands outside of functions") for place in outside]
            return Sections(asked, tuple(sorted(rest, key=lambda one: one.first)))
    raise BadInput(
        too_long,
        where=path,
        mend="name a function's lines with --lines 10-40, or raise --max-prompt-tokens",
    )


def opinions(sections: Sequence[Section], engine: Engine, *, samples: int, sampling: Sampling) -> list[Opinion]:
    """Ask about every section, and count the votes."""
    prompts = [engine.encode(messages(section.task)) for section in sections]
    groups = engine.generate(prompts, completions_per_prompt=samples, sampling=sampling)
    return [opinion(section, [one.text for one in group]) for section, group in zip(sections, groups, strict=True)]


def opinion(section: Section, answers: Sequence[str]) -> Opinion:
    """What answers about one section say together."""
    read = [labelled_sample(section.task, text) for text in answers]
    winners, weighted = majority(read), evidence_weighted(read)
    label = max(sorted(winners), key=lambda one: (winners[one], weighted.get(one, 0.0)))
    votes = shares(read)
    supporters = [one for one in read if one.label == label]
    return Opinion(
        section=section,
        label=label,
        vote_share=votes.get(label, 0.0),
        votes=dict(sorted(votes.items(), key=lambda vote: -vote[1])),
        weighted_label=max(sorted(weighted), key=lambda one: weighted[one]),
        lines=_cited(section, supporters),
        misquoted=sum(one.misquoted for one in supporters),
        answers=tuple(answers),
    )


def _cited(section: Section, supporters: Sequence[LabelledSample]) -> tuple[CitedLine, ...]:
    counts = Counter(number for one in supporters for number in one.cited)
    texts = next(iter(section.task.files.values())).split("\n")
    return tuple(
        CitedLine(section.first + number - 1, count / len(supporters), texts[number - 1])
        for number, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def _section(name: str, first: int, last: int, path: str, text: str, labels: Sequence[str]) -> Section:
    code = "\n".join(lines_of(text)[first - 1 : last]) + "\n"
    task = Task(
        task_id=f"{path}:{first}-{last}",
        kind=Kind.CLASSIFY,
        files={path: code},
        description=DESCRIPTION,
        oracle=BENIGN,  # not known, and never looked at
        split=Split.TEST,
        problem=path,
        origin=Origin(source=path, detail={"language": language_of(path, text), "labels": list(labels)}),
        licence="NOASSERTION",
    )
    return Section(name, first, last, task)


def _fits(section: Section, engine: Engine, most: int) -> bool:
    return len(engine.encode(messages(section.task))) <= most


def _parts(text: str) -> tuple[list[tuple[str, tuple[int, int]]], list[tuple[int, int]]]:
    """Functions of the module and methods of its classes, decorators included, and the places of other statements.

    Neither where it cannot be parsed.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return [], []
    functions = [(name, (first_line_of(one), one.end_lineno or one.lineno)) for name, one in outer_functions(tree)]
    return functions, _joined(_outside(tree.body))


def _outside(body: Sequence[ast.stmt]) -> Iterator[tuple[int, int]]:
    for node in body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.ClassDef):
            if node.decorator_list or node.bases or node.keywords:  # all of them are code that runs
                yield first_line_of(node), max(first_line_of(node), first_line_of(node.body[0]) - 1)
            yield from _outside(node.body)
        elif not docstring and not isinstance(node, _ASKED_OR_HARMLESS):
            yield node.lineno, node.end_lineno or node.lineno


def _joined(places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Stretches that follow on one another as one."""
    found: list[tuple[int, int]] = []
    for first, last in places:
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found
