"""Weights handed on one module at a time are those of the merged model, and never more than one module is whole."""

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from trl.generation.vllm_client import VLLMClient

from code_repair_rl.errors import BadInput
from code_repair_rl.models import TINY_MODEL, load_model
from code_repair_rl.training.push import ServerPush, WeightClient
from code_repair_rl.training.weight_stream import named_shapes, weights


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


def test_names_and_shapes_are_known_without_gathering() -> None:
    for model in (adapted(), load_model(TINY_MODEL)):
        assert list(named_shapes(model)) == [(name, tuple(value.shape)) for name, value in weights(model)]


class Client:
    """Takes weights in, as TRL's client does."""

    def __init__(self) -> None:
        self.taken: dict[str, Tensor] = {}
        self.announced: list[tuple[str, str, list[int]]] = []

    def update_named_params(
        self, metadata: list[tuple[str, str, list[int]]], named_params: Iterator[tuple[str, Tensor]]
    ) -> None:
        self.announced = metadata
        self.taken = {name: value.clone() for name, value in named_params}


class OneTrainer:
    def __init__(self, model: nn.Module) -> None:
        self.model_wrapped = model
        self.accelerator = Accelerator(cpu=True)


def test_a_server_is_announced_and_sent_the_merged_weights_in_bf16() -> None:
    model, client = adapted(), Client()
    ServerPush("http://127.0.0.1:8000", lambda address: client)(OneTrainer(model))  # type: ignore[arg-type]
    assert client.announced == [(name, "bfloat16", list(value.shape)) for name, value in client.taken.items()]
    merged = dict(copy.deepcopy(model).merge_and_unload().named_parameters())  # type: ignore[operator]
    assert all(torch.allclose(client.taken[name].float(), value, atol=2e-2) for name, value in merged.items())


def test_the_client_is_trls_by_its_signature() -> None:
    theirs = list(inspect.signature(VLLMClient.update_named_params).parameters)
    assert theirs == list(inspect.signature(WeightClient.update_named_params).parameters)
    assert {"base_url", "connection_timeout"} <= set(inspect.signature(VLLMClient).parameters)
    assert "device" in inspect.signature(VLLMClient.init_communicator).parameters


@pytest.mark.skipif(torch.cuda.is_available(), reason="could connect there")
def test_without_vllm_and_a_gpu_nothing_is_sent() -> None:
    with pytest.raises(BadInput, match="between GPUs"):
        ServerPush("http://127.0.0.1:8000")(OneTrainer(load_model(TINY_MODEL)))  # type: ignore[arg-type]
