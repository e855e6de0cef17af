"""What people look at: the HTML report, live display and experiment trackers."""

from code_repair_rl.reporting.report import report

__all__ = ["report"]
