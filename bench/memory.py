"""How far memory grows during a run, and how freed memory is treated, which decides how long runs take."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

MIB = 2.0**20
_STATUS = Path("/proc/self/status")
# from glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4


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
    _return_freed_memory()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / MIB


@contextmanager
def freed_memory_reused() -> Iterator[None]:
    """Makes glibc keep freed memory, which otherwise comes back with page faults.

    How many depends on what ran before; they take up to a fifth of the time, and would decide between equal sides.
    """
    _mallopt({_MMAP_MAX: 0, _TRIM_THRESHOLD: -1})
    try:
        yield
    finally:
        _return_freed_memory()


def _return_freed_memory() -> None:
    """Makes glibc give back all but small blocks as soon as they are freed, so that memory in use is memory needed."""
    _mallopt({_MMAP_MAX: 65536, _MMAP_THRESHOLD: 65536, _TRIM_THRESHOLD: 65536})
    if _STATUS.exists():
        ctypes.CDLL(None).malloc_trim(0)


def _mallopt(values: dict[int, int]) -> None:
    if _STATUS.exists():
        for name, value in values.items():
            ctypes.CDLL(None).mallopt(name, value)


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10
