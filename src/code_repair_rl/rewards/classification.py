"""What a label with its cited lines is worth.

The right label gets 1, less what the evidence lacks; a wrong one its form and, where it is a near relation in the tree
of weaknesses, part of the label's weight. Evidence never helps a wrong label: right lines for a wrong reason are no
reason.
"""

from __future__ import annotations

from collections.abc import Mapping

from code_repair_rl.grading.classification import Finding, examine
from code_repair_rl.rewards.terms import answer_format_term, length_term
from code_repair_rl.rewards.weights import RewardWeights
from code_repair_rl.tasks.classification import known_good_answer
from code_repair_rl.tasks.cwe import cwe_tree
from code_repair_rl.tasks.task import Task


def classification_terms(
    task: Task,
    text: str,
    weights: RewardWeights,
    *,
    completion_tokens: int | None,
    max_new_tokens: int | None,
    all_terms: bool = False,
) -> dict[str, float]:
    """The terms of one answer, each in [0, 1].

    `label` is 1 for the right one, else the nearness of the CWEs; `evidence` is left out where the lines that decide
    are not known.
    """
    found = examine(task, text)
    terms = {"format": answer_format_term(found.error), "label": 1.0 if found.right else 0.0, "applied": 0.0}
    if (all_terms or weights.label > 0) and not found.right:
        terms["label"] = label_nearness(task, found)
    if found.evidence is not None:
        terms["evidence"] = found.evidence.corrected
    if completion_tokens is not None and max_new_tokens is not None and (all_terms or weights.length > 0):
        terms["length"] = length_term(text, known_good_answer(task), completion_tokens, max_new_tokens)
    return terms


def classification_total(weights: RewardWeights, terms: Mapping[str, float], passed: bool) -> float:
    """The worth of an answer from its terms."""
    too_long = weights.length * (1.0 - terms.get("length", 1.0))
    if passed:
        return 1.0 - weights.evidence * (1.0 - terms.get("evidence", 1.0)) - too_long
    return max(0.0, weights.format * terms["format"] + weights.label * terms["label"] - too_long)


def label_nearness(task: Task, found: Finding) -> float:
    """How near a wrong CWE is to the right one, below 1; 0 where one of the two labels is no CWE."""
    answered, wanted = found.label or "", str(task.oracle)
    if not answered.startswith("CWE-") or not wanted.startswith("CWE-"):
        return 0.0
    return cwe_tree().nearness(answered, wanted) if answered != wanted else 0.0
