"""What TRL's trainers are told."""

from pathlib import Path

from transformers import TrainingArguments

from code_repair_rl.training.settings import on_one_device


def test_a_process_that_sees_several_gpus_trains_on_one(tmp_path: Path) -> None:
    config = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    before = config.n_gpu
    on_one_device(config)
    assert config.n_gpu == before <= 1
    config._n_gpu = 8  # as transformers finds it on a machine with eight
    on_one_device(config)
    assert config.n_gpu == 1 and config.train_batch_size == config.per_device_train_batch_size
