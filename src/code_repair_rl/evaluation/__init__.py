"""pass@k, intervals, paired comparison."""
