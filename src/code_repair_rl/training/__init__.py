"""SFT and GRPO on TRL."""
