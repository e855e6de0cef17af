"""What only a GPU can show: packed passes compute there what plain ones do. `scripts/gpu_smoke.sh` runs these tests."""

import pytest
import torch

from code_repair_rl.models import embedded_model_folder, load_model, load_tokenizer, tiny_model
from code_repair_rl.models.tiny import tiny_tokenizer
from code_repair_rl.rollouts import Sampling
from code_repair_rl.rollouts.local import LocalEngine
from code_repair_rl.training.shared_prefix import completion_logprobs, plain_logprobs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def _model(kind, dtype="float32"):
    if kind == "tiny":
        return tiny_model(dtype=dtype).to("cuda"), tiny_tokenizer()
    if embedded_model_folder() is None:
        pytest.skip("the embedded model has not been fetched")
    return load_model(dtype=dtype, to_sample=True), load_tokenizer()


def _case(vocabulary):
    generator = torch.Generator().manual_seed(0)

    def tokens(length):
        return torch.randint(3, vocabulary, (length,), generator=generator).tolist()

    prompts = [tokens(length) for length in (120, 7, 60)]
    alike = tokens(10)
    groups = [[alike + tokens(length) for length in (5, 20, 0)], [tokens(9)], [alike, alike, tokens(30)]]
    return prompts, groups


def _loss_and_gradients(way, model, prompts, groups):
    model.zero_grad()
    found = way(model, prompts, groups, temperature=0.8, with_entropy=True)
    weights = torch.randn(found.logprobs.shape, generator=torch.Generator().manual_seed(3)).to(found.logprobs.device)
    loss = (weights * found.logprobs.exp() + weights * found.logprobs).sum()
    loss.backward()
    return loss.detach(), torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])


def _distance(one, other):
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("kind", ["tiny", "embedded"])
def test_loss_and_gradients_are_those_of_the_plain_way(kind):
    model, _ = _model(kind)
    case = _case(259 if kind == "tiny" else 40_000)
    loss, gradients = _loss_and_gradients(completion_logprobs, model, *case)
    plain_loss, plain_gradients = _loss_and_gradients(plain_logprobs, model, *case)
    assert _distance(loss, plain_loss) <= 1e-4
    assert _distance(gradients, plain_gradients) <= 1e-4


def test_in_bf16_the_packed_way_is_no_further_from_fp32_than_the_plain_way():
    model, _ = _model("embedded")
    case = _case(40_000)
    _, truth = _loss_and_gradients(plain_logprobs, model, *case)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        _, packed = _loss_and_gradients(completion_logprobs, model, *case)
        _, plain = _loss_and_gradients(plain_logprobs, model, *case)
    assert _distance(packed, truth) <= 1.1 * _distance(plain, truth)


@pytest.mark.parametrize("kind", ["tiny", "embedded"])
def test_recorded_logprobs_are_those_of_the_training_forward(kind):
    model, tokenizer = _model(kind)
    engine = LocalEngine(model, tokenizer)
    texts = ["hi", "def f(x):\n    return x + 1\n" * 4, "a = b"]
    prompts = [engine.encode([{"role": "user", "content": text}]) for text in texts]
    answers = engine.generate(
        prompts, completions_per_prompt=8, sampling=Sampling(temperature=0.7, max_new_tokens=40, seed=5)
    )
    with torch.no_grad():
        found = completion_logprobs(
            model, prompts, [[answer.token_ids for answer in group] for group in answers], temperature=0.7
        )
    recorded = [logprob for group in answers for answer in group for logprob in answer.logprobs]
    assert (found.logprobs[found.mask].cpu() - torch.tensor(recorded)).abs().max() <= 1e-4


def test_answers_are_those_that_the_cpu_draws():
    engine = LocalEngine(_model("tiny")[0], tiny_tokenizer())
    on_cpu = LocalEngine(tiny_model(), tiny_tokenizer())
    prompt = engine.encode([{"role": "user", "content": "def f(x):"}])
    sampling = Sampling(temperature=1.0, max_new_tokens=30, seed=1)
    here, there = (
        [answer.token_ids for answer in one.generate([prompt], completions_per_prompt=16, sampling=sampling)[0]]
        for one in (engine, on_cpu)
    )
    # A number that falls on the edge between two tokens may be rounded to either.
    assert sum(map(tuple.__eq__, here, there)) >= 14
