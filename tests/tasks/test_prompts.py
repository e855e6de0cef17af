"""Prompts show what may be shown, say how to answer, and never a hidden example."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.edits import parse
from code_repair_rl.tasks import Example, HintLevel, Hints, Kind, has_hint, messages, oracle_answer
from tests.tasks.examples import FAULTY, addition


def whole(task_messages: list[dict[str, str]]) -> str:
    return "\n".join(message["content"] for message in task_messages)


def prompt(hint: HintLevel = HintLevel.NONE, **update: object) -> str:
    return whole([dict(message) for message in messages(addition().model_copy(update=update), hint)])  # type: ignore[arg-type]


def test_a_prompt_has_description_code_and_the_form_of_the_answer() -> None:
    text = prompt()
    assert "Return the sum of a and b." in text
    assert FAULTY in text
    assert "<<<<<<< SEARCH\n" in text
    assert "\n=======\n" in text
    assert text.endswith(">>>>>>> REPLACE")
    assert "solution.py" not in text


def test_each_level_tells_its_own_hint_and_no_other() -> None:
    assert "Suspicious" not in prompt()
    assert "Failing" not in prompt()
    assert "Failing: add(1, 2) returns -1, expected 3\n" in prompt(HintLevel.FAILING_CALL)
    assert "Suspicious:\n    return a - b\n" in prompt(HintLevel.SUSPICIOUS_LINES)
    assert "Suspicious:\n    return a - b\n" in prompt(HintLevel.EXACT_LINE)


def test_a_level_without_its_hint_is_asked_without_one() -> None:
    task = addition().model_copy(update={"hints": Hints()})
    for level in HintLevel:
        assert messages(task, level) == messages(task, HintLevel.NONE)
        assert has_hint(task, level) is (level is HintLevel.NONE)
        assert has_hint(addition(), level)


def test_several_files_are_shown_with_their_paths() -> None:
    text = prompt(HintLevel.EXACT_LINE, files={"solution.py": FAULTY, "pkg/b.py": "y = 2"})
    assert f"solution.py\n```python\n{FAULTY}```\npkg/b.py\n```python\ny = 2\n```\n" in text
    assert "solution.py:2\n    return a - b\n" in text
    assert "PATH\n<<<<<<< SEARCH" in text


def test_the_prompt_is_short_beside_what_it_shows() -> None:
    task = addition()
    shown = len(task.description) + len(FAULTY)
    assert len(prompt()) - shown < 250  # some 65 tokens


def test_an_implement_task_asks_for_what_is_missing() -> None:
    assert "Write what is missing." in prompt(kind=Kind.IMPLEMENT)


def test_a_classification_task_is_not_asked_for_an_edit() -> None:
    assert "SEARCH" not in prompt(kind=Kind.CLASSIFY)
    assert "<answer>" in prompt(kind=Kind.CLASSIFY)


@given(st.sampled_from(HintLevel), st.integers(10**9, 10**12))
def test_hidden_tests_never_enter_a_prompt(hint: HintLevel, secret: int) -> None:
    tests = addition().tests
    assert tests is not None
    hidden = (Example(call=f"add({secret}, 0)", expected=str(secret)),)
    check = f"def check(candidate):\n    assert candidate({secret}, 0) == {secret}\n"
    assert str(secret) not in prompt(hint, tests=tests.model_copy(update={"hidden": hidden, "check": check}))


def test_template_syntax_in_a_task_is_only_text() -> None:
    assert "{{ 1/0 }} {% raw %}" in prompt(description="{{ 1/0 }} {% raw %}")


def test_the_oracle_answer_is_one_block_without_a_path_that_leads_to_the_oracle() -> None:
    task = addition()
    answer = oracle_answer(task)
    assert answer == "<<<<<<< SEARCH\n    return a - b\n=======\n    return a + b\n>>>>>>> REPLACE"
    assert parse(answer).apply(task.files) == task.files_after_oracle()


def test_the_oracle_answer_names_paths_where_there_are_several_files() -> None:
    task = addition().model_copy(update={"files": {"solution.py": FAULTY, "b.py": "y = 2\n"}})
    assert oracle_answer(task).startswith("solution.py\n<<<<<<< SEARCH\n")
    assert parse(oracle_answer(task)).apply(task.files) == task.files_after_oracle()


def test_a_classification_task_has_no_oracle_edit() -> None:
    task = addition().model_copy(update={"oracle": "CWE-79"})
    assert "<answer>CWE-79</answer>" in oracle_answer(task)
    with pytest.raises(TypeError, match="label"):
        task.files_after_oracle()
