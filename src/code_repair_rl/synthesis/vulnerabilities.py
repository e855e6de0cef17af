"""Classification tasks from labelled functions: neutral, split by project or commit, without copies across splits, and
with what their identifiers alone give away measured and stamped on every task.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from code_repair_rl.errors import BadInput
from code_repair_rl.grading.bag_of_words import leak, leak_stamp
from code_repair_rl.grading.label_scores import Scored
from code_repair_rl.synthesis.bugs import Unusable
from code_repair_rl.synthesis.giveaways import neutralised
from code_repair_rl.synthesis.independence import STAYS, problems_of, splits_of
from code_repair_rl.synthesis.near_copies import FUNCTION_THRESHOLD, near_copies, plain_shingles
from code_repair_rl.synthesis.validation import Quarantined
from code_repair_rl.tasks.classification import BENIGN, VULNERABLE
from code_repair_rl.tasks.cwe import CweTree
from code_repair_rl.tasks.rows import HUB_PREFIX, files_in
from code_repair_rl.tasks.task import Hints, Kind, Line, Origin, Split, Task
from code_repair_rl.tasks.vulnerabilities import LabelledFunction, Reading, decisive_lines, together
from code_repair_rl.tasks.vulnerabilities_own import read_labelled
from code_repair_rl.tasks.vulnerabilities_primevul import read_primevul
from code_repair_rl.tasks.vulnerabilities_sven import read_sven

DESCRIPTION = "Is this code vulnerable?"

LANGUAGES = ("python", "c", "cpp")

_SUFFIX = {"python": "py", "cpp": "cpp"}
_WRITTEN = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class Labelled:
    """Tasks made of a reading."""

    tasks: tuple[Task, ...]
    unusable: tuple[Unusable, ...]
    quarantined: tuple[Quarantined, ...]
    leak: Scored | None
    """Balanced accuracy of a bag of identifiers; None where it could not be measured."""


def classification_tasks(
    reading: Reading, set_name: str, *, tree: CweTree, language: str | None = None, labels_by: str = ""
) -> Labelled:
    """Tasks that ask for a label, made of labelled functions.

    Args:
        reading: the functions.
        set_name: goes into the tasks' ids.
        tree: names the weaknesses.
        language: only functions in this one (`python`, `c`, `cpp`).
        labels_by: who says so, where that is an opinion (`bandit 1.9.4`): stamped on every task.

    Raises:
        BadInput: there is no such language.
    """
    chosen = in_language(reading.functions, language)
    neutral = _neutral(chosen)
    problems = problems_of(chosen)
    splits = splits_of(chosen, problems)
    unusable = [Unusable(name, reason) for name, reason in reading.left_out.items()]
    labels: dict[str, set[bool]] = {}
    for function in chosen:
        labels.setdefault(neutral[function.function_id].code, set()).add(function.vulnerable)
    both = {one.function_id for one in chosen if len(labels[neutral[one.function_id].code]) > 1}
    unusable += [Unusable(name, "the same code has both labels") for name in sorted(both)]
    broken = {one.pair_id for one in chosen if one.function_id in both and one.pair_id is not None}
    tasks = []
    for function in chosen:
        if function.function_id not in both and function.pair_id not in broken:
            problem = problems[function.function_id]
            clean = neutral[function.function_id]
            tasks.append(_task(clean, set_name, reading.source, problem, splits[problem], tree, labels_by))
    apart, copies = without_copies(tasks)
    measured = leak(apart)
    stamp = {"leak": leak_stamp(measured, 2)}
    return Labelled(tuple(_stamped(task, stamp) for task in apart), tuple(unusable), tuple(copies), measured)


def read_files(source: str, path: Path) -> Reading:
    """The functions of a file, or of all files in a folder and in those within it.

    Args:
        source: `sven`, `primevul` or `labelled`.
        path: JSON Lines or Parquet, or a folder of such files.

    Raises:
        BadInput: nothing is there, or a row is malformed (names line and key).
    """
    read = {"sven": read_sven, "primevul": read_primevul, "labelled": read_labelled}[source]
    if str(path).startswith(HUB_PREFIX):
        raise BadInput(
            "labelled functions are not read from the hub",
            where=str(path),
            mend="fetch the data set's Parquet or JSON Lines files, and name their folder",
        )
    files = files_in(path) if path.is_dir() else [path]
    if not files:
        raise BadInput("there are no .jsonl or .parquet files in this folder", where=str(path))
    if len(files) == 1:
        return read(files[0])
    readings = [read(file, file.relative_to(path).with_suffix("").as_posix()) for file in files]
    return together(readings)


def in_language(functions: Iterable[LabelledFunction], language: str | None) -> list[LabelledFunction]:
    """Those in this language; all, where None is asked for.

    Raises:
        BadInput: there is no such language.
    """
    if language is not None and language not in LANGUAGES:
        raise BadInput(
            f"{language!r} is none of the languages of labelled functions",
            where="--language",
            mend=f"use one of {', '.join(LANGUAGES)}",
        )
    return [one for one in functions if language is None or one.language == language]


def without_copies(tasks: Sequence[Task]) -> tuple[list[Task], list[Quarantined]]:
    """The tasks without those that nearly are one of a split that is judged on, and those with the reason.

    What goes, goes with the other side of its pair. Within a split nothing goes.
    """
    marks = [plain_shingles(next(iter(task.files.values()))) for task in tasks]
    reasons: dict[str, str] = {}
    pairs: dict[str, list[Task]] = {}
    for task in tasks:
        pairs.setdefault(_pair(task), []).append(task)
    for one, two in near_copies(marks, [task.split for task in tasks], FUNCTION_THRESHOLD):
        stays, goes = sorted((tasks[one], tasks[two]), key=lambda task: STAYS.index(task.split))
        for side in pairs[_pair(goes)]:
            reasons.setdefault(side.task_id, f"nearly the same as one of the {stays.split} split ({stays.task_id})")
    kept = [task for task in tasks if task.task_id not in reasons]
    return kept, [Quarantined(task, reasons[task.task_id]) for task in tasks if task.task_id in reasons]


def _neutral(functions: Sequence[LabelledFunction]) -> dict[str, LabelledFunction]:
    """Function id to the function without give-aways, with its decisive lines."""
    groups: dict[str, list[LabelledFunction]] = {}
    for function in functions:
        groups.setdefault(function.pair_id or f"\0{function.function_id}", []).append(function)
    found: dict[str, LabelledFunction] = {}
    for sides in groups.values():
        texts, numbers = neutralised([side.code for side in sides], sides[0].language)
        for place, side in enumerate(sides):
            if side.lines is not None:
                lines: tuple[int, ...] = tuple(numbers[place][n] for n in side.lines if n in numbers[place])
            elif len(sides) == 2:
                lines = decisive_lines(texts[place], texts[1 - place])
            else:
                lines = ()
            found[side.function_id] = replace(side, code=texts[place], lines=_telling(lines, texts[place]))
    return found


def _telling(lines: Iterable[int], code: str) -> tuple[int, ...]:
    """Lines with a word in them, where there are such; a lone bracket decides nothing."""
    texts = code.split("\n")
    worded = tuple(number for number in lines if _WRITTEN.search(texts[number - 1]))
    return worded or tuple(lines)


def _task(
    function: LabelledFunction, set_name: str, source: str, problem: str, split: Split, tree: CweTree, labels_by: str
) -> Task:
    path = f"code.{_SUFFIX.get(function.language, 'c')}"
    texts = function.code.split("\n")
    cwe = function.cwes[0] if function.cwes else ""
    detail: dict[str, Any] = {
        "cwes": list(function.cwes),
        "pattern": f"{cwe} {tree.short_name(cwe)}".strip(),
        "language": function.language,
        "row": function.where.rpartition("/")[2],
    }
    for name, value in (("pair", function.pair_id), ("commit", function.commit), ("labels_by", labels_by)):
        if value:
            detail[name] = value
    return Task(
        task_id=f"{set_name}/{function.function_id}",
        kind=Kind.CLASSIFY,
        files={path: function.code},
        description=DESCRIPTION,
        hints=Hints(exact_lines=tuple(Line(path=path, number=n, text=texts[n - 1]) for n in function.lines or ())),
        oracle=VULNERABLE if function.vulnerable else BENIGN,
        split=split,
        problem=problem,
        origin=Origin(source=source, detail=detail),
        licence=function.licence,
    )


def _pair(task: Task) -> str:
    return str(task.origin.detail.get("pair", f"\0{task.task_id}"))


def _stamped(task: Task, stamp: Mapping[str, Any]) -> Task:
    origin = task.origin.model_copy(update={"detail": {**task.origin.detail, **stamp}})
    return task.model_copy(update={"origin": origin})
