"""What people look at: the HTML report, live display and experiment trackers."""

from code_repair_rl.reporting.choose import listeners, trackers
from code_repair_rl.reporting.live import LiveDisplay, duration, sparkline
from code_repair_rl.reporting.report import write_report

__all__ = ["LiveDisplay", "duration", "listeners", "sparkline", "trackers", "write_report"]
