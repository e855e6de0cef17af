"""How completions are made."""

from code_repair_rl.rollouts.completion import Completion, Engine, FinishReason, Message, Sampling

__all__ = ["Completion", "Engine", "FinishReason", "Message", "Sampling"]
