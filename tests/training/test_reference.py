"""The reference policy takes the policy's place exactly, gives it back, and follows at the rate asked for."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from code_repair_rl.models import tiny_model
from code_repair_rl.training.reference import reference_of

IDS = torch.tensor([[5, 9, 200, 31]])


def shifted(model: torch.nn.Module, by: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(by)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_fixed_reference_is_the_policy_at_the_start(autocast: bool) -> None:
    model = tiny_model().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        start = model(IDS).logits.detach()
    reference = reference_of(model)
    shifted(model, 0.02)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        moved = model(IDS).logits.detach()  # autocast now remembers the policy's rounded weights
        with torch.no_grad(), reference.in_place():
            held = model(IDS).logits
        after = model(IDS).logits.detach()
    assert torch.equal(held, start)
    assert torch.equal(after, moved)
    assert not torch.equal(moved, start)
    reference.follow()
    with torch.no_grad(), reference.in_place():
        assert torch.allclose(model(IDS).logits, start.float(), atol=0.3 if autocast else 0.0)
    assert reference.state() == {}


def test_the_weights_come_back_after_an_error() -> None:
    model = tiny_model().requires_grad_(True)
    reference = reference_of(model)
    shifted(model, 0.02)
    before = model(IDS).logits.detach()
    with pytest.raises(RuntimeError), reference.in_place():
        raise RuntimeError
    assert torch.equal(model(IDS).logits, before)


@pytest.mark.parametrize("rate", [1.0, 0.25])
@pytest.mark.parametrize("adapters", [False, True])
def test_a_moving_reference_follows_at_its_rate_and_survives_a_restart(rate: float, adapters: bool) -> None:
    def fresh() -> torch.nn.Module:
        torch.manual_seed(0)
        model = tiny_model().requires_grad_(True)
        return get_peft_model(model, LoraConfig(r=2, init_lora_weights=False)) if adapters else model

    def first(model: torch.nn.Module) -> torch.Tensor:
        return next(parameter for parameter in model.parameters() if parameter.requires_grad)

    model = fresh()
    reference = reference_of(model, moving_rate=rate)
    start = first(model).detach().clone()
    shifted(model, 0.4)
    reference.follow()
    with reference.in_place():
        assert torch.allclose(first(model), start + 0.4 * rate, atol=1e-6)
    again = reference_of(fresh(), moving_rate=rate)
    again.restore(reference.state())
    assert all(torch.equal(one, again.state()[name]) for name, one in reference.state().items())


@pytest.mark.parametrize("trained_before", [False, True])
def test_the_reference_of_adapters_is_the_policy_at_the_start(trained_before: bool) -> None:
    """That of new ones, which add nothing yet, is their base."""
    model = get_peft_model(tiny_model(), LoraConfig(r=2, init_lora_weights=not trained_before))
    expected = model(IDS).logits.detach()
    reference = reference_of(model)
    shifted(model, 0.1)
    with torch.no_grad(), reference.in_place():
        assert torch.allclose(model(IDS).logits, expected, atol=1e-6)
    assert not torch.allclose(model(IDS).logits, expected, atol=1e-6)
