"""Memory, time and bottleneck of a run before it starts, from stated formulas. Loads no weights and no torch."""

from code_repair_rl.planning.architecture import Architecture, architecture, from_config
from code_repair_rl.planning.duration import Assumptions, Phase
from code_repair_rl.planning.plan import Knob, Plan, fewest_gpus, make_plan
from code_repair_rl.planning.workload import DEVICES, Device, Layout, Workload, device_named

__all__ = [
    "DEVICES",
    "Architecture",
    "Assumptions",
    "Device",
    "Knob",
    "Layout",
    "Phase",
    "Plan",
    "Workload",
    "architecture",
    "device_named",
    "fewest_gpus",
    "from_config",
    "make_plan",
]
