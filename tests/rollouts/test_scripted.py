import subprocess
import sys

import pytest

from code_repair_rl.rollouts import FinishReason, Sampling
from code_repair_rl.rollouts.scripted import ScriptedEngine


def test_answers_come_in_turn_and_start_again():
    engine = ScriptedEngine(["one", "two", "three"])
    prompts = [engine.encode([{"role": "user", "content": text}]) for text in ("a", "b")]
    answers = engine.generate(prompts, completions_per_prompt=2, sampling=Sampling())
    assert [[answer.text for answer in group] for group in answers] == [["one", "two"], ["three", "one"]]
    assert answers[1][0].prompt_ids == prompts[1]


def test_a_function_sees_the_prompt_and_the_number_in_the_group():
    engine = ScriptedEngine(lambda prompt, number: f"{prompt}#{number}")
    prompt = engine.encode([{"role": "user", "content": "é"}])
    (group,) = engine.generate([prompt], completions_per_prompt=2, sampling=Sampling())
    assert [answer.text for answer in group] == ["user: é#0", "user: é#1"]


def test_long_answers_are_cut_and_say_so():
    (group,) = ScriptedEngine(["abcdef"]).generate(
        [(1,)], completions_per_prompt=1, sampling=Sampling(max_new_tokens=3)
    )
    assert group[0].text == "abc"
    assert group[0].finish_reason is FinishReason.LENGTH
    (group,) = ScriptedEngine(["abc"]).generate([(1,)], completions_per_prompt=1, sampling=Sampling(max_new_tokens=4))
    assert group[0].finish_reason is FinishReason.STOP
    assert len(group[0].token_ids) == len(group[0].logprobs) == 4


def test_an_empty_script_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        ScriptedEngine([])


def test_it_needs_no_torch():
    code = "import sys, code_repair_rl.rollouts.scripted; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
