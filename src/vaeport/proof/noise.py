"""`Noise`: normal noise of a known value, so that what samples a posterior can be read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_NORMAL = {"randn", "randn_like", "normal", "normal_", "normal_functional"}


class Noise(TorchDispatchMode):
    """Every normal random tensor within is `value` (a number, or a tensor of its shape); `drawn` counts them."""

    def __init__(self, value: float | Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.value = value
        self.drawn = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operation."""
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in _NORMAL and isinstance(out, Tensor):
            self.drawn += 1
            return out.copy_(self.value) if isinstance(self.value, Tensor) else out.fill_(self.value)
        return out


def without_noise(value: Any) -> Any:
    """Calls a function with all noise zero: (its result, whether it asked for noise)."""
    with torch.no_grad(), Noise(0.0) as noise:
        result = value()
    return result, noise.drawn > 0
