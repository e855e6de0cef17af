"""Where new tasks come from: bug injection, validation and quarantine.

from code_repair_rl.synthesis import build_set

report = build_set("humaneval-bugs")        # then load_tasks("humaneval-bugs")
"""

from code_repair_rl.synthesis.sets import SETS, BuildReport, SetInfo, build_info, build_set, quarantine_of
from code_repair_rl.synthesis.validation import Quarantined, validate, write_quarantine

__all__ = [
    "SETS",
    "BuildReport",
    "Quarantined",
    "SetInfo",
    "build_info",
    "build_set",
    "quarantine_of",
    "validate",
    "write_quarantine",
]
