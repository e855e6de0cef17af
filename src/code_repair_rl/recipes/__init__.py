"""A whole run in one readable YAML file: its typed schema, composed and overridden with Hydra."""

from code_repair_rl.recipes.compose import checked, compose, expand, read, shipped_recipes
from code_repair_rl.recipes.schema import (
    AgentSection,
    EvaluationSection,
    GrpoSection,
    LaunchSection,
    LoraSection,
    ModelSection,
    Recipe,
    SandboxSection,
    SftSection,
    TasksSection,
    TrackingSection,
)

__all__ = [
    "AgentSection",
    "EvaluationSection",
    "GrpoSection",
    "LaunchSection",
    "LoraSection",
    "ModelSection",
    "Recipe",
    "SandboxSection",
    "SftSection",
    "TasksSection",
    "TrackingSection",
    "checked",
    "compose",
    "expand",
    "read",
    "shipped_recipes",
]
