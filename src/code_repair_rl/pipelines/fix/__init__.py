"""Repair somebody's own code: find suspicious places, sample edits, keep the first that passes their tests.

Nothing of the project, and nothing that a model wrote, is executed outside the sandbox.
"""

from code_repair_rl.pipelines.fix.project import Project, copied_project, executed_lines
from code_repair_rl.pipelines.fix.regions import Region, region_around
from code_repair_rl.pipelines.fix.repair import Found, Search, Tally, question, repair
from code_repair_rl.pipelines.fix.suspects import Suspect, Why, given, located, statement_lines, traceback_lines

__all__ = [
    "Found",
    "Project",
    "Region",
    "Search",
    "Suspect",
    "Tally",
    "Why",
    "copied_project",
    "executed_lines",
    "given",
    "located",
    "question",
    "region_around",
    "repair",
    "statement_lines",
    "traceback_lines",
]
