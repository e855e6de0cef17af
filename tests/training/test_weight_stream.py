"""Weights handed on one module at a time are those of the merged model, and never more than one module is whole."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from code_repair_rl.models import TINY_MODEL, load_model
from code_repair_rl.training.weight_stream import weights


def adapted() -> nn.Module:
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(load_model(TINY_MODEL), config)  # type: ignore[no-any-return]


def test_a_plain_models_weights_are_its_parameters() -> None:
    model = load_model(TINY_MODEL)
    found = dict(weights(model))
    expected = dict(model.named_parameters())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_adapters_are_merged_and_the_model_is_left_as_it_was() -> None:
    model = adapted()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = {name: value.clone() for name, value in weights(model)}
    merged = dict(copy.deepcopy(model).merge_and_unload().named_parameters())  # type: ignore[operator]
    assert found.keys() == merged.keys()
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in merged.items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_no_more_than_one_module_is_whole_at_a_time() -> None:
    model = adapted()
    now, most = 0, 0

    @contextmanager
    def gather(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
        nonlocal now, most
        size = sum(parameter.numel() for parameter in parameters)
        now += size
        most = max(most, now)
        yield
        now -= size

    gathered = sum(value.numel() for _, value in weights(model, gather=gather))
    largest = max(
        sum(one.numel() for one in module.parameters()) for module in model.modules() if hasattr(module, "base_layer")
    )
    embedding = max(one.numel() for name, one in model.named_parameters() if "embed" in name)
    assert now == 0
    assert most <= max(largest, embedding) < gathered / 4


def test_a_dtype_can_be_asked_for() -> None:
    assert {value.dtype for _, value in weights(adapted(), torch.bfloat16)} == {torch.bfloat16}
