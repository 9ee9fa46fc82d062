"""How far memory grows during a run: by the allocator on a GPU, by the system's own count on the CPU."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

MIB = 2.0**20
_STATUS = Path("/proc/self/status")


def peak_growth(run: Callable[[], Any], device: str) -> float | None:
    """MiB in use at the peak of `run`, less those before it; None where the system does not tell (not Linux)."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    if not _STATUS.exists():
        return None
    # memory that was freed but kept for reuse would hide a part of the growth
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / MIB


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10
