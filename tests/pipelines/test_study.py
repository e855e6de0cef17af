"""The study's units differ in what they are about and in nothing else, share a warm start, and merge into one table."""

import json
from pathlib import Path

from code_repair_rl.models import TINY_MODEL
from code_repair_rl.pipelines.journey import Stage, Watcher
from code_repair_rl.pipelines.parts import reward_of
from code_repair_rl.pipelines.results import page, read_records, study_table
from code_repair_rl.pipelines.study import UNITS, run_unit
from code_repair_rl.recipes import Recipe, compose
from code_repair_rl.runs import RunDir, RunListener, SilentListener


def test_units_differ_in_reward_and_control_only() -> None:
    recipes = [compose(f"study/{name}", ["seed=2"]).model_dump() for name in UNITS]
    for recipe in recipes:
        about = ("name", "description", "reward", "study", "control")
        assert {key: value for key, value in recipe.items() if key not in about} == {
            key: value for key, value in recipes[0].items() if key not in about
        }
        assert recipe["grpo"]["max_minutes"] is not None
    assert [recipe["study"] for recipe in recipes] == [False, False, True, False], (
        "only text similarity breaks the rule"
    )
    assert [recipe["control"] for recipe in recipes] == [True, False, False, False]
    assert reward_of(compose("study/similarity-only")).weights.passed == 0.0
    assert reward_of(compose("study/tests-only")).weights.applied == 0.0


class Log(Watcher):
    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, stage: Stage) -> RunListener:
        self.stages.append(stage.name)
        return SilentListener()


def test_units_share_their_warm_start_leave_records_and_are_done_once(task_file: Path, tmp_path: Path) -> None:
    def unit(name: str) -> Recipe:
        smoke = compose(
            "smoke",
            [
                f"model.name={TINY_MODEL}",
                f"tasks.name={task_file}",
                "grpo.max_minutes=0.02",
                "evaluation.forgetting_tasks=2",
            ],
        )
        shape = compose(f"study/{name}")
        about = {key: getattr(shape, key) for key in ("name", "description", "reward", "study", "control")}
        return smoke.model_copy(update=about)

    folder, results = tmp_path / "study", tmp_path / "results"
    kept = [run_unit(unit(name), folder, results, Log()) for name in ("sft-longer", "tests-only")]
    assert [path.name for path in kept] == ["study-sft-longer-seed0.json", "study-tests-only-seed0.json"]
    records = read_records(results)
    assert [set(record["models"]) for record in records] == [{"sft", "control"}, {"sft", "grpo"}]
    assert records[0]["models"]["sft"] == records[1]["models"]["sft"]
    assert records[0]["training"]["sft"] == records[1]["training"]["sft"]
    assert [set(record["forgetting"]) for record in records] == [{"base", "sft", "control"}, {"base", "sft", "grpo"}]
    assert records[0]["forgetting"]["sft"] == records[1]["forgetting"]["sft"]
    assert len(list(folder.glob("study-warm-start-*"))) == 1
    before = kept[1].read_text()
    steps = len(RunDir.open(folder / "study-tests-only-seed0" / "grpo").metrics())
    run_unit(unit("tests-only"), folder, results, Log())
    assert kept[1].read_text() == before
    assert len(RunDir.open(folder / "study-tests-only-seed0" / "grpo").metrics()) == steps
    written = page(records)
    assert "study-tests-only against study-sft-longer | 1 |" in written
    assert "## `study-tests-only`" in written


def test_the_table_grows_with_the_records_there_are(tmp_path: Path) -> None:
    def record(name: str, seed: int, passed: list[int], model: str = "grpo") -> dict[str, object]:
        return json.loads(  # type: ignore[no-any-return]
            json.dumps(
                {
                    "recipe": {"name": name, "seed": seed},
                    "asked": {"tasks_sha256": "x"},
                    "problems": ["a", "b", "c", "d"],
                    "models": {
                        model: {"passed": passed, "graded": [4] * 4, "pass_at": {"1": [sum(passed) / 16, 0, 1]}}
                    },
                }
            )
        )

    one = [record("study-tests-only", 0, [4, 0, 2, 2])]
    assert study_table(one) == ""
    other = record("study-sft-longer", 1, [0, 0, 0, 0], "control")
    assert "against" not in study_table([*one, other]), "no seed in common: nothing can be paired"
    same = record("study-sft-longer", 0, [2, 0, 2, 0], "control")
    table = study_table([*one, same, other])
    assert "| study-tests-only | 1 | 50.0 % | – |" in table
    assert "| study-sft-longer | 2 | 12.5 % | – |" in table
    assert "| study-sft-longer against study-tests-only | 1 | -25.0 [" in table
