"""Did it work: verdicts on answers.

from code_repair_rl.grading import Grader

with Grader(workers=2) as grader:
    verdicts = grader.grade_many([(task, completion_text), ...])
"""

from code_repair_rl.grading.grader import Grader, grade
from code_repair_rl.grading.verdict import Outcome, TestResult, TestStatus, Verdict, grader_version

__all__ = ["Grader", "Outcome", "TestResult", "TestStatus", "Verdict", "grade", "grader_version"]
