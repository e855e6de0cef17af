"""A plan's formulas: against real tiny models, against published GPU counts, and against common sense."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from code_repair_rl.errors import BadInput
from code_repair_rl.planning import (
    DEVICES,
    Assumptions,
    Layout,
    Workload,
    architecture,
    fewest_gpus,
    from_config,
    make_plan,
)
from code_repair_rl.planning.architecture import SHIPPED
from code_repair_rl.planning.duration import forward_flops
from code_repair_rl.planning.memory import saved_elements, training_memory
from code_repair_rl.planning.published import reproduce
from tests.cli.command import crrl

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS = [
    LlamaConfig(**SHAPE, tie_word_embeddings=True),
    LlamaConfig(**{**SHAPE, "num_hidden_layers": 2, "hidden_size": 64}, tie_word_embeddings=False),
    Qwen2Config(**SHAPE, tie_word_embeddings=True),
    Qwen3Config(**SHAPE, head_dim=32, tie_word_embeddings=False),
]
NAMES = ["llama-tied", "llama", "qwen2", "qwen3"]
GPU = DEVICES["a100-80gb"]


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_parameters_and_operations_are_those_of_the_real_model(config: PretrainedConfig) -> None:
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    shape = from_config(config.to_dict(), where="test")
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    rows, length = 2, 17
    ids = torch.randint(0, 300, (rows, length))
    with FlopCounterMode(display=False) as forward:
        model(ids)
    counted = forward.get_total_flops()
    # eager attention computes the whole square of each row
    assert counted == pytest.approx(forward_flops(shape, rows * length, rows * length**2, rows * length), rel=0.01)
    with FlopCounterMode(display=False) as both:
        model(ids).logits.sum().backward()
    assert both.get_total_flops() == pytest.approx(3 * counted, rel=0.01)


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_kept_activations_are_those_that_autograd_keeps(config: PretrainedConfig) -> None:
    """Counts every tensor saved for the backward pass of the layers once, parameters apart."""
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").model
    shape = from_config(config.to_dict(), where="test")
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = max(storage.nbytes(), kept.get(storage.data_ptr(), 0))
        return tensor

    tokens = 256
    held = []  # the graph must live, or storages would be reused under the same address
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held.append(model(torch.randint(0, 300, (1, tokens))).last_hidden_state)
    measured = sum(kept.values()) / 4 / tokens / shape.layers
    assert saved_elements(shape) == pytest.approx(measured, rel=0.15)


def test_shipped_architectures_have_the_sizes_in_their_names() -> None:
    published = {
        "qwen3-0.6b": 0.6,
        "qwen3-1.7b": 1.7,
        "qwen3-4b": 4.0,
        "qwen3-8b": 8.2,
        "qwen3-14b": 14.8,
        "qwen3-32b": 32.8,
    }
    for name, billions in published.items():
        assert round(SHIPPED[name].parameters / 1e9, 1) == billions
    assert SHIPPED["smollm2-135m-instruct"].parameters == 134_515_008


def test_published_layouts_fit_and_their_gpu_counts_come_out() -> None:
    rows = reproduce()
    assert {row.reported_gpus for row in rows} >= {1, 2, 3, 4, 6, 8, 16}
    assert all(row.fits for row in rows)
    assert [row.what for row in rows if not row.agrees] == []


def test_sharding_divides_what_it_says() -> None:
    work = Workload(SHIPPED["qwen3-8b"])
    one = training_memory(work, Layout(1, "single"))
    two, three = (training_memory(work, Layout(4, sharding)) for sharding in ("zero2", "zero3"))
    assert one["weights"] + one["gradients"] + one["optimizer"] == 16 * work.model.parameters
    assert two["weights"] == one["weights"]
    assert two["optimizer"] == three["optimizer"] == one["optimizer"] // 4
    assert three["weights"] == one["weights"] // 4
    offloaded = training_memory(work, Layout(4, "zero3", offload_optimizer=True))
    assert offloaded["optimizer"] == 0


def test_more_of_anything_needs_more() -> None:
    base = Workload(SHIPPED["qwen3-1.7b"])

    def needed(work: Workload) -> int:
        return sum(training_memory(work, Layout(1, "single")).values())

    for change in ({"completion_tokens": 2048}, {"group": 16}, {"prompt_tokens": 4096}, {"shared_prefix": False}):
        assert needed(dataclasses.replace(base, **change)) > needed(base)  # type: ignore[arg-type]
    assert needed(dataclasses.replace(base, lora_rank=16)) < needed(base)
    assert needed(dataclasses.replace(base, gradient_checkpointing=False)) > needed(base)


def test_the_bottleneck_is_named_and_a_knob_moves_it() -> None:
    work = Workload(SHIPPED["qwen3-8b"], prompt_tokens=1024, completion_tokens=4096, lora_rank=32)
    plan = make_plan(work, Layout(1, "single", 1), GPU)
    assert plan.fits
    assert plan.bottleneck == "decode"
    assert plan.knobs
    assert all(knob.step_seconds < plan.step_seconds for knob in plan.knobs)
    full = make_plan(dataclasses.replace(work, lora_rank=None), Layout(1, "single", 1), GPU)
    assert full.bottleneck == "training memory"
    assert any(knob.fits and "LoRA" in knob.change for knob in full.knobs)
    assert json.loads(json.dumps(full.to_json()))["fits"] is False


def test_answers_without_room_in_the_first_wave_take_the_time_of_their_own_number() -> None:
    base = Workload(SHIPPED["qwen3-8b"], prompt_tokens=1024, completion_tokens=8192, lora_rank=32, group=8, prompts=32)
    layout = Layout(1, "single", 1)

    def decoding(work: Workload) -> float:
        return next(phase.seconds for phase in make_plan(work, layout, GPU).phases if phase.name == "decode")

    room = make_plan(base, layout, GPU).concurrent_answers
    assert 1 < room < base.group * base.prompts
    one_wave = decoding(dataclasses.replace(base, group=room, prompts=1))
    one_more = decoding(dataclasses.replace(base, group=room + 1, prompts=1))
    assert one_wave < one_more < 1.9 * one_wave  # a single answer reads the weights and its own cache, no more


def test_the_fewest_gpus_fit_and_one_less_does_not() -> None:
    work = Workload(SHIPPED["qwen3-14b"])
    found = fewest_gpus(work, GPU, generate=False)
    assert make_plan(work, found, GPU).training_fits
    fewer = dataclasses.replace(found, training_gpus=found.training_gpus - 1)
    assert not make_plan(work, fewer, GPU).training_fits
    with pytest.raises(BadInput, match="does not fit"):
        fewest_gpus(work, GPU, most=2)
    assert fewest_gpus(work, GPU, tensor_parallel=4).tensor_parallel == 4
    assert fewest_gpus(work, GPU, generate=False, offload_optimizer=True).training_gpus < found.training_gpus


def test_every_figure_that_is_given_is_planned_with() -> None:
    told = json.loads(crrl("plan", "--model", "Qwen3-8B", "--tflops", "500", "--tensor-parallel", "2", "--json"))
    usual = json.loads(crrl("plan", "--model", "Qwen3-8B", "--json"))
    assert told["device"] == {**usual["device"], "tflops": 500.0}
    assert told["layout"]["tensor_parallel"] == 2


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "mixtral"}, "model_type"),
        ({"model_type": "llama", "num_hidden_layers": 0}, "num_hidden_layers"),
        ({"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": "many"}, "hidden_size"),
    ],
)
def test_a_configuration_that_is_not_understood_is_refused_by_key(
    config: dict[str, object], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    with pytest.raises(BadInput) as caught:
        architecture(str(tmp_path))
    assert said in str(caught.value)


def test_impossible_figures_are_refused() -> None:
    with pytest.raises(BadInput, match="no such architecture"):
        architecture("nonsense")
    with pytest.raises(BadInput, match="sharding"):
        Layout(2, "single")
    for impossible in (
        {"group": 0},
        {"max_completion_tokens": -5000},
        {"max_completion_tokens": 100, "completion_tokens": 200},
        {"forward_sequences": -3},
        {"lora_rank": 0},
    ):
        with pytest.raises(BadInput, match=next(iter(impossible))):
            Workload(SHIPPED["qwen3-8b"], **impossible)  # type: ignore[arg-type]
    for gpus in ({"training_gpus": 0}, {"generation_gpus": -1}, {"tensor_parallel": 0}):
        with pytest.raises(BadInput, match=next(iter(gpus))):
            Layout(**gpus)  # type: ignore[arg-type]
    for figure in ({"tflops": 0.0}, {"memory_gib": -1.0}, {"bandwidth_gb_s": math.inf}):
        with pytest.raises(BadInput, match=next(iter(figure))):
            dataclasses.replace(GPU, **figure)  # type: ignore[arg-type]
    for given in ({"grading_seconds": -1.0}, {"grading_workers": 0}, {"link_gb_s": math.nan}):
        with pytest.raises(BadInput, match=next(iter(given))):
            Assumptions(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "impossible",
    [("--longest", "-5000"), ("--at-once", "-3"), ("--generation-gpus", "-1"), ("--grading-seconds", "-1")],
    ids=lambda pair: pair[0],
)
def test_an_impossible_option_is_wrong_use_and_not_a_plan_that_fits(impossible: tuple[str, str]) -> None:
    assert crrl("plan", "--model", "Qwen3-8B", "--require-fit", *impossible, code=2) == ""
