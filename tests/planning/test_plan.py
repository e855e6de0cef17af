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
from code_repair_rl.planning.memory import (
    SAMPLED_AT_ONCE,
    generation_fits,
    generation_memory,
    saved_elements,
    tokens_per_forward,
    training_fits,
    training_memory,
)
from code_repair_rl.planning.published import reproduce
from code_repair_rl.rollouts.local import _ROWS_ON_A_GPU
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
    one, two, three = (training_memory(work, Layout(1, sharding)) for sharding in ("single", "zero2", "zero3"))
    for whole in (one, two, three):
        assert whole["weights"] + whole["gradients"] + whole["optimizer"] == 16 * work.model.parameters
    quarter2, quarter3 = (training_memory(work, Layout(4, sharding)) for sharding in ("zero2", "zero3"))
    assert quarter2["weights"] == two["weights"]
    assert quarter2["optimizer"] == quarter3["optimizer"] == two["optimizer"] // 4
    assert quarter3["weights"] == three["weights"] // 4
    offloaded = training_memory(work, Layout(4, "zero3", offload_optimizer=True))
    assert offloaded["optimizer"] == 0


def test_weights_take_what_the_trainer_holds() -> None:
    """It loads fp32 and computes in bf16 by autocast; DeepSpeed rounds the weights themselves."""
    work = Workload(SHIPPED["qwen3-8b"])
    held = {one: training_memory(work, Layout(1, one)) for one in ("single", "ddp", "zero2", "zero3")}
    per_weight = {one: parts["weights"] / work.model.parameters for one, parts in held.items()}
    assert per_weight == {"single": 4, "ddp": 4, "zero2": 2, "zero3": 2}
    assert {one for one, parts in held.items() if "autocast copies" in parts} == {"single", "ddp"}
    in_fp32 = dataclasses.replace(work, autocast=False)
    for sharding in ("single", "zero2"):
        parts = training_memory(in_fp32, Layout(1, sharding))
        assert parts["weights"] == 4 * work.model.parameters
        assert "autocast copies" not in parts
        assert parts["activations"] > held[sharding]["activations"]


def test_bf16_copies_of_frozen_weights_are_made_anew_under_checkpointing() -> None:
    work = Workload(SHIPPED["qwen3-8b"], lora_rank=16)

    def copies(work: Workload) -> int:
        return training_memory(work, Layout(1, "single"))["autocast copies"]

    head = 2 * work.model.embedding
    every = copies(dataclasses.replace(work, gradient_checkpointing=False))
    assert every - head == work.model.layers * (copies(work) - head)
    assert copies(dataclasses.replace(work, lora_rank=None)) == every


def test_a_model_that_samples_by_itself_needs_room_for_its_copy_and_its_cache() -> None:
    work = Workload(SHIPPED["qwen3-8b"], lora_rank=32, group=16, prompts=32)
    own, shared = Layout(1, "single", 1), Layout(1, "single", 0)
    copy = 2 * work.model.parameters
    assert sum(training_memory(work, shared).values()) == sum(training_memory(work, own).values()) + copy
    sampling = generation_memory(work, shared, GPU)
    assert sampling["sampler"] == copy
    # adapters are merged into a copy in fp32 before they are rounded; a cache of fp32 keys and values comes after it
    cache = 4 * work.model.kv_per_token * (SAMPLED_AT_ONCE // 16 * 1024 + SAMPLED_AT_ONCE * 1024)
    assert max(cache, 4 * work.model.parameters) == sampling["key-value cache"]
    assert not generation_fits(work, shared, GPU)
    few = dataclasses.replace(work, prompts=1, completion_tokens=64)
    assert generation_memory(few, shared, GPU)["merge of adapters"] == 4 * work.model.parameters
    assert make_plan(work, shared, GPU).concurrent_answers == SAMPLED_AT_ONCE == _ROWS_ON_A_GPU
    fine_tuning = dataclasses.replace(work, sampled=False)
    assert "sampler" not in training_memory(fine_tuning, shared)
    assert generation_memory(fine_tuning, shared, GPU) == {}


def test_a_recipe_says_what_no_option_does(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "defaults: [demo, _self_]\n"
        "model: {gradient_checkpointing: true, autocast: none, lora: {rank: 8}}\n"
        "sandbox: {workers: 5}\n"
        "launch: {kind: zero2, processes: 4, offload: optimizer}\n"
        "grpo: {micro_batch_tokens: 999}\n"
    )
    plan = json.loads(crrl("plan", "--recipe", str(path), "--json"))
    work, layout = plan["workload"], plan["layout"]
    assert (work["gradient_checkpointing"], work["autocast"], work["lora_rank"]) == (True, False, 8)
    assert work["micro_batch_tokens"] == 999
    assert (layout["sharding"], layout["training_gpus"], layout["offload_optimizer"]) == ("zero2", 4, True)
    assert layout["generation_gpus"] == 0  # no server is named: the model samples itself
    assert plan["assumptions"]["grading_workers"] == 5
    told = json.loads(crrl("plan", "--recipe", str(path), "--no-checkpointing", "--generation-gpus", "1", "--json"))
    assert told["workload"]["gradient_checkpointing"] is False
    assert told["layout"]["generation_gpus"] == 1
    more = json.loads(crrl("plan", "--recipe", str(path), "--training-gpus", "8", "--json"))
    assert (more["layout"]["sharding"], more["layout"]["training_gpus"]) == ("zero2", 8)


def test_a_forward_holds_the_tokens_that_the_recipe_allows() -> None:
    work = Workload(SHIPPED["qwen3-8b"], prompt_tokens=512, completion_tokens=96, group=16, prompts=6)
    layout = Layout(1, "single")
    assert tokens_per_forward(dataclasses.replace(work, micro_batch_tokens=1536), layout) == 1536
    assert tokens_per_forward(dataclasses.replace(work, micro_batch_tokens=1), layout) == 512 + 96
    everything = 6 * (512 + 16 * 96)
    assert tokens_per_forward(dataclasses.replace(work, micro_batch_tokens=10**6), layout) == everything


def test_more_of_anything_needs_more() -> None:
    base = Workload(SHIPPED["qwen3-1.7b"])

    def needed(work: Workload) -> int:
        return sum(training_memory(work, Layout(1, "single")).values())

    for change in ({"completion_tokens": 2048}, {"group": 16}, {"prompt_tokens": 4096}, {"shared_prefix": False}):
        assert needed(dataclasses.replace(base, **change)) > needed(base)
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
    work = Workload(SHIPPED["qwen3-14b"], sampled=False)
    found = fewest_gpus(work, GPU, generate=False)
    assert training_fits(work, found, GPU)
    fewer = dataclasses.replace(found, training_gpus=found.training_gpus - 1)
    assert not training_fits(work, fewer, GPU)
    with pytest.raises(BadInput, match="does not fit"):
        fewest_gpus(work, GPU, most=2)
    with pytest.raises(BadInput, match="training and sampling"):  # whole weights, their copy and a cache, on each
        fewest_gpus(dataclasses.replace(work, sampled=True), GPU, generate=False)
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
            Assumptions(**given)


@pytest.mark.parametrize(
    "impossible",
    [("--longest", "-5000"), ("--at-once", "-3"), ("--generation-gpus", "-1"), ("--grading-seconds", "-1")],
    ids=lambda pair: pair[0],
)
def test_an_impossible_option_is_wrong_use_and_not_a_plan_that_fits(impossible: tuple[str, str]) -> None:
    assert crrl("plan", "--model", "Qwen3-8B", "--require-fit", *impossible, code=2) == ""
