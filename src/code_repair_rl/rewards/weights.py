"""What each part of a reward is worth, and the limits within which a reward stays honest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from code_repair_rl.errors import BadInput

LEAST_GAP = 0.05
"""Least distance between the worst passing and the best failing answer that weights may leave."""


@dataclass(frozen=True, slots=True)
class RewardWeights:
    """The weights of a reward; the default is 1 for a pass, 0.1 for an answer that changed code but failed, else 0.

    A passing answer gets 1, less `evidence` … `length` times what it lacks in them. A failing one gets the sum of
    `applied` … `label` times its terms. So that no failing answer outranks a passing one, the weights together
    may not exceed `1 - LEAST_GAP`.

    Raises:
        BadInput: a weight is negative or no number, or the weights together are too large, or a study's weight is set
            without `study`.
    """

    applied: float = 0.1
    """For an answer that was applied and changed code (not only comments or white space)."""
    format: float = 0.0
    """For how well-formed the answer is, from the kind of its failure."""
    gain: float = 0.0
    """For the share of the way to the oracle that the edit went (`edit_gain`)."""
    files: float = 0.0
    """For editing the oracle's files (F1)."""
    lines: float = 0.0
    """For editing the oracle's lines (F1)."""
    style: float = 0.0
    """For keeping to the conventions of the surrounding code (`style_conformity`), times the gain: for tasks without
    tests."""
    visible: float = 0.0
    """For the share of the visible tests that pass: progress that an agent can see."""
    habits: float = 0.0
    """For how an agent went about it: calls that can be read, nothing done twice (`attempt_terms` of the rollouts)."""
    label: float = 0.0
    """For a wrong CWE that is near the right one in the tree of weaknesses. Classification only."""
    evidence: float = 0.0
    """Taken from a right label whose cited lines are not those that the real fix changed. Classification only."""
    turns: float = 0.0
    """Taken from an agent's passing attempt that needed more than one answer, in full at the most it may have."""
    economy: float = 0.0
    """Taken from a passing answer whose edit is larger than the oracle's."""
    length: float = 0.0
    """Taken from an answer whose text is longer than the oracle's, in full at `max_new_tokens`."""
    study: bool = False
    """Allow weights that break the rules, for comparison only: the reward is then the plain weighted sum of all terms,
    and every value is stamped."""
    passed: float = 1.0
    """For passing. Other than 1 only in a study."""
    similarity: float = 0.0
    """For plain similarity to the oracle, which pays for doing nothing. Only in a study."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "study":
                if not isinstance(value, bool):
                    raise BadInput(f"study is true or false, not {value!r}", where="reward.study")
            elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise BadInput(
                    f"a weight is a number from 0 up, not {value!r}",
                    where=f"reward.{field.name}",
                    mend="leave the key out for its default, or set it to 0 to switch the term off",
                )
        if not self.study:
            self._check_rule()

    def _check_rule(self) -> None:
        if self.passed != 1.0 or self.similarity != 0.0:
            raise BadInput(
                "a pass is worth 1 and plain similarity nothing, except in a study",
                where="reward.passed" if self.passed != 1.0 else "reward.similarity",
                mend="use `gain` for the way to the oracle, or set `study: true` in a recipe under recipes/study/",
            )
        together = self.best_failing + self.passed - self.worst_passing
        if together > 1 - LEAST_GAP + 1e-9:
            raise BadInput(
                f"the weights together are {together:g}, so that a failing answer could come within {LEAST_GAP} of a "
                "passing one",
                where="reward",
                mend=f"lower them to at most {1 - LEAST_GAP:g} together",
            )

    @property
    def best_failing(self) -> float:
        """The most that an answer which fails its tests can get."""
        edit = self.applied + self.format + self.gain + self.files + self.lines + self.style
        return edit + self.visible + self.habits + self.label

    @property
    def worst_passing(self) -> float:
        """The least that an answer which passes its tests can get."""
        return self.passed - self.evidence - self.turns - self.economy - self.length

    @classmethod
    def from_recipe(cls, values: Mapping[str, Any], *, where: str = "reward") -> RewardWeights:
        """Weights from the `reward` part of a recipe; keys that are left out keep their defaults.

        Raises:
            BadInput: an unknown key, or values that the class refuses.
        """
        known = {field.name for field in fields(cls)}
        for key in values:
            if key not in known:
                raise BadInput(
                    f"there is no weight {key!r}", where=where, mend=f"the weights are {', '.join(sorted(known))}"
                )
        return cls(**values)
