"""The precision that a processor is fast in is measured."""

from code_repair_rl.models.precision import bf16_speed


def test_the_speed_in_bf16_is_a_share_of_that_in_fp32() -> None:
    assert 0.01 < bf16_speed() < 100
