"""The edit engine beside difflib, in one run on one core: comparing, building, and reading with applying.

difflib is compared as reward functions use it: on characters (`SequenceMatcher(None, a, b, autojunk=False).ratio()`)
and on lines. The files are the first lines of the standard library's `heapq` and `argparse`; the edits are five
changed lines, or a third of all lines.
"""

from __future__ import annotations

import argparse
import difflib
import json
import random
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from code_repair_rl.edits import EditError, diff, edit_gain, parse, similarity

SEED = 0


def seconds_of(work: Callable[[], object], repeats: int) -> float:
    """The least CPU time of one call, in seconds: other work on the machine only ever adds."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def source(name: str, lines: int) -> str:
    text = (Path(sysconfig.get_paths()["stdlib"]) / name).read_text()
    return "".join(text.splitlines(keepends=True)[:lines])


def edited(text: str, changes: int, seed: int) -> str:
    lines = text.split("\n")
    chance = random.Random(seed)
    for number in chance.sample([n for n, line in enumerate(lines) if line.strip()], changes):
        lines[number] = lines[number].replace("e", "ee", 1) + "  + 1"
    return "\n".join(lines)


def compared(before: str, changes: int, quick: bool) -> dict[str, float]:
    """CPU seconds for one comparison of two versions of a file, and for building the edit between them."""
    oracle, answer = edited(before, changes, SEED), edited(before, changes, SEED + 1)
    trees = {"a.py": before}, {"a.py": answer}, {"a.py": oracle}
    few, many = 1, 5 if quick else 30
    return {
        "similarity": seconds_of(lambda: similarity(trees[1], trees[2]), many),
        "edit_gain": seconds_of(lambda: edit_gain(*trees), many),
        "difflib_characters": seconds_of(
            lambda: difflib.SequenceMatcher(None, answer, oracle, autojunk=False).ratio(), few
        ),
        "difflib_lines": seconds_of(
            lambda: difflib.SequenceMatcher(None, answer.split("\n"), oracle.split("\n"), autojunk=False).ratio(), many
        ),
        "diff": seconds_of(lambda: diff(trees[0], trees[2]), many),
        "difflib_unified": seconds_of(
            lambda: list(difflib.unified_diff(before.split("\n"), oracle.split("\n"), lineterm="")), many
        ),
    }


def answers_per_second(before: str, quick: bool) -> float:
    """Typical answers (some prose, one or two blocks, in a fence) read and applied to a function's file."""
    tree = {"solution.py": before}
    answers = []
    for seed in range(50):
        patch = diff(tree, {"solution.py": edited(before, 1 + seed % 2, seed)})
        answers.append(f"The comparison is off by one, so I change it:\n\n```python\n{patch}```\nThat is all.\n")
    rounds = 10 if quick else 60

    def work() -> None:
        for _ in range(rounds):
            for answer in answers:
                parse(answer).apply(tree)

    return rounds * len(answers) / seconds_of(work, 3)


def seconds_per_megabyte(megabytes: float, quick: bool) -> float:
    block = "a.py\n<<<<<<< SEARCH\n{}\n=======\n    y = 2\n>>>>>>> REPLACE\n" + "Some prose between the blocks.\n" * 20
    count = int(megabytes * 1_000_000 / len(block))
    text = "".join(block.format(f"    x = {number}") for number in range(count))

    def work() -> None:
        try:
            parse(text)
        except EditError as error:
            raise SystemExit(f"the benchmark's own text was refused: {error}") from error

    return seconds_of(work, 2 if quick else 5) / (len(text) / 1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    parse(str(diff({"a": "b\nc\n"}, {"a": "d\nc\n"})))  # imports are not part of any figure

    file_of_600 = source("heapq.py", 600)
    small = compared(file_of_600, 5, options.quick)
    lines = 200 if options.quick else 600  # a third changed costs difflib minutes on slow machines
    large = compared(source("heapq.py", lines), lines // 3, options.quick)
    rate = answers_per_second(source("bisect.py", 60), options.quick)
    scaling = {f"{size} MB": seconds_per_megabyte(size, options.quick) for size in (0.5, 2, 8)}
    result = {
        "ratios": {
            "similarity vs difflib characters, 600 lines, 5 changed": small["difflib_characters"] / small["similarity"],
            f"similarity vs difflib characters, {lines} lines, a third changed": large["difflib_characters"]
            / large["similarity"],
            "answers parsed and applied vs 10,000 per second": rate / 10_000,
        },
        "details": {
            "cpu_seconds_5_of_600_lines_changed": small,
            "cpu_seconds_a_third_of_lines_changed": large,
            "answers_parsed_and_applied_per_second": rate,
            "parse_seconds_per_megabyte": scaling,
            "diff vs difflib.unified_diff, 5 changed": small["difflib_unified"] / small["diff"],
            "diff vs difflib.unified_diff, a third changed": large["difflib_unified"] / large["diff"],
            "similarity (tokens) vs difflib (lines), 5 changed": small["difflib_lines"] / small["similarity"],
            "similarity (tokens) vs difflib (lines), a third changed": large["difflib_lines"] / large["similarity"],
        },
    }
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name, ratio in result["ratios"].items():
        print(f"{name:60} {ratio:10.1f} x")
    for name, value in result["details"].items():
        for key, figure in value.items() if isinstance(value, dict) else [("", value)]:
            print(f"{f'{name} {key}':60} {figure:10.5g}")


if __name__ == "__main__":
    main()
