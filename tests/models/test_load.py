import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from code_repair_rl.errors import BadInput
from code_repair_rl.models import EMBEDDED_MODEL, TINY_MODEL, load_model, load_tokenizer, tiny_model, tiny_tokenizer
from code_repair_rl.models.load import base_of, name_base


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "whole"
    tiny_model(seed=1).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def damaged(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "damaged")


def test_a_saved_model_is_loaded_as_it_was(saved):
    model = load_model(str(saved))
    expected = tiny_model(seed=1).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert not model.training
    text = "def f(x):\n\treturn  x é <|im_end|>"
    tokenizer = load_tokenizer(saved)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.chat_template


def test_the_dtype_is_the_one_asked_for(saved):
    assert load_model(saved, dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(BadInput, match="unknown dtype 'int4'"):
        load_model(saved, dtype="int4")


def test_the_tiny_double_has_a_name():
    assert load_model(TINY_MODEL).config.vocab_size == len(load_tokenizer(TINY_MODEL)) == 259


def test_the_same_seed_gives_the_same_tiny_model_and_leaves_torchs_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = tiny_model(seed=1), tiny_model(seed=1), tiny_model(seed=2)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one.lm_head.weight, same.lm_head.weight)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_an_adapter_folder_is_base_and_adapter(saved, tmp_path):
    adapted = adapter(load_model(saved), tmp_path / "adapter")
    ids = torch.tensor([[4, 5, 6]])
    loaded = load_model(tmp_path / "adapter")
    assert torch.allclose(loaded(ids).logits, adapted(ids).logits, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    trainable = load_model(tmp_path / "adapter", trainable=True)
    assert all("lora" in name for name, parameter in trainable.named_parameters() if parameter.requires_grad)
    assert any(parameter.requires_grad for parameter in trainable.parameters())
    assert len(load_tokenizer(tmp_path / "adapter")) == 259  # the base's


def adapter(base, folder):
    torch.manual_seed(0)
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(folder)
    return adapted


def test_missing_weights_of_an_adapter_are_refused_not_made_up(saved, tmp_path):
    adapter(load_model(saved), tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    weights.popitem()
    save_file(weights, tmp_path / "adapter_model.safetensors")
    with pytest.raises(BadInput, match=r"the adapter cannot be loaded .*missing adapter keys"):
        load_model(tmp_path)


def test_an_adapter_finds_its_base_from_any_folder(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(saved.parent)
    adapter(load_model(saved.name), tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    assert base_of(tmp_path / "adapter") == str(saved)
    load_model("adapter")


def test_a_folder_that_is_called_like_the_embedded_model_is_another_one(saved, tmp_path, monkeypatch):
    monkeypatch.setenv("CRRL_HOME", str(tmp_path / "home"))
    mine = shutil.copytree(saved, tmp_path / EMBEDDED_MODEL)
    adapter(load_model(mine), tmp_path / "adapter")
    assert base_of(tmp_path / "adapter") == str(mine)
    shutil.rmtree(mine)  # a cache folder that has moved
    assert base_of(tmp_path / "adapter") == EMBEDDED_MODEL


def test_an_adapter_of_the_tiny_double_can_be_loaded_again(tmp_path):
    adapted = adapter(load_model(TINY_MODEL), tmp_path)
    name_base(tmp_path)
    ids = torch.tensor([[4, 5, 6]])
    assert torch.allclose(load_model(tmp_path)(ids).logits, adapted(ids).logits, atol=1e-6)


def test_an_adapter_without_a_base_says_so(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match="does not say which model it adapts"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["no/such/folder", "./missing", "smollm", "/absent/path", "~/absent-model"])
def test_what_is_not_there_is_named_with_what_could_be(name):
    with pytest.raises(BadInput, match="no such model") as caught:
        load_model(name)
    assert EMBEDDED_MODEL in str(caught.value)


def test_a_hub_id_that_cannot_be_had_is_bad_input():
    """The suite runs offline, so any hub id will do."""
    with pytest.raises(BadInput, match="cannot be loaded"):
        load_model("nobody-at-all/no-such-model")


def test_a_file_is_not_a_model(saved):
    with pytest.raises(BadInput, match="this is a file"):
        load_model(saved / "config.json")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(BadInput, match="not a model"):
        load_model(tmp_path)


def test_a_damaged_configuration_is_named(damaged):
    (damaged / "config.json").write_text("{")
    with pytest.raises(BadInput, match="configuration is damaged") as caught:
        load_model(damaged)
    assert "config.json" in str(caught.value)


def test_an_unknown_architecture_is_refused(damaged):
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps(config | {"model_type": "abacus"}))
    with pytest.raises(BadInput, match="cannot be loaded"):
        load_model(damaged)


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_truncated_weights_are_refused(damaged, keep):
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(BadInput, match="cannot be loaded") as caught:
        load_model(damaged)
    assert "mend:" in str(caught.value)


def test_missing_weights_are_refused_not_filled_with_noise(damaged):
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(BadInput, match="are missing or do not fit"):
        load_model(damaged)


def test_weights_of_another_shape_are_refused(damaged):
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(BadInput):
        load_model(damaged)


def test_a_model_without_a_tokenizer_says_so(damaged):
    (damaged / "tokenizer_config.json").unlink()
    with pytest.raises(BadInput, match="has no tokenizer"):
        load_tokenizer(damaged)


def test_a_damaged_tokenizer_is_refused(damaged):
    (damaged / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(BadInput, match="tokenizer cannot be loaded"):
        load_tokenizer(damaged)


def test_the_embedded_model_is_asked_for_before_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("CRRL_HOME", str(tmp_path))
    with pytest.raises(BadInput, match="crrl model fetch"):
        load_model()
