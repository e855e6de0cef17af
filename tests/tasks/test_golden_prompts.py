"""The prompts that released models were trained on stay as they were, to the byte."""

from __future__ import annotations

import pytest

from code_repair_rl.tasks import HintLevel, Kind, RepositoryTests, messages, oracle_answer
from tests.tasks.examples import addition

HEAD = """\
Return the sum of a and b.
>>> add(1, 2)
3

```python
def add(a, b):
    return a - b
```
"""
TAIL = """
Answer with one edit block only:

<<<<<<< SEARCH
lines to replace
=======
new lines
>>>>>>> REPLACE"""
SUSPICIOUS = "\nSuspicious:\n    return a - b\n"
GOLDEN = {
    HintLevel.NONE: HEAD + TAIL,
    HintLevel.FAILING_CALL: HEAD + "\nFailing: add(1, 2) returns -1, expected 3\n" + TAIL,
    HintLevel.SUSPICIOUS_LINES: HEAD + SUSPICIOUS + TAIL,
    HintLevel.EXACT_LINE: HEAD + SUSPICIOUS + TAIL,
}


@pytest.mark.parametrize("level", HintLevel)
def test_a_repair_prompt_of_one_python_file_is_as_it_was(level: HintLevel) -> None:
    assert messages(addition(), level) == [
        {"role": "system", "content": "You fix the bug in Python code."},
        {"role": "user", "content": GOLDEN[level]},
    ]


def test_the_answer_hoped_for_is_as_it_was() -> None:
    assert oracle_answer(addition()) == ("<<<<<<< SEARCH\n    return a - b\n=======\n    return a + b\n>>>>>>> REPLACE")


def test_a_repository_prompt_is_as_it_was() -> None:
    task = addition().model_copy(
        update={
            "files": {"pkg/add.py": "def add(a, b):\n    return a - b\n", "pkg/other.py": "x = 1\n"},
            "oracle": {"pkg/add.py": "def add(a, b):\n    return a + b\n"},
            "tests": RepositoryTests(fail_to_pass=("tests/test_add.py::test_add",)),
            "description": "These tests fail:\n- tests/test_add.py::test_add",
        }
    )
    assert messages(task)[1]["content"] == (
        "These tests fail:\n- tests/test_add.py::test_add\n\npkg/add.py\n```python\ndef add(a, b):\n    return a - b\n"
        "```\n\nAnswer with edit blocks only, each after its path:\n\nPATH\n<<<<<<< SEARCH\nlines to replace\n=======\n"
        "new lines\n>>>>>>> REPLACE"
    )


def test_an_implement_prompt_is_as_it_was() -> None:
    task = addition().model_copy(update={"kind": Kind.IMPLEMENT})
    system, user = messages(task)
    assert system["content"] == "You write Python code that is missing."
    assert user["content"] == HEAD + "\nWrite what is missing." + TAIL


def test_other_languages_are_called_by_their_names() -> None:
    task = addition().model_copy(
        update={"files": {"a.c": "int f;\n", "b.txt": "x\n"}, "oracle": {"a.c": "int g;\n"}, "tests": None}
    )
    system, user = messages(task)
    assert system["content"] == "You fix the bug in C code."
    assert "a.c\n```c\nint f;\n```" in user["content"]
    mixed = task.model_copy(update={"oracle": {"a.c": "int g;\n", "b.txt": "y\n"}})
    assert messages(mixed)[0]["content"] == "You fix the bug in code."
