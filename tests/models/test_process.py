"""What a process with a model does with its memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import random
import torch
from code_repair_rl.models import settle_process

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

settle_process(1)
before = resident()
rng = random.Random(0)
kept = []
for _ in range(40):
    held = [torch.ones(rng.randrange(2 << 20, 8 << 20), dtype=torch.uint8) for _ in range(40)]
    kept += [bytearray(100_000) for _ in range(4)]
    del held
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_tensors_of_changing_sizes_leave_the_process() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=300)
    assert int(ran.stdout) < 80, "MiB stayed, of which 16 are held"
