"""Verdict and text to one number, or None.

reward = Reward(RewardWeights.from_recipe(recipe["reward"]))
value = reward(task, completion_text, verdict)
value.total          # None where there is no verdict
"""

from code_repair_rl.rewards.reward import Reward, RewardValue
from code_repair_rl.rewards.style import style_conformity
from code_repair_rl.rewards.terms import changes_code
from code_repair_rl.rewards.weights import RewardWeights

__all__ = ["Reward", "RewardValue", "RewardWeights", "changes_code", "style_conformity"]
