"""Recorded runs of any size, written through the same doors as a real run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from code_repair_rl.evaluation import EvalResult, SampleResult, TaskResult
from code_repair_rl.runs import RolloutRow, RunDir, TestRecord, ToolCall, Turn, write_rows

BEFORE = '''def add_up(values, start=0):
    """Sum of the values."""
    total = start
    for value in values:
        # every value counts
        total -= value
    return total
'''
AFTER = BEFORE.replace("total -= value", "total += value")

HOSTILE = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
    "<svg onload=window.hacked=3></svg>&lt;b&gt; {{js}} <!-- --> \u202e ${window.hacked = 4}"
    " <a href='javascript:0'>x</a>"
    "<link rel=stylesheet href=http://127.0.0.1:9/x.css>"
)

OUTCOMES = ("passed", "failed", "edit-rejected", "syntax-error", "timeout", "no-verdict")


def rollout(rng: np.random.Generator, step: int, group: int, sample: int, pass_rate: float, text: str) -> RolloutRow:
    weights = np.array([pass_rate, *([(1 - pass_rate) / 5] * 5)])
    outcome = str(rng.choice(OUTCOMES, p=weights / weights.sum()))
    passed, verdict = outcome == "passed", outcome != "no-verdict"
    task = (step * 31 + group if step else group * 17) % 60
    count = int(rng.integers(20, 90))
    applied = outcome not in ("edit-rejected", "no-verdict")
    reward = (1.0 if passed else 0.1 if applied else 0.0) if verdict else None
    return RolloutRow(
        step=step,
        task_id=f"HumanEval/{task}-comparison-1",
        problem=f"HumanEval/{task % 20}",
        split="train" if step else "test",
        group=group,
        sample=sample,
        hint="exact-line",
        prompt=f"[system]\nYou repair code.\n\n[user]\nRepair task {task}:\n{BEFORE}",
        prompt_ids=tuple(range(40)),
        token_ids=tuple(int(i) for i in rng.integers(3, 900, count)),
        logprobs=tuple(float(x) for x in -rng.exponential(0.4, count)),
        text=text,
        finish_reason="stop" if rng.random() < 0.9 else "length",
        outcome=outcome,
        passed=passed,
        score=float(passed) if verdict else None,
        reward=reward,
        reward_terms={"tests": float(passed), "applied": float(applied)} if verdict else {},
        advantage=float(rng.normal()) if verdict and step else None,
        tests=tuple(
            TestRecord(name=f"add_up([{i}])", status="passed" if passed else "failed", visible=i < 2, detail=HOSTILE)
            for i in range(4)
        ),
        edit_error="search-not-found" if outcome == "edit-rejected" else None,
        tolerance="exact" if applied else None,
        evidence=(HOSTILE,) if not passed else (),
        wall_seconds=0.05,
        isolation="bubblewrap",
        patch="patch" if applied else None,
        files_before={"solution.py": BEFORE},
        files_after={"solution.py": AFTER.replace("values", f"values_{sample}") if sample else AFTER}
        if applied
        else {},
        operator="comparison" if task % 2 else "<img src=x onerror=window.hacked=5>",
        turns=conversation(text, count) if sample == 0 else None,
    )


def conversation(text: str, tokens: int) -> tuple[Turn, ...]:
    """A model that runs the tests, reads what they say, and answers; everything said is hostile."""
    call = ToolCall(name="run_tests", arguments='{"path": "' + HOSTILE + '"}', call_id="c1")
    return (
        Turn(role="assistant", text="Let me see." + HOSTILE, start=0, end=5, tool_calls=(call,)),
        Turn(role="tool", text="1 failed" + HOSTILE, start=5, end=10, call_id="c1"),
        Turn(role="assistant", text=text, start=10, end=tokens),
    )


def answer(rng: np.random.Generator) -> str:
    words = ["total", "+=", "value", "return", "if", "else", "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE", "\n"]
    return " ".join(str(rng.choice(words)) for _ in range(60)) + HOSTILE


def recorded_run(
    path: Path, *, steps: int = 6, groups: int = 4, group_size: int = 4, seed: int = 0, evaluations: bool = True
) -> RunDir:
    """A run of `steps * groups * group_size` rollouts whose answers get better, full of hostile text."""
    rng = np.random.default_rng(seed)
    run = RunDir.create(path, {"name": "<b>recipe</b>", "seed": seed, "tasks": {"hint": "exact-line"}}, resume=False)
    for step in range(1, steps + 1):
        rate = 0.3 + 0.4 * step / steps
        rows = [
            rollout(rng, step, group, sample, rate, answer(rng))
            for group in range(groups)
            for sample in range(group_size)
        ]
        run.write_rollouts(step, rows)
        run.append_metrics(step, {"loss/policy": math.exp(-step), "kl": 0.01 * step, "entropy": 1 / step})
    if evaluations:
        for name, rate in (("base", 0.1), ("sft", 0.4), ("grpo", 0.6)):
            run.write_eval(name, evaluation(name, rate, seed).to_json())
            rows = [rollout(rng, 0, group, sample, rate, answer(rng)) for group in range(3) for sample in range(2)]
            write_rows(run.eval_samples_path(name) / "batch-00000.parquet", rows)
    run.record_end("finished")
    return run


def evaluation(name: str, rate: float, seed: int, tasks: int = 60, samples: int = 4) -> EvalResult:
    rng = np.random.default_rng((seed, int(rate * 100)))
    spread = rng.beta(3 * rate + 1e-9, 3 * (1 - rate), 20)

    def one(passed: bool) -> SampleResult:
        outcome = "passed" if passed else "failed"
        return SampleResult(
            outcome=outcome,
            passed=passed,
            verdict=True,
            formatted=True,
            applied=True,
            truncated=False,
            tokens=30,
            right_place=passed,
            edit_precision=0.75 if passed else None,
        )

    return EvalResult(
        name=name,
        model=f"models/{name}<script>window.hacked=6</script>",
        task_set="humaneval-bugs",
        split="test",
        tasks_sha256="0" * 64,
        hint="exact-line",
        samples=samples,
        temperature=0.8,
        max_new_tokens=96,
        seed=0,
        isolation="bubblewrap",
        grader_version="1",
        wall_seconds=1.0,
        tasks=tuple(
            TaskResult(
                task_id=f"HumanEval/{i}-comparison-1",
                problem=f"HumanEval/{i % 20}",
                operator=("comparison", "boundary", "negation")[i % 3],
                lines=3 + i % 25,
                samples=tuple(one(bool(rng.random() < spread[i % 20])) for _ in range(samples)),
            )
            for i in range(tasks)
        ),
    )
