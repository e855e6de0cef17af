import pytest
import torch

from code_repair_rl.models import tiny_model
from code_repair_rl.training.score import nats_per_token


def test_it_is_the_mean_over_all_tokens_of_the_answers() -> None:
    model = tiny_model()
    prompts, answers = [[5, 9, 30], [7]], [[11, 12], [100, 3, 44, 8]]
    total = 0.0
    for prompt, answer in zip(prompts, answers, strict=True):
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        total -= float(torch.log_softmax(logits, -1).gather(1, torch.tensor(answer)[:, None]).sum().detach())
    assert nats_per_token(model, prompts, answers) == pytest.approx(total / 6, abs=1e-4)
