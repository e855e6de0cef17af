"""Write docs/release-tasks.md: every task of the built set `releases`, with what is taken back and the tests that tell.

python scripts/list_release_tasks.py
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from code_repair_rl.home import write_atomically
from code_repair_rl.tasks import RepositoryTests, Task, load_tasks

PAGE = Path(__file__).parent.parent / "docs" / "release-tasks.md"
_SHOWN = 3
"""Names of tests in a row, at most."""


def main() -> None:
    """Write the page."""
    pairs: dict[str, list[Task]] = defaultdict(list)
    for task in load_tasks("releases"):
        older = task.origin.detail["from_version"]
        pairs[f"{task.origin.source} {older} to {task.origin.version}"].append(task)
    count = sum(map(len, pairs.values()))
    packages = {name.split()[0] for name in pairs}
    lines = [
        "# The tasks of `releases`",
        "",
        f"{count} fixes of {len(packages)} packages, taken back one by one ([how](tasks.md#releases)). F2P: the tests",
        "that fail without the fix and pass with it. Written by `python scripts/list_release_tasks.py` from what",
        "`crrl tasks build releases` made.",
    ]
    for name, tasks in sorted(pairs.items()):
        lines += ["", f"## {name}", "", "| taken back | lines | F2P | which |", "| --- | --- | --- | --- |"]
        lines += [_row(task) for task in tasks]
    write_atomically(PAGE, "\n".join([*lines, ""]))


def _row(task: Task) -> str:
    assert isinstance(task.tests, RepositoryTests)
    units = [unit.replace("::", ": ") for unit in task.origin.detail["units"]]
    failing = task.tests.fail_to_pass
    more = f"<br>and {len(failing) - _SHOWN} more" if len(failing) > _SHOWN else ""
    return (
        f"| {_code(units)} | {task.origin.detail['changed_lines']} | {len(failing)} | {_code(failing[:_SHOWN])}{more} |"
    )


def _code(texts: Sequence[str]) -> str:
    return "<br>".join(f"`{text.replace('|', chr(92) + '|')}`" for text in texts)


if __name__ == "__main__":
    main()
