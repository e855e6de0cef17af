"""Did it work: verdicts on answers."""

from code_repair_rl.grading.verdict import GRADER_VERSION, Outcome, TestResult, TestStatus, Verdict

__all__ = ["GRADER_VERSION", "Outcome", "TestResult", "TestStatus", "Verdict"]
