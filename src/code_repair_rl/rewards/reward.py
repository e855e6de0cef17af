"""From a verdict and a text to one number, or None.

The rule that every reward here keeps (studies excepted): the oracle gets 1 and nothing gets more; an answer that
changes nothing, and garbage, get 0; no answer that fails the tests gets as much as one that passes them; and where
there is no verdict there is no number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from code_repair_rl.edits import (
    EditError,
    Tolerance,
    diff,
    edit_gain,
    file_localisation,
    line_localisation,
    parse,
    similarity,
)
from code_repair_rl.grading.verdict import Outcome, Verdict
from code_repair_rl.rewards.classification import classification_terms, classification_total
from code_repair_rl.rewards.style import style_conformity
from code_repair_rl.rewards.terms import changes_code, economy_term, format_term, length_term, visible_term
from code_repair_rl.rewards.weights import RewardWeights
from code_repair_rl.tasks.task import Task

_COMPARING = ("gain", "files", "lines", "style", "economy", "length", "similarity")
"""Terms that compare with the oracle: worked out only where they have a weight, or where all are asked for."""

_SHAPING = ("applied", "format", "gain", "files", "lines", "style", "visible", "habits", "label")
"""Terms that a study's total adds up."""


@dataclass(frozen=True, slots=True)
class RewardValue:
    """What one answer is worth."""

    total: float | None
    """In [0, 1]; None where there is no verdict. (A study's may lie outside.)"""
    terms: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Each term in [0, 1], before its weight; only those that were worked out."""
    study: bool = False
    """Stamped where the weights break the rule: never to be compared with other recipes' rewards."""


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward function, made once from its weights."""

    weights: RewardWeights = field(default_factory=RewardWeights)
    all_terms: bool = False
    """Work out the terms without a weight too, for reports."""

    @classmethod
    def study(cls, weights: RewardWeights, *, all_terms: bool = False) -> Reward:
        """A reward that may break the rule: the plain weighted sum of the terms, stamped in every value."""
        return cls(replace(weights, study=True), all_terms)

    def __call__(
        self,
        task: Task,
        completion_text: str,
        verdict: Verdict,
        *,
        completion_tokens: int | None = None,
        max_new_tokens: int | None = None,
        attempt: Mapping[str, float] = MappingProxyType({}),
    ) -> RewardValue:
        """The worth of one answer.

        Args:
            task: what was asked.
            completion_text: the whole answer.
            verdict: what grading it found.
            completion_tokens: length of the answer; with `max_new_tokens` it makes the length term.
            max_new_tokens: the longest that an answer could be.
            attempt: how an agent came to the answer: its terms `turns` and `habits`, each in [0, 1].
        """
        if verdict.score is None:
            return RewardValue(None, study=self.weights.study)
        terms = {"passed": 1.0 if verdict.passed else 0.0, "format": format_term(verdict)}
        if isinstance(task.oracle, str):
            terms |= classification_terms(
                task,
                completion_text,
                self.weights,
                completion_tokens=completion_tokens,
                max_new_tokens=max_new_tokens,
                all_terms=self.all_terms,
            )
        else:
            terms |= self._edit_terms(task, completion_text, verdict, completion_tokens, max_new_tokens)
            terms |= {**visible_term(verdict), **attempt}
        total = self._study_total(terms) if self.weights.study else self._total(task, terms, verdict)
        return RewardValue(total, MappingProxyType(terms), self.weights.study)

    def _total(self, task: Task, terms: Mapping[str, float], verdict: Verdict) -> float:
        weights = self.weights
        if isinstance(task.oracle, str):
            return classification_total(weights, terms, verdict.passed)
        too_long = weights.length * (1.0 - terms.get("length", 1.0))
        if verdict.passed:
            too_many = weights.turns * (1.0 - terms.get("turns", 1.0))
            return 1.0 - weights.economy * (1.0 - terms.get("economy", 1.0)) - too_many - too_long
        changed = terms["applied"] > 0
        if not changed and verdict.outcome is not Outcome.EDIT_REJECTED:
            return 0.0  # changes nothing, or tampers
        partial = weights.format * terms["format"]
        if changed:
            partial += weights.applied
            partial += weights.gain * terms.get("gain", 0.0)
            partial += weights.files * terms.get("files", 0.0) + weights.lines * terms.get("lines", 0.0)
            partial += weights.style * terms.get("style", 0.0)
            partial += weights.visible * terms.get("visible", 0.0) + weights.habits * terms.get("habits", 0.0)
        return max(0.0, partial - too_long)

    def _study_total(self, terms: Mapping[str, float]) -> float:
        """The plain weighted sum; what a term lacks is deducted for economy and length, as elsewhere."""
        total = 0.0
        for name in ("passed", *_SHAPING, "similarity"):
            total += getattr(self.weights, name) * terms.get(name, 0.0)
        for name in ("evidence", "turns", "economy", "length"):
            total -= getattr(self.weights, name) * (1.0 - terms.get(name, 1.0))
        return total

    def _edit_terms(
        self,
        task: Task,
        text: str,
        verdict: Verdict,
        completion_tokens: int | None,
        max_new_tokens: int | None,
    ) -> dict[str, float]:
        assert not isinstance(task.oracle, str)
        wanted = {name for name in _COMPARING if self.all_terms or getattr(self.weights, name) > 0}
        answered = _answered(task, text, verdict)
        paths = {*task.oracle, *answered}
        before = {path: task.files[path] for path in paths if path in task.files}
        oracle = _overlaid(before, task.oracle)
        after = _overlaid(before, answered)
        tampered = verdict.outcome is Outcome.TAMPERED
        terms = {"applied": 1.0 if not tampered and changes_code(before, after) else 0.0}
        if wanted & {"gain", "style"}:
            gain = edit_gain(before, after, oracle)
            if "gain" in wanted:
                terms["gain"] = gain
            if "style" in wanted:
                # By the gain: nobody lives on well-styled code that leads nowhere.
                terms["style"] = gain * style_conformity(before, after) if gain > 0 else 0.0
        if "files" in wanted:
            terms["files"] = file_localisation(before, after, oracle).f1
        if "lines" in wanted:
            terms["lines"] = line_localisation(before, after, oracle).f1
        if "similarity" in wanted:
            terms["similarity"] = similarity(after, oracle)
        if "economy" in wanted:
            terms["economy"] = economy_term(before, after, oracle)
        if "length" in wanted and completion_tokens is not None and max_new_tokens is not None:
            oracle_text = str(diff(before, oracle))
            terms["length"] = length_term(text, oracle_text, completion_tokens, max_new_tokens)
        return terms


def _answered(task: Task, text: str, verdict: Verdict) -> dict[str, str | None]:
    """The files that the answer changes, as grading applied it; none where it was not applied."""
    if not verdict.applied or verdict.outcome is Outcome.UNCHANGED:
        return {}
    try:
        tolerance = Tolerance(verdict.tolerance) if verdict.tolerance else Tolerance.EXACT
        return parse(text).changes(task.files, tolerance=tolerance).texts
    except EditError:
        return {}  # the verdict is on another text than this: nothing is known of its edit


def _overlaid(before: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    after = {path: text for path, text in before.items() if path not in changes}
    after.update({path: text for path, text in changes.items() if text is not None})
    return after
