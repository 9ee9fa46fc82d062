"""Mapping weights takes no memory of its own, in either format."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

SCRIPT = """
import re, sys, torch
from pathlib import Path
from vaeport.checkpoint import open_checkpoint
torch.set_num_threads(1)

def anonymous():
    return int(re.search(r"Anonymous:\\s+(\\d+) kB", Path("/proc/self/smaps_rollup").read_text())[1])

before = anonymous()
with open_checkpoint(sys.argv[1]) as checkpoint:
    listed = anonymous()
    kept = [checkpoint.tensor(name) for name in checkpoint.entries]
    mapped = anonymous()
    touched = sum(int(tensor.view(torch.uint8)[..., ::4096].sum()) for tensor in kept)
    print(sum(tensor.nbytes for tensor in kept), touched, listed - before, mapped - before, anonymous() - before)
"""


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_anonymous_memory_does_not_grow_with_the_weights(tmp_path: Path, name: str) -> None:
    state = {f"w{i}": torch.full((15 << 20,), i % 4, dtype=torch.uint8) for i in range(20)}
    path = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(state, path)
    command = [sys.executable, "-c", SCRIPT, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    nbytes, touched, listed, mapped, read = map(int, re.findall(r"-?\d+", result.stdout))
    assert nbytes == 300 << 20
    assert touched == 20 * (15 << 8) * 3 // 2  # every page was really read
    assert max(listed, mapped, read) < 4 << 10, f"kB of anonymous memory: {listed}, {mapped}, {read}"
