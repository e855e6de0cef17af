import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from code_repair_rl.rollouts.sampler import draw, row_uniforms


def _draws(logits: torch.Tensor, count: int, temperature: float = 1.0, seed: int = 0) -> torch.Tensor:
    uniforms = torch.from_numpy(np.random.default_rng(seed).random(count))
    return draw(logits.expand(count, -1), uniforms, temperature)[0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("vocabulary", [5, 259, 1024])
def test_frequencies_are_those_of_softmax(vocabulary: int, temperature: float):
    logits = 2 * torch.randn(vocabulary, generator=torch.Generator().manual_seed(vocabulary))
    count = 60_000
    seen = torch.bincount(_draws(logits, count, temperature), minlength=vocabulary).double().numpy()
    expected = torch.softmax(logits.double() / temperature, 0).numpy() * count
    rare = expected < 5  # chi-square wants at least five expected per cell
    if rare.any():
        seen = np.append(seen[~rare], seen[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    assert chisquare(seen, expected * (seen.sum() / expected.sum())).pvalue > 1e-3


def test_the_tail_of_a_large_vocabulary_is_reached():
    """A fp32 running sum over 49,152 entries would round the weights of rare tokens away."""
    vocabulary = 49_152
    logits = torch.full((vocabulary,), -12.0)
    logits[7] = 0.0
    tail = torch.softmax(logits.double(), 0)
    tail[7] = 0.0
    share = float(tail.sum())
    count = 8_000
    drawn = torch.cat([_draws(logits, 500, seed=number) for number in range(count // 500)])
    hits = int((drawn != 7).sum())
    assert abs(hits - count * share) < 4 * (count * share) ** 0.5
    # and evenly: the places of the tail tokens follow the uniform distribution
    assert kstest(drawn[drawn != 7].double().numpy() / vocabulary, "uniform").pvalue > 1e-3


def test_extreme_uniforms_give_tokens_that_have_weight():
    logits = torch.full((1, 700), float("-inf"))
    logits[0, 100], logits[0, 300] = 0.0, 1.0
    edge = torch.tensor([np.nextafter(1.0, 0.0)], dtype=torch.float64)
    assert draw(logits, torch.zeros(1, dtype=torch.float64), 1.0)[0].item() == 100
    assert draw(logits, edge, 1.0)[0].item() == 300


@settings(max_examples=150)
@given(
    vocabulary=st.integers(1, 900),
    scale=st.floats(0.0, 60.0),
    uniform=st.floats(0.0, 1.0, exclude_max=True),
    temperature=st.floats(0.05, 3.0),
    seed=st.integers(0, 10_000),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_a_draw_is_the_inverse_of_the_cumulative_distribution(vocabulary, scale, uniform, temperature, seed, dtype):
    logits = (scale * torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(seed))).to(dtype)
    tokens, logprobs = draw(logits, torch.tensor([uniform], dtype=torch.float64), temperature)
    exact = torch.log_softmax(logits.double() / temperature, dim=-1)[0]
    cumulated = exact.exp().cumsum(0)
    token = int(tokens)
    before = float(cumulated[token - 1]) if token else 0.0
    assert before - 1e-6 <= uniform <= float(cumulated[token]) + 1e-6
    assert abs(float(logprobs) - float(exact[token])) <= 1e-5 * max(1.0, abs(float(exact[token])))


def test_greedy_takes_the_most_likely_and_tells_its_plain_probability():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 2.0, 0.0]])
    tokens, logprobs = draw(logits, torch.tensor([0.99, 0.99], dtype=torch.float64), 0.0)
    assert tokens.tolist() == [1, 0]  # of equals the first
    assert torch.allclose(logprobs, torch.log_softmax(logits, -1)[torch.arange(2), tokens])


def test_uniforms_depend_on_seed_and_place_only():
    first = row_uniforms(1, 2, 3, 50)
    assert torch.equal(first, row_uniforms(1, 2, 3, 50))
    assert torch.equal(first[:10], row_uniforms(1, 2, 3, 10))
    for other in [(2, 2, 3), (1, 3, 2), (1, 2, 4)]:
        assert not torch.equal(first, row_uniforms(*other, 50))
    assert kstest(torch.cat([row_uniforms(0, n, m, 20) for n in range(20) for m in range(20)]), "uniform").pvalue > 1e-3
