"""pass@k, intervals, paired comparison."""

from code_repair_rl.evaluation.comparison import (
    ASKED_ALIKE,
    Comparison,
    Judged,
    PairedDifference,
    compare,
    compare_each,
    compare_pooled,
    detection_power,
    holm,
    mcnemar_exact,
    sentences,
    smallest_detectable,
)
from code_repair_rl.evaluation.equal_tokens import EqualTokens, at_equal_tokens
from code_repair_rl.evaluation.estimates import Estimate, difference, pass_at_k, rate, wilson
from code_repair_rl.evaluation.loop import Progress, evaluate
from code_repair_rl.evaluation.planning import Plan, plan, plan_from, planning_line, signal_line
from code_repair_rl.evaluation.result import (
    EvalResult,
    SampleResult,
    Summary,
    TaskResult,
    breakdown,
    by_difficulty,
    difficulties,
    summary,
)

__all__ = [
    "ASKED_ALIKE",
    "Comparison",
    "EqualTokens",
    "Estimate",
    "EvalResult",
    "Judged",
    "PairedDifference",
    "Plan",
    "Progress",
    "SampleResult",
    "Summary",
    "TaskResult",
    "at_equal_tokens",
    "breakdown",
    "by_difficulty",
    "compare",
    "compare_each",
    "compare_pooled",
    "detection_power",
    "difference",
    "difficulties",
    "evaluate",
    "holm",
    "mcnemar_exact",
    "pass_at_k",
    "plan",
    "plan_from",
    "planning_line",
    "rate",
    "sentences",
    "signal_line",
    "smallest_detectable",
    "summary",
    "wilson",
]
