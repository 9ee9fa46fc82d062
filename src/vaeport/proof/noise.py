"""`Noise`: normal noise of a known value, so that what samples a posterior can be read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_NORMAL = {"randn", "randn_like", "normal", "normal_", "normal_functional"}


class Noise(TorchDispatchMode):
    """Every standard normal random tensor within is `value` (a number, or a tensor of its shape); `drawn` counts them.

    One that is drawn with a mean and a deviation of its own is mean + deviation * value.
    """

    def __init__(self, value: float | Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.value = value
        self.drawn = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operation."""
        name = func.overloadpacket.__name__
        given: tuple[Any, ...] = args[0 if name == "normal" else 1 :] if name.startswith("normal") else ()
        mean, deviation = (list(given) + [0.0, 1.0][len(given) :])[:2]
        if name == "normal" and isinstance(mean + deviation, Tensor):
            self.drawn += 1  # not called: it refuses deviations that are not numbers
            return mean + deviation * self.value
        out = func(*args, **(kwargs or {}))
        if name not in _NORMAL or not isinstance(out, Tensor):
            return out
        self.drawn += 1
        return out.copy_(torch.full_like(out, deviation) * self.value + mean)


def without_noise(value: Any) -> Any:
    """Calls a function with all noise zero: (its result, whether it asked for noise)."""
    with torch.no_grad(), Noise(0.0) as noise:
        result = value()
    return result, noise.drawn > 0
