"""What a job writes can be read again."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from peft import LoraConfig, get_peft_model

from code_repair_rl.models import TINY_MODEL, load_model, load_tokenizer
from code_repair_rl.models.load import base_of
from code_repair_rl.training.launch import save_whole


def test_an_adapter_is_saved_with_the_name_of_its_base(tmp_path: Path) -> None:
    accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=None))
    model = get_peft_model(load_model(TINY_MODEL), LoraConfig(r=2, target_modules=["q_proj"]))
    trainer: Any = SimpleNamespace(model=model, accelerator=accelerator, is_fsdp_enabled=False)
    assert base_of(save_whole(trainer, load_tokenizer(TINY_MODEL), tmp_path / "model")) == TINY_MODEL
