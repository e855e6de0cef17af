"""pass@k, intervals, paired comparison."""

from code_repair_rl.evaluation.comparison import (
    Comparison,
    PairedDifference,
    compare,
    compare_pooled,
    detection_power,
    holm,
    mcnemar_exact,
    sentences,
    smallest_detectable,
)
from code_repair_rl.evaluation.estimates import Estimate, difference, pass_at_k, rate, wilson
from code_repair_rl.evaluation.loop import Progress, evaluate
from code_repair_rl.evaluation.result import EvalResult, SampleResult, Summary, TaskResult, breakdown, summary

__all__ = [
    "Comparison",
    "Estimate",
    "EvalResult",
    "PairedDifference",
    "Progress",
    "SampleResult",
    "Summary",
    "TaskResult",
    "breakdown",
    "compare",
    "compare_pooled",
    "detection_power",
    "difference",
    "evaluate",
    "holm",
    "mcnemar_exact",
    "pass_at_k",
    "rate",
    "sentences",
    "smallest_detectable",
    "summary",
    "wilson",
]
