import pytest
import torch
from peft import LoraConfig, get_peft_model
from typer.testing import CliRunner

from code_repair_rl.cli import app
from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.evaluation.result import EvalResult, SampleResult, TaskResult
from code_repair_rl.models import export, load_model, load_tokenizer, tiny_model, tiny_tokenizer
from code_repair_rl.models.export import Card, CardResult, export_model, push_model
from code_repair_rl.runs import RunDir

_CARD = Card(title="repairer", base="smollm2-135m-instruct", licence="apache-2.0")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "base"
    tiny_model(seed=1).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_an_adapter_is_merged_into_its_base(base, tmp_path):
    torch.manual_seed(0)
    adapted = get_peft_model(load_model(base), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    folder = export_model(tmp_path / "adapter", tmp_path / "out", _CARD)
    ids = torch.tensor([[4, 5, 6]])
    exported = load_model(folder)
    assert torch.allclose(exported(ids).logits, adapted.eval()(ids).logits, atol=1e-5)
    assert not (folder / "adapter_config.json").exists()
    assert len(load_tokenizer(folder)) == 259


def test_the_dtype_is_the_one_asked_for(base, tmp_path):
    folder = export_model(base, tmp_path / "out", _CARD, dtype="bfloat16")
    whole, half = ((path / "model.safetensors").stat().st_size for path in (base, folder))
    assert half < 0.6 * whole


def test_nothing_is_overwritten(base, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(BadInput, match="is there already"):
        export_model(base, tmp_path / "out", _CARD)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_folder_below_a_file_is_refused_before_the_model_is_loaded(base, tmp_path, monkeypatch):
    (tmp_path / "notes").write_text("kept")
    monkeypatch.setattr(export, "load_model", lambda *_: pytest.fail("it is refused before"))
    for destination in (tmp_path / "notes" / "out", tmp_path / "notes" / "deep" / "out"):
        with pytest.raises(BadInput, match="notes: this is a file"):
            export_model(base, destination, _CARD)


def test_a_card_tells_results_recipe_and_licence():
    found = CardResult("humaneval-bugs", "test", "exact-line", {1: (0.5, 0.4, 0.6), 4: (0.75, 0.7, 0.8)}, 64, 33, False)
    text = Card("t", "smollm2-135m-instruct", "apache-2.0", "seed: 3\n", "humaneval-bugs", [found]).render()
    assert text.startswith("---\nlicense: apache-2.0\n")
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in text
    assert "50.0% [40.0%, 60.0%] | 75.0% [70.0%, 80.0%]" in text
    assert "64 tasks, 33 problems, **answers ran without isolation**" in text
    assert "seed: 3" in text


def test_a_card_without_a_licence_says_so():
    text = Card("t", "someone/else", "unknown").render()
    assert "Licence:** not stated" in text
    assert "Not evaluated." in text


def _evaluation(model: str) -> EvalResult:
    sample = SampleResult("pass", True, True, True, True, False, 5, True)
    return EvalResult(
        name="grpo",
        model=model,
        task_set="humaneval-bugs",
        split="test",
        tasks_sha256="0",
        hint="exact-line",
        samples=1,
        temperature=0.8,
        max_new_tokens=64,
        seed=0,
        isolation="bubblewrap",
        grader_version="1",
        wall_seconds=1.0,
        tasks=tuple(TaskResult(f"t{n}", f"p{n}", "", 3, (sample,)) for n in range(4)),
    )


def test_a_journey_is_exported_with_its_results_and_its_first_base(base, tmp_path):
    journey = RunDir.create(tmp_path / "demo", {"model": {"name": str(base)}}, resume=False)
    sft = RunDir.create(tmp_path / "demo" / "sft", {"model": {"name": str(base)}}, resume=False)
    recipe = {"model": {"name": str(sft.path / "model")}, "tasks": {"name": "humaneval-bugs"}}
    grpo = RunDir.create(tmp_path / "demo" / "grpo", recipe, resume=False)
    for run in (sft, grpo):
        export_model(base, run.path / "model", _CARD)
    journey.write_eval("grpo", _evaluation(str(grpo.path / "model")).to_json())
    journey.write_eval("sft", _evaluation(str(sft.path / "model")).to_json())
    found = CliRunner().invoke(app, ["model", "export", str(journey.path), str(tmp_path / "out")])
    assert found.exit_code == 0, found.output
    text = (tmp_path / "out" / "README.md").read_text()
    assert "# demo" in text
    assert f"Trained from {base} with" in text
    assert text.count("humaneval-bugs test: 4 tasks, 4 problems") == 1
    assert "license: unknown" in text
    assert load_model(tmp_path / "out").config.vocab_size == 259


def test_a_run_without_a_model_is_not_exported(tmp_path):
    RunDir.create(tmp_path / "run", {"seed": 1}, resume=False)
    found = CliRunner().invoke(app, ["model", "export", str(tmp_path / "run"), str(tmp_path / "out")])
    assert isinstance(found.exception, BadInput)
    assert not (tmp_path / "out").exists()


def test_a_push_that_fails_leaves_the_export_and_says_where(base, tmp_path):
    """The suite runs offline, so every push fails."""
    folder = export_model(base, tmp_path / "out", _CARD)
    with pytest.raises(MachineryFailed, match="could not be pushed") as caught:
        push_model(folder, "owner/name", private=True)
    assert str(folder) in str(caught.value)
    assert (folder / "model.safetensors").is_file()
