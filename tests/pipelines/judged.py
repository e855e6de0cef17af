"""Journeys that have been judged, without the hours: run directories with evaluations in them."""

from pathlib import Path

from code_repair_rl.evaluation import EvalResult, SampleResult, TaskResult
from code_repair_rl.recipes import compose
from code_repair_rl.runs import RunDir

PASSES = {"base": [0, 0, 0, 0], "sft": [1, 0, 2, 1], "control": [1, 1, 2, 1], "grpo": [2, 1, 3, 1]}
"""How many of four answers passed, by model and task."""


def result(name: str, passes: list[int], samples: int = 4) -> EvalResult:
    def sample(passed: bool) -> SampleResult:
        outcome = "passed" if passed else "failed"
        return SampleResult(outcome, passed, True, True, True, False, 20, True)

    tasks = tuple(
        TaskResult(f"t{n}", f"p{n % 3}", "comparison", 5, tuple(sample(i < passed) for i in range(samples)))
        for n, passed in enumerate(passes)
    )
    return EvalResult(
        name, "a-model", "set", "test", "digest", "exact-line", samples, 0.8, 96, 0, "bubblewrap", "1", 1.0, tasks
    )


def journey(folder: Path, seed: int, results: dict[str, EvalResult], recipe: str = "cpu-hour") -> RunDir:
    settings = compose(recipe, [f"seed={seed}"]).model_dump(mode="json")
    run = RunDir.create(folder, settings, resume=False)
    for name, found in results.items():
        run.write_eval(name, found.to_json())
    for stage in ("sft", "grpo", "control"):
        inner = RunDir.create(folder / stage, settings, resume=False)
        for step in (1, 2):
            inner.append_metrics(step, {"time/step_seconds": 30.0, "pass_rate": 0.1 * step, "noise": 1.0})
    return run
