import functools
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import (
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from code_repair_rl.errors import BadInput
from code_repair_rl.models import embedded_model_folder, load_model, tiny_model
from code_repair_rl.models.packed import why_not_packable
from code_repair_rl.training import shared_prefix
from code_repair_rl.training.reference import reference_of
from code_repair_rl.training.shared_prefix import completion_logprobs, plain_logprobs
from code_repair_rl.training.token_logprobs import TokenLogprobHead
from tests.watched_passes import tokens_of_passes

_SMALL = {
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,
    "head_dim": 16,
}


def _tokens(length: int, generator: torch.Generator) -> list[int]:
    return torch.randint(3, 259, (length,), generator=generator).tolist()


def _batch(shape, seed=0):
    """`shape`: per prompt its length and the lengths of its completions."""
    generator = torch.Generator().manual_seed(seed)
    prompts = [_tokens(length, generator) for length, _ in shape]
    groups = [[_tokens(length, generator) for length in lengths] for _, lengths in shape]
    return prompts, groups


def _loss_and_gradients(way, model, prompts, groups, temperature=0.8):
    """A loss that weighs every token differently, as advantages and clipping do."""
    model.zero_grad()
    found = way(model, prompts, groups, temperature=temperature, with_entropy=True)
    weights = torch.randn(found.logprobs.shape, generator=torch.Generator().manual_seed(3))
    loss = (weights * found.logprobs.exp() + weights * found.logprobs).sum()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, found


def _relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm().clamp(min=1e-12))


def _assert_equal(model, prompts, groups):
    loss, gradients, found = _loss_and_gradients(completion_logprobs, model, prompts, groups)
    plain_loss, plain_gradients, plain = _loss_and_gradients(plain_logprobs, model, prompts, groups)
    assert torch.equal(found.mask, plain.mask)
    assert (found.logprobs - plain.logprobs).abs().max() <= 1e-4
    assert (found.entropy - plain.entropy).abs().max() <= 1e-4
    assert not found.entropy.requires_grad
    assert _relative(loss, plain_loss) <= 1e-4
    assert gradients.keys() == plain_gradients.keys()
    assert max(_relative(gradients[name], plain_gradients[name]) for name in gradients) <= 1e-4


@settings(max_examples=25)
@given(
    shape=st.lists(
        st.tuples(st.integers(1, 60), st.lists(st.integers(0, 40), min_size=1, max_size=6)), min_size=1, max_size=4
    ).filter(lambda shape: any(sum(lengths) for _, lengths in shape)),
    seed=st.integers(0, 1000),
)
def test_loss_and_gradients_are_those_of_the_plain_way(shape, seed):
    _assert_equal(tiny_model(seed=seed % 3), *_batch(shape, seed))


@settings(max_examples=25)
@given(
    answers=st.lists(
        st.lists(st.lists(st.integers(3, 4), max_size=12), min_size=1, max_size=6), min_size=1, max_size=3
    ).filter(lambda groups: any(map(len, (answer for group in groups for answer in group)))),
    least_block=st.integers(1, 20),
    seed=st.integers(0, 2),
)
def test_answers_that_begin_alike_get_the_same_loss_and_gradients(answers, least_block, seed):
    """Of two tokens only, so that most beginnings are shared, and in blocks of any size."""
    prompts, _ = _batch([(2, []) for _ in answers], seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_prefix, "_LEAST_BLOCK", least_block)
        _assert_equal(tiny_model(seed=seed), prompts, answers)


def test_what_answers_share_is_computed_once(monkeypatch):
    computed = tokens_of_passes(shared_prefix, monkeypatch)
    completion_logprobs(tiny_model(), [[5, 6, 7]], [[[8, 9, 10, 11], [8, 9, 10, 12], [8, 9, 10, 11], [8, 13, 14]]])
    assert computed == [3 + 4]  # 8, 8 9, 8 9 10, 8 13: last tokens predict nothing


def test_a_token_may_be_wanted_of_one_answer_and_not_of_another_that_begins_alike():
    answers, wanted = [[[8, 9, 10], [8, 9, 11]]], [[[True, True, True], [False, True, True]]]
    found, plain = (
        way(tiny_model(), [[5, 6]], answers, wanted=wanted).logprobs for way in (completion_logprobs, plain_logprobs)
    )
    assert torch.allclose(found, plain, atol=1e-4)
    assert found[1, 0] == 0 != found[0, 0]


def test_many_long_completions_go_in_several_blocks():
    _assert_equal(tiny_model(), *_batch([(20, [90, 80, 1, 70, 200, 128]), (150, [64] * 8)]))


def test_the_plain_way_is_what_the_model_says():
    """Row by row without any padding: the ground truth of both ways."""
    model = tiny_model()
    prompts, groups = _batch([(13, [6, 2]), (5, [9])])
    found = plain_logprobs(model, prompts, groups, temperature=0.5, with_entropy=True)
    rows = [(prompt, answer) for prompt, group in zip(prompts, groups, strict=True) for answer in group]
    for number, (prompt, answer) in enumerate(rows):
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1] / 0.5
        expected = torch.log_softmax(logits, -1)
        chosen = expected.gather(1, torch.tensor(answer)[:, None])[:, 0]
        assert torch.allclose(found.logprobs[number, : len(answer)], chosen, atol=1e-4)
        assert torch.allclose(found.entropy[number, : len(answer)], -(expected.exp() * expected).sum(-1), atol=1e-4)
        assert found.logprobs[number, len(answer) :].abs().sum() == 0


@pytest.mark.parametrize("way", [completion_logprobs, plain_logprobs])
def test_the_result_is_padded_to_the_width_asked_for(way):
    prompts, groups = _batch([(3, [4, 2])])
    found = way(tiny_model(), prompts, groups, width=9)
    assert found.logprobs.shape == found.mask.shape == (2, 9)
    assert found.mask.sum(1).tolist() == [4, 2]
    assert found.entropy is None
    assert found.logprobs.dtype == torch.float32


def test_without_gradients_the_values_are_the_same():
    model = tiny_model()
    prompts, groups = _batch([(12, [5, 8])])
    with torch.no_grad():
        quiet = completion_logprobs(model, prompts, groups)
    assert torch.allclose(quiet.logprobs, completion_logprobs(model, prompts, groups).logprobs.detach(), atol=1e-6)


def test_the_model_is_left_as_it_was():
    model = tiny_model().train()
    before = model.config._attn_implementation, set(vars(model.lm_head))
    completion_logprobs(model, *_batch([(6, [4])])).logprobs.sum().backward()
    assert (model.config._attn_implementation, set(vars(model.lm_head))) == before
    assert model.training
    assert model(torch.tensor([[5, 6, 7]])).logits.shape == (1, 3, 259)


def test_adapters_get_the_same_gradients():
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(tiny_model(), config)
    _assert_equal(model, *_batch([(30, [12, 20, 5]), (8, [3, 3])]))
    assert all("lora" in name for name, p in model.named_parameters() if p.grad is not None)


def test_an_adapter_on_the_head_gets_the_same_gradients():
    torch.manual_seed(0)
    model = get_peft_model(tiny_model(), LoraConfig(r=4, target_modules=["lm_head", "q_proj"], init_lora_weights=False))
    _assert_equal(model, *_batch([(10, [7, 7]), (5, [3])]))


def test_other_decoders_get_the_same_gradients():
    torch.manual_seed(0)
    _assert_equal(Qwen3ForCausalLM(Qwen3Config(**_SMALL)).eval(), *_batch([(30, [12, 20, 5]), (8, [3, 3])]))


def test_in_bf16_it_is_no_further_from_the_truth_than_the_plain_way():
    """Over several batches, since rounding is luck in each single one."""
    model = tiny_model(layers=4)
    gaps: dict[str, list[float]] = {"ours": [], "plain": []}
    for seed in range(6):
        batch = _batch([(40, [20, 25, 30, 8]), (60, [20, 15])], seed)
        truth = plain_logprobs(model, *batch).logprobs.detach()
        with torch.autocast("cpu", torch.bfloat16):
            for name, way in (("ours", completion_logprobs), ("plain", plain_logprobs)):
                gaps[name].append(float((way(model, *batch).logprobs.detach() - truth).norm()))
    assert sum(gaps["ours"]) <= 1.15 * sum(gaps["plain"])


def test_autocast_cuts_no_weight_off_its_gradient():
    """The first call tries whether the model can be packed; what autocast caches then must not reach the training."""
    batch = _batch([(20, [12, 9])])
    _, expected, _ = _loss_and_gradients(plain_logprobs, tiny_model(), *batch)
    model = tiny_model()
    model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)  # as accelerate prepares it
    with torch.autocast("cpu", torch.bfloat16):
        _, gradients, _ = _loss_and_gradients(completion_logprobs, model, *batch)
    assert gradients.keys() == expected.keys()
    assert max(_relative(gradients[name], expected[name]) for name in expected) < 0.2


@pytest.mark.parametrize("way", [completion_logprobs, plain_logprobs])
def test_a_model_that_changes_its_logits_after_the_head_is_refused(way):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    plain, scaled = (
        GraniteForCausalLM(GraniteConfig(vocab_size=40, num_key_value_heads=2, logits_scaling=by, **sizes))
        for by in (1.0, 8.0)
    )
    way(plain, [[1, 2]], [[[3, 4]]])
    with pytest.raises(BadInput, match="GraniteForCausalLM scales or caps its logits"):
        way(scaled, [[1, 2]], [[[3, 4]]])


def test_a_sliding_window_takes_the_plain_way_and_says_so_once(caplog):
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**_SMALL, sliding_window=8)).eval()
    prompts, groups = _batch([(20, [6, 3])])
    with caplog.at_level(logging.WARNING):
        found = completion_logprobs(model, prompts, groups)
        completion_logprobs(model, prompts, groups)
    assert torch.equal(found.logprobs, plain_logprobs(model, prompts, groups).logprobs)
    assert len([record for record in caplog.records if "sliding window" in record.message]) == 1


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_recomputes_the_packed_attention(reentrant, caplog):
    model = tiny_model().train()
    prompts, groups = _batch([(20, [6, 3]), (7, [2])])
    _, expected, _ = _loss_and_gradients(completion_logprobs, model, prompts, groups)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:  # its first layer needs an input with gradients
        model.enable_input_require_grads()
    own = model.model.layers[0]._gradient_checkpointing_func
    runs = []
    handle = model.model.layers[1].mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    _, gradients, _ = _loss_and_gradients(completion_logprobs, model, prompts, groups)
    handle.remove()
    assert len(runs) == 2, "once forward, once again for the backward pass"
    assert max(_relative(gradients[name], expected[name]) for name in expected) <= 1e-4
    assert model.model.layers[0]._gradient_checkpointing_func is own
    assert model.config._attn_implementation == "sdpa"
    assert not caplog.records


@pytest.mark.skipif(embedded_model_folder() is None, reason="run `crrl model fetch` first")
def test_it_is_exact_on_the_embedded_model():
    model = load_model()
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(3, 49_000, (length,), generator=generator).tolist() for length in (50, 31)]
    groups = [
        [torch.randint(3, 49_000, (length,), generator=generator).tolist() for length in lengths]
        for lengths in ((12, 7, 9), (5, 10))
    ]
    _assert_equal(model, prompts, groups)


@settings(max_examples=15)
@given(
    shape=st.lists(
        st.tuples(st.integers(1, 30), st.lists(st.integers(1, 25), min_size=1, max_size=4)), min_size=1, max_size=3
    ),
    seed=st.integers(0, 1000),
)
def test_tokens_of_the_environment_are_context_and_nothing_else(shape, seed):
    """Both ways: unwanted tokens give exactly zero, the wanted ones what they give among all."""
    model = tiny_model(seed=seed % 3)
    prompts, groups = _batch(shape, seed)
    generator = torch.Generator().manual_seed(seed)
    wanted = [[(torch.rand(len(a), generator=generator) < 0.6).tolist() for a in group] for group in groups]
    everything = plain_logprobs(model, prompts, groups, with_entropy=True)
    for way in (completion_logprobs, plain_logprobs):
        found = way(model, prompts, groups, wanted=wanted, with_entropy=True)
        marks = [one for group in wanted for one in group]
        assert [row[: len(one)] for row, one in zip(found.mask.tolist(), marks, strict=True)] == marks
        assert not found.logprobs[~found.mask].any()
        assert not found.entropy[~found.mask].any()
        assert torch.allclose(found.logprobs, everything.logprobs * found.mask, atol=1e-4)
        assert torch.allclose(found.entropy, everything.entropy * found.mask, atol=1e-4)


def test_marks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="does not fit"):
        completion_logprobs(tiny_model(), [[5]], [[[6, 7]]], wanted=[[[True]]])


@pytest.mark.parametrize("way", [completion_logprobs, plain_logprobs])
@pytest.mark.parametrize("kind", ["copy", "adapters", "adapter-on-head", "adapter-on-head-trained-before"])
@pytest.mark.parametrize("kept", [2**26, 259 * 2 * 3])
def test_divergence_from_a_reference_is_that_of_the_whole_distributions(way, kind, kept, monkeypatch):
    """Value and gradient, against the definition; also where the head runs in chunks."""
    monkeypatch.setattr(
        TokenLogprobHead, "__init__", functools.partialmethod(TokenLogprobHead.__init__, kept_logits=kept)
    )
    torch.manual_seed(0)
    base = tiny_model()
    targets = ["q_proj", "lm_head" if "head" in kind else "down_proj"]
    model = base
    if kind != "copy":
        new = not kind.endswith("trained-before")
        model = get_peft_model(base, LoraConfig(r=4, target_modules=targets, init_lora_weights=new))
    reference = reference_of(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if kind == "copy" or parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    prompts, groups = _batch([(9, [6, 3]), (5, [4])])
    found = way(model, prompts, groups, reference=reference.in_place, temperature=0.7, with_entropy=True)
    (found.kl.sum() - 0.3 * found.logprobs.sum()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    expected = torch.zeros(())
    rows = [(prompt, answer) for prompt, group in zip(prompts, groups, strict=True) for answer in group]
    for number, (prompt, answer) in enumerate(rows):
        ids = torch.tensor([prompt + answer])
        policy = torch.log_softmax(model(ids).logits[0, len(prompt) - 1 : -1] / 0.7, -1)
        with torch.no_grad(), reference.in_place():
            held = torch.log_softmax(model(ids).logits[0, len(prompt) - 1 : -1] / 0.7, -1)
        divergence = (policy.exp() * (policy - held)).sum(-1)
        assert divergence.min() > 1e-4
        assert torch.allclose(found.kl[number, : len(answer)], divergence, atol=1e-5, rtol=1e-4)
        expected = expected + divergence.sum() - 0.3 * policy.gather(1, torch.tensor(answer)[:, None]).sum()
    expected.backward()
    assert gradients
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert _relative(gradients[name], parameter.grad) <= 1e-4


def test_whether_packed_passes_serve_is_found_in_the_weights_own_precision():
    """A trainer wraps the model's forward in autocast, whose rounding must not pass for another attention pattern."""
    model = tiny_model()
    model._original_forward = own = model.forward

    def rounded(*arguments, **named):
        output = own(*arguments, **named)
        output.logits = output.logits.bfloat16().float() + 0.1 * torch.rand(output.logits.shape)
        return output

    model.forward = rounded
    assert why_not_packable(model) is None
    assert model.forward is rounded
