import pytest
import torch

from code_repair_rl.models import embedded_model_folder, load_model, load_tokenizer
from code_repair_rl.rollouts import Sampling
from code_repair_rl.rollouts.local import LocalEngine

pytestmark = pytest.mark.skipif(embedded_model_folder() is None, reason="run `crrl model fetch` first")


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


def test_it_is_the_model_it_says_it_is(model, tokenizer):
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert len(tokenizer) == model.config.vocab_size == 49_152
    assert model.config.eos_token_id == tokenizer.eos_token_id == 2
    assert not hasattr(model.config, "quantization_config")


def test_it_answers_sensibly(model, tokenizer):
    engine = LocalEngine(model, tokenizer)
    prompt = engine.encode([{"role": "user", "content": "What is the capital of France?"}])
    ((answer,),) = engine.generate([prompt], completions_per_prompt=1, sampling=Sampling(0.0, 20))
    assert answer.text == "The capital of France is Paris."


def test_digits_are_split_one_by_one_and_blanks_before_them_stay_together(tokenizer):
    ids = tokenizer("x  = 1234\n\n    5")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["x", "Ġ", "Ġ=", "Ġ", "1", "2", "3", "4", "ĊĊĠĠĠĠ", "5"]


def test_sampler_and_plain_forward_agree_on_it(model, tokenizer):
    engine = LocalEngine(model, tokenizer)
    prompts = [engine.encode([{"role": "user", "content": text}]) for text in ("Write a haiku.", "1 + 1 =")]
    for group in engine.generate(prompts, completions_per_prompt=2, sampling=Sampling(1.0, 12, 1)):
        for answer in group:
            with torch.no_grad():
                logits = model(torch.tensor([answer.prompt_ids + answer.token_ids])).logits[0]
            expected = torch.log_softmax(logits, -1)[len(answer.prompt_ids) - 1 : -1]
            chosen = expected.gather(1, torch.tensor(answer.token_ids)[:, None])[:, 0]
            assert (chosen - torch.tensor(answer.logprobs)).abs().max() <= 1e-4
