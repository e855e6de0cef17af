"""Benchmarks are run by hand and seldom; that they still start and end is seen here, not how fast anything is."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_the_whole_step_benchmark_times_both_ways() -> None:
    finished = subprocess.run(
        [sys.executable, str(BENCHMARKS / "grpo_step.py"), "--tiny", "--quick", "--json", "--threads", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    told = json.loads(finished.stdout.splitlines()[-1])
    assert all(ratio > 0 for ratio in told["ratios"].values())
    (case,) = told["details"]["cases"]
    assert {"prefill", "decode", "forward_backward", "optimiser", "whole"} <= case["ours"].keys()
