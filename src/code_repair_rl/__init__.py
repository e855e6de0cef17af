"""CodeRepairRL: teach language models to repair code, rewarded by tests that really ran."""

__version__ = "0.1.0"
