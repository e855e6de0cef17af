"""The rule for labels: the known-good answer gets 1 and nothing more, garbage 0; wrong labels stay below right ones."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_repair_rl.errors import BadInput
from code_repair_rl.grading.classification import classification_verdict
from code_repair_rl.rewards import Reward, RewardWeights
from code_repair_rl.rewards.weights import LEAST_GAP
from code_repair_rl.tasks import Task, oracle_answer
from code_repair_rl.tasks.classification import answer_text
from code_repair_rl.tasks.task import Line
from tests.rewards.test_rule import weights
from tests.tasks.labelled import CODE, labelled

_NUMBERS = st.sets(st.sampled_from([1, 2, 3, 5, 6]), max_size=5)


def _value(task: Task, text: str, chosen: RewardWeights, tokens: int | None = None) -> float:
    value = Reward(chosen, all_terms=True)(
        task, text, classification_verdict(task, text), completion_tokens=tokens, max_new_tokens=96
    )
    assert value.total is not None
    assert all(0.0 <= term <= 1.0 for term in value.terms.values()), value.terms
    return value.total


def _answer(label: str, numbers: set[int]) -> str:
    texts = CODE.splitlines()
    return answer_text(label, [Line(path="code.py", number=n, text=texts[n - 1]) for n in sorted(numbers)], "x")


@settings(max_examples=150)
@given(
    weights(),
    st.sampled_from(["benign", "vulnerable"]),
    _NUMBERS,
    _NUMBERS,
    _NUMBERS,
    st.one_of(st.none(), st.integers(1, 96)),
    st.text(),
)
def test_the_rule_holds_for_labels(
    chosen: RewardWeights,
    label: str,
    evidence: set[int],
    cited: set[int],
    cited_wrongly: set[int],
    tokens: int | None,
    garbage: str,
) -> None:
    task = labelled(label, lines=tuple(sorted(evidence or {2})))
    wrong_label = "benign" if label == "vulnerable" else "vulnerable"
    best = _value(task, oracle_answer(task), chosen, tokens)
    right = _value(task, _answer(label, cited or {1}), chosen, tokens)
    wrong = _value(task, _answer(wrong_label, cited_wrongly or {1}), chosen, tokens)
    assert best == 1.0
    assert right <= 1.0
    assert 0.0 <= wrong <= right - LEAST_GAP + 1e-6
    assert _value(task, garbage, chosen, tokens) == 0.0
    assert _value(task, "", chosen, tokens) == 0.0


def test_evidence_ranks_right_labels() -> None:
    task = labelled(lines=(2, 3))
    chosen = RewardWeights(applied=0, format=0.1, evidence=0.5)
    both, one, none, everything = (
        _value(task, _answer("vulnerable", numbers), chosen) for numbers in ({2, 3}, {2}, {5}, {1, 2, 3, 5, 6})
    )
    assert both == 1.0
    assert 1.0 > one > none == everything == 0.5


def test_right_lines_do_not_help_a_wrong_label() -> None:
    task = labelled("benign", lines=(2,))
    chosen = RewardWeights(applied=0, format=0.1, evidence=0.5)
    values = {_value(task, _answer("vulnerable", numbers), chosen) for numbers in ({2}, {6})}
    assert values == {0.1}


def test_a_broken_form_gets_part_of_the_format() -> None:
    task = labelled()
    chosen = RewardWeights(applied=0, format=0.2)
    assert _value(task, "<think></think><answer>odd</answer>", chosen) == pytest.approx(0.1)
    assert _value(task, "<think>line 1: def", chosen) == pytest.approx(0.05)


def test_evidence_counts_among_the_weights_that_the_rule_limits() -> None:
    with pytest.raises(BadInput, match="together"):
        RewardWeights(applied=0.1, label=0.4, evidence=0.5)
