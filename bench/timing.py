"""How long a call takes until the device is done with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def seconds_of(run: Callable[[], T], device: torch.device | str) -> tuple[T, float]:
    """What it gives, and its seconds; what the device was told before does not count."""
    _wait(device)
    start = time.perf_counter()
    made = run()
    _wait(device)
    return made, time.perf_counter() - start


def _wait(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
