"""Classification tasks for tests."""

from __future__ import annotations

from code_repair_rl.tasks import Hints, Kind, Line, Origin, Split, Task

CODE = (
    "def find(cursor, name):\n"
    "    query = \"SELECT * FROM users WHERE name = '%s'\" % name\n"
    "    cursor.execute(query)\n"
    "\n"
    "    rows = cursor.fetchall()\n"
    "    return rows\n"
)


def labelled(
    label: str = "vulnerable",
    *,
    lines: tuple[int, ...] = (2,),
    code: str = CODE,
    task_id: str = "t",
    problem: str = "p",
    split: Split = Split.TEST,
    labels: tuple[str, ...] | None = None,
    cwe: str = "CWE-89",
    pair: str | None = None,
) -> Task:
    detail: dict[str, object] = {"cwes": [cwe], "language": "python", "pattern": f"{cwe} SQL Injection"}
    if labels is not None:
        detail["labels"] = list(labels)
    if pair is not None:
        detail["pair"] = pair
    texts = code.splitlines()
    return Task(
        task_id=task_id,
        kind=Kind.CLASSIFY,
        files={"code.py": code},
        description="Is this code vulnerable?",
        hints=Hints(exact_lines=tuple(Line(path="code.py", number=n, text=texts[n - 1]) for n in lines)),
        oracle=label,
        split=split,
        problem=problem,
        origin=Origin(source="test", detail=detail),
        licence="CC0-1.0",
    )
