"""The run directory: layout, schemas, atomic writes, reading back, and how a run tells the world."""

from code_repair_rl.runs.checkpoints import Checkpoint
from code_repair_rl.runs.differences import alike, changed_keys
from code_repair_rl.runs.directory import FINISHED, RunDir
from code_repair_rl.runs.listener import CompositeListener, RunListener, RunRecorder, SilentListener
from code_repair_rl.runs.metrics import STEP_SECONDS, MetricsRow, report_times, training_seconds
from code_repair_rl.runs.rows import RolloutRow, TestRecord, ToolCall, Turn, read_rows, write_rows

__all__ = [
    "FINISHED",
    "STEP_SECONDS",
    "Checkpoint",
    "CompositeListener",
    "MetricsRow",
    "RolloutRow",
    "RunDir",
    "RunListener",
    "RunRecorder",
    "SilentListener",
    "TestRecord",
    "ToolCall",
    "Turn",
    "alike",
    "changed_keys",
    "read_rows",
    "report_times",
    "training_seconds",
    "write_rows",
]
