"""`Noise`: normal noise of known values, so that what samples can be read, and compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from vaeport.proof.draw import draw_input

_NORMAL = {"randn", "randn_like", "normal", "normal_", "normal_functional"}


class Noise(TorchDispatchMode):
    """Every standard normal random tensor within is `value`; `drawn` counts them.

    value   a number, a tensor of its shape, or a function of how many were drawn before it and its shape
    One that is drawn with a mean and a deviation of its own is mean + deviation * value.
    """

    def __init__(self, value: float | Tensor | Callable[[int, tuple[int, ...]], Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.value = value
        self.drawn = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operation."""
        name = func.overloadpacket.__name__
        given: tuple[Any, ...] = args[0 if name == "normal" else 1 :] if name.startswith("normal") else ()
        mean, deviation = (list(given) + [0.0, 1.0][len(given) :])[:2]
        if name == "normal" and isinstance(mean + deviation, Tensor):
            # not called: it refuses deviations that are not numbers
            return mean + deviation * self._next(mean + deviation)
        out = func(*args, **(kwargs or {}))
        if name not in _NORMAL or not isinstance(out, Tensor):
            return out
        return out.copy_(torch.full_like(out, deviation) * self._next(out) + mean)

    def _next(self, like: Tensor) -> Any:
        self.drawn += 1
        value = self.value(self.drawn - 1, tuple(like.shape)) if callable(self.value) else self.value
        return value.to(like) if isinstance(value, Tensor) else value


def active_noise() -> Noise | None:
    """The innermost `Noise` that is in force."""
    modes = _get_current_dispatch_mode_stack()
    return next((mode for mode in reversed(modes) if isinstance(mode, Noise)), None)


def drawn_noise() -> Noise:
    """Noise that depends only on its shape and the order in which it is asked for; bfloat16 holds its values."""

    def value(n: int, shape: tuple[int, ...]) -> Tensor:
        mantissa, exponent = torch.frexp(draw_input(f"noise {n}", shape, seed=0))
        return torch.ldexp((mantissa * 256).round() / 256, exponent)

    return Noise(value)


def without_noise(value: Any) -> Any:
    """Calls a function with all noise zero: (its result, whether it asked for noise)."""
    with torch.no_grad(), Noise(0.0) as noise:
        result = value()
    return result, noise.drawn > 0
