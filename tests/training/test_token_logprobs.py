import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from code_repair_rl.training import token_logprobs
from code_repair_rl.training.token_logprobs import TokenLogprobHead


def _case(rows: int, vocabulary: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    head = torch.nn.Linear(8, vocabulary)
    with torch.no_grad():
        head.weight.normal_(generator=generator)
        head.bias.normal_(generator=generator)
    hidden = torch.randn(1, rows, 8, generator=generator, requires_grad=True)
    return head, hidden, torch.randint(vocabulary, (rows,), generator=generator)


@settings(max_examples=60)
@given(
    rows=st.integers(1, 30),
    vocabulary=st.integers(1, 50),
    temperature=st.floats(0.2, 3.0),
    kept_logits=st.sampled_from([1, 100, 2**26]),
    with_entropy=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_values_and_gradients_are_those_of_log_softmax(rows, vocabulary, temperature, kept_logits, with_entropy, seed):
    head, hidden, targets = _case(rows, vocabulary, seed)
    weights = torch.randn(rows, generator=torch.Generator().manual_seed(seed + 1))

    expected = torch.log_softmax(head(hidden[0]) / temperature, dim=-1)
    chosen = expected.gather(1, targets.unsqueeze(1)).squeeze(1)
    (chosen * weights).sum().backward()
    gradients = [hidden.grad.clone(), head.weight.grad.clone(), head.bias.grad.clone()]
    hidden.grad = head.weight.grad = head.bias.grad = None

    found = TokenLogprobHead(targets, temperature, with_entropy, vocabulary=vocabulary, kept_logits=kept_logits)(
        head.forward, hidden
    )
    assert found.shape == (1, rows, 1 + with_entropy)
    assert torch.allclose(found[0, :, 0], chosen, atol=1e-5)
    if with_entropy:
        assert torch.allclose(found[0, :, 1], -(expected.exp() * expected).sum(-1), atol=1e-4)
    (found[0, :, 0] * weights).sum().backward()
    for ours, theirs in zip([hidden.grad, head.weight.grad, head.bias.grad], gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_slices_do_not_show(monkeypatch):
    head, hidden, targets = _case(23, 11, 0)
    whole = TokenLogprobHead(targets, 0.7, True, vocabulary=11)(head.forward, hidden)
    monkeypatch.setattr(token_logprobs, "_SLICE_BYTES", 4 * 11 * 5)
    assert torch.equal(TokenLogprobHead(targets, 0.7, True, vocabulary=11)(head.forward, hidden), whole)


@pytest.mark.parametrize("kept_logits", [25, 2**26])
def test_entropy_is_computed_once_and_has_no_gradient(kept_logits):
    head, hidden, targets = _case(6, 9, 1)
    found = TokenLogprobHead(targets, 1.0, True, vocabulary=9, kept_logits=kept_logits)(head.forward, hidden)
    found[0, :, 1].sum().backward()
    assert hidden.grad is None or not hidden.grad.any()


def test_a_forbidden_token_costs_no_entropy():
    """Logits of minus infinity, as a mask over the vocabulary gives them."""
    logits = torch.tensor([[[0.0, float("-inf"), 0.0]]])
    found = TokenLogprobHead(torch.tensor([2]), 1.0, True, vocabulary=3)(lambda hidden: hidden, logits)
    assert torch.allclose(found[0, 0], torch.tensor([0.5, 2.0]).log())


def test_no_tokens_are_no_values():
    head, _, _ = _case(1, 5, 0)
    nothing = torch.zeros(0, dtype=torch.long)
    found = TokenLogprobHead(nothing, 1.0, True, vocabulary=5)(head.forward, torch.zeros(1, 0, 8))
    assert found.shape == (1, 0, 2)
