import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.gemma2 import Gemma2Config, Gemma2ForCausalLM

from code_repair_rl.errors import BadInput
from code_repair_rl.models import tiny_model, tiny_tokenizer
from code_repair_rl.rollouts import FinishReason, Sampling, decoding
from code_repair_rl.rollouts.local import LocalEngine
from tests.watched_passes import tokens_of_passes

_SMALL = {
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "bos_token_id": 1,
    "head_dim": 16,
}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def prompts(tokenizer):
    engine = LocalEngine(tiny_model(), tokenizer)
    texts = ["hi", "def f(x):\n    return x + 1\n" * 4, "a = b"]
    return [engine.encode([{"role": "user", "content": text}]) for text in texts]


def _ids(groups):
    return [[answer.token_ids for answer in group] for group in groups]


def _teacher_forced(model, answer, temperature):
    with torch.no_grad():
        logits = model(torch.tensor([answer.prompt_ids + answer.token_ids])).logits[0].float()
    logprobs = torch.log_softmax(logits / temperature, -1)[len(answer.prompt_ids) - 1 : -1]
    return logprobs.gather(1, torch.tensor(answer.token_ids)[:, None])[:, 0]


def test_recorded_logprobs_are_those_of_a_plain_forward(model, tokenizer, prompts):
    sampling = Sampling(temperature=0.7, max_new_tokens=60, seed=5)
    for group in LocalEngine(model, tokenizer).generate(prompts, completions_per_prompt=6, sampling=sampling):
        for answer in group:
            gap = _teacher_forced(model, answer, 0.7) - torch.tensor(answer.logprobs)
            assert gap.abs().max() <= 1e-4


def test_the_packed_loop_draws_what_the_plain_loop_draws(model, tokenizer, prompts):
    sampling = Sampling(temperature=1.0, max_new_tokens=50, seed=1)
    packed = LocalEngine(model, tokenizer, packed=True).generate(prompts, completions_per_prompt=5, sampling=sampling)
    plain = LocalEngine(model, tokenizer, packed=False).generate(prompts, completions_per_prompt=5, sampling=sampling)
    assert _ids(packed) == _ids(plain)


@settings(max_examples=15)
@given(
    temperature=st.sampled_from([0.05, 0.3, 0.6]),
    count=st.integers(2, 9),
    max_rows=st.integers(9, 20),
    seed=st.integers(0, 100),
)
def test_rows_that_share_what_they_have_drawn_draw_as_if_each_were_alone(
    model, tokenizer, prompts, temperature, count, max_rows, seed
):
    """Low temperatures let rows go together for long; few places let parting ones take those of ended ones.

    A number that falls on the edge between two tokens may be rounded to either, hence not all are the same.
    """
    sampling = Sampling(temperature=temperature, max_new_tokens=40, seed=seed)
    shared, alone = (
        [
            answer
            for group in LocalEngine(model, tokenizer, packed=packed, max_rows=max_rows).generate(
                prompts * 2, completions_per_prompt=count, sampling=sampling
            )
            for answer in group
        ]
        for packed in (True, False)
    )
    same = sum(mine.token_ids == theirs.token_ids for mine, theirs in zip(shared, alone, strict=True))
    assert same >= 0.8 * len(alone)
    for answer in shared:
        gap = _teacher_forced(model, answer, temperature) - torch.tensor(answer.logprobs)
        assert gap.abs().max() <= 1e-4 / temperature


def test_rows_that_draw_the_same_are_computed_once(model, tokenizer, prompts, monkeypatch):
    computed = tokens_of_passes(decoding, monkeypatch)
    greedy = Sampling(temperature=0.0, max_new_tokens=10)
    [group] = LocalEngine(model, tokenizer).generate(prompts[:1], completions_per_prompt=8, sampling=greedy)
    assert len({answer.token_ids for answer in group}) == 1
    assert computed == [len(prompts[0])] + [1] * (len(group[0].token_ids) - 1)


def test_answers_stop_at_the_stop_token_or_the_limit(model, tokenizer, prompts):
    sampling = Sampling(max_new_tokens=80, seed=2)
    groups = LocalEngine(model, tokenizer).generate(prompts, completions_per_prompt=20, sampling=sampling)
    reasons = set()
    for answer in (answer for group in groups for answer in group):
        reasons.add(answer.finish_reason)
        assert 2 not in answer.token_ids[:-1]
        assert (answer.token_ids[-1] == 2) == (answer.finish_reason is FinishReason.STOP)
        assert len(answer.token_ids) == 80 or answer.finish_reason is FinishReason.STOP
        assert len(answer.logprobs) == len(answer.token_ids)
        assert "<|im_end|>" not in answer.text
        assert answer.text == tokenizer.decode(answer.token_ids, skip_special_tokens=True)
    assert reasons == set(FinishReason)


def test_the_same_seed_gives_the_same_answers_and_another_seed_others(model, tokenizer, prompts):
    engine = LocalEngine(model, tokenizer)
    first, again, other = (
        engine.generate(prompts, completions_per_prompt=3, sampling=Sampling(max_new_tokens=20, seed=seed))
        for seed in (3, 3, 4)
    )
    assert first == again
    assert _ids(first) != _ids(other)
    rows = [answer.token_ids for answer in first[0]]
    assert len(set(rows)) == len(rows), "rows of one group must not share their random numbers"


@settings(max_examples=10)
@given(max_rows=st.integers(1, 12), count=st.integers(1, 4), limit=st.integers(1, 40), data=st.data())
def test_an_answer_does_not_depend_on_what_shares_its_batch(max_rows, count, limit, data):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    lengths = data.draw(st.lists(st.integers(1, 90), min_size=1, max_size=6))
    generator = torch.Generator().manual_seed(sum(lengths))
    prompts = [torch.randint(3, 259, (length,), generator=generator).tolist() for length in lengths]
    sampling = Sampling(max_new_tokens=limit, seed=9)
    together = LocalEngine(model, tokenizer, max_rows=max_rows).generate(
        prompts, completions_per_prompt=count, sampling=sampling
    )
    apart = LocalEngine(model, tokenizer, max_rows=1).generate(prompts, completions_per_prompt=count, sampling=sampling)
    assert _ids(together) == _ids(apart)


def test_finished_rows_make_room_for_waiting_ones(model, tokenizer, prompts):
    """Fewer passes than batch after batch would take, and the same answers."""
    passes = 0

    def count_passes(*_):
        nonlocal passes
        passes += 1

    # Stop tokens at random moments: every twelfth token ends a completion.
    engine = LocalEngine(model, tokenizer, max_rows=8)
    engine.stop_ids = tuple(range(0, 259, 12))
    sampling = Sampling(max_new_tokens=60, seed=4)
    handle = model.lm_head.register_forward_hook(count_passes)
    try:
        together = engine.generate(prompts * 8, completions_per_prompt=2, sampling=sampling)
        refilled, passes = passes, 0
        for start in range(0, 24, 4):
            engine.generate((prompts * 8)[start : start + 4], completions_per_prompt=2, sampling=sampling)
    finally:
        handle.remove()
    assert refilled < 0.8 * passes
    wide = LocalEngine(model, tokenizer, max_rows=1000)
    wide.stop_ids = engine.stop_ids
    assert _ids(together) == _ids(wide.generate(prompts * 8, completions_per_prompt=2, sampling=sampling))


def test_greedy_answers_are_those_of_transformers_generate(model, tokenizer, prompts):
    engine = LocalEngine(model, tokenizer)
    for prompt, (answer,) in zip(
        prompts,
        engine.generate(prompts, completions_per_prompt=1, sampling=Sampling(temperature=0.0, max_new_tokens=30)),
        strict=True,
    ):
        expected = model.generate(torch.tensor([prompt]), max_new_tokens=30, do_sample=False)[0, len(prompt) :]
        assert list(answer.token_ids) == expected.tolist()


def test_no_completions_are_no_completions(model, tokenizer, prompts):
    engine = LocalEngine(model, tokenizer)
    assert engine.generate([], completions_per_prompt=3, sampling=Sampling()) == []
    assert engine.generate(prompts, completions_per_prompt=0, sampling=Sampling()) == [[], [], []]


def test_a_prompt_that_fills_the_context_is_named(model, tokenizer):
    with pytest.raises(BadInput, match="prompt 1 has 8192 tokens"):
        LocalEngine(model, tokenizer).generate([[5], [5] * 8192], completions_per_prompt=1, sampling=Sampling())
    with pytest.raises(BadInput, match="max_new_tokens is 0"):
        LocalEngine(model, tokenizer).generate([[5]], completions_per_prompt=1, sampling=Sampling(max_new_tokens=0))
    with pytest.raises(BadInput, match="prompt 0 has 0 tokens"):
        LocalEngine(model, tokenizer).generate([[]], completions_per_prompt=1, sampling=Sampling())


def test_live_weights_are_always_current(tokenizer, prompts):
    model = tiny_model()
    engine = LocalEngine(model, tokenizer)
    sampling = Sampling(max_new_tokens=20)
    before = engine.generate(prompts, completions_per_prompt=2, sampling=sampling)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(-1.0)
    assert _ids(before) != _ids(engine.generate(prompts, completions_per_prompt=2, sampling=sampling))


def test_a_working_copy_follows_on_refresh_only(tokenizer, prompts):
    model = tiny_model()
    engine = LocalEngine(model, tokenizer, copy_dtype="bfloat16")
    sampling = Sampling(max_new_tokens=20)
    before = engine.generate(prompts, completions_per_prompt=2, sampling=sampling)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(-1.0)
    assert before == engine.generate(prompts, completions_per_prompt=2, sampling=sampling)
    engine.refresh()
    after = engine.generate(prompts, completions_per_prompt=2, sampling=sampling)
    assert before != after
    fresh = LocalEngine(model, tokenizer, copy_dtype="bfloat16")
    assert after == fresh.generate(prompts, completions_per_prompt=2, sampling=sampling)
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in model.parameters())


def test_a_bf16_copy_stays_close_to_the_master(model, tokenizer, prompts):
    engine = LocalEngine(model, tokenizer, copy_dtype="bfloat16")
    for group in engine.generate(prompts, completions_per_prompt=4, sampling=Sampling(max_new_tokens=40)):
        for answer in group:
            gap = (_teacher_forced(model, answer, 1.0) - torch.tensor(answer.logprobs)).abs()
            assert gap.mean() < 0.05


@pytest.mark.parametrize("copy_dtype", [None, "float32"])
def test_adapters_are_sampled_with(tokenizer, prompts, copy_dtype):
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj", "down_proj"], lora_dropout=0.5, init_lora_weights=False
    )
    torch.manual_seed(0)
    model = get_peft_model(tiny_model(), config)
    model.train()
    engine = LocalEngine(model, tokenizer, copy_dtype=copy_dtype)
    groups = engine.generate(prompts, completions_per_prompt=3, sampling=Sampling(max_new_tokens=25))
    assert model.training
    assert any(module.training for module in model.modules() if isinstance(module, torch.nn.Dropout))
    model.eval()
    for answer in (answer for group in groups for answer in group):
        assert (_teacher_forced(model, answer, 1.0) - torch.tensor(answer.logprobs)).abs().max() <= 1e-4
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.neg_()
    engine.refresh()
    assert _ids(groups) != _ids(
        engine.generate(prompts, completions_per_prompt=3, sampling=Sampling(max_new_tokens=25))
    )


@pytest.mark.parametrize(
    ("config", "architecture"), [(Qwen2Config(**_SMALL), Qwen2ForCausalLM), (Qwen3Config(**_SMALL), Qwen3ForCausalLM)]
)
def test_other_decoders_are_packed_too(tokenizer, prompts, config, architecture):
    torch.manual_seed(1)
    model = architecture(config).eval()
    engine = LocalEngine(model, tokenizer)
    for answer in engine.generate(prompts, completions_per_prompt=2, sampling=Sampling(max_new_tokens=20))[1]:
        assert (_teacher_forced(model, answer, 1.0) - torch.tensor(answer.logprobs)).abs().max() <= 1e-4
    assert engine.packed


@pytest.mark.parametrize(
    ("config", "architecture"),
    [
        (MistralConfig(**_SMALL, sliding_window=16), MistralForCausalLM),
        (Gemma2Config(**_SMALL, sliding_window=16), Gemma2ForCausalLM),
    ],
)
def test_models_that_cannot_be_packed_take_the_plain_way_and_say_so_once(
    tokenizer, prompts, config, architecture, caplog
):
    torch.manual_seed(1)
    model = architecture(config).eval()
    engine = LocalEngine(model, tokenizer)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            groups = engine.generate(prompts, completions_per_prompt=2, sampling=Sampling(max_new_tokens=24))
    assert not engine.packed
    assert len([record for record in caplog.records if "plain path" in record.message]) == 1
    for answer in (answer for group in groups for answer in group):
        assert (_teacher_forced(model, answer, 1.0) - torch.tensor(answer.logprobs)).abs().max() <= 1e-4
