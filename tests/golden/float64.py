"""Modes under which official code is the truth: float64 throughout, known noise, attention that is not degenerate."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NARROW = (torch.float16, torch.bfloat16, torch.float32)


class Float64(TorchDispatchMode):
    """Raise every cast below float64 to float64; refuse any other floating tensor of more than one element.

    `promoted` lists the places, as `path:line: operation`, of the casts that were raised.
    """

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.promoted: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        def widen(value: Any) -> Any:
            if isinstance(value, torch.dtype) and value in NARROW:
                self.promoted.add(f"{self._place()}: {func} to {value}")
                return torch.float64
            return value

        args, kwargs = tree_map(widen, (args, kwargs or {}))
        result = func(*args, **kwargs)
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and value.dtype in NARROW and value.numel() > 1:
                found = f"{func} gives {value.dtype} of shape {list(value.shape)}"
                raise RuntimeError(f"{self._place()}: {found} in a float64 run")
        return result

    def _place(self) -> str:
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            if Path(frame.f_code.co_filename).is_relative_to(self.root):
                return f"{Path(frame.f_code.co_filename).relative_to(self.root)}:{frame.f_lineno}"
            frame = frame.f_back
        return "outside the official code"


class Noise(TorchFunctionMode):
    """Hand `noise` to the one `torch.randn` or `torch.randn_like` that is called within."""

    def __init__(self, noise: torch.Tensor) -> None:
        super().__init__()
        self.noise = noise
        self.calls = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in (torch.randn, torch.randn_like):
            return func(*args, **(kwargs or {}))
        self.calls += 1
        wanted = args[0].shape if func is torch.randn_like else torch.Size(args[0])
        if wanted != self.noise.shape or self.calls > 1:
            raise ValueError(f"noise {list(self.noise.shape)} for call {self.calls} that wants {list(wanted)}")
        return self.noise


class DrawnNoise(TorchFunctionMode):
    """Take every `torch.randn` of two sizes, a spatial map, from `draw(index of the call, shape)`."""

    def __init__(self, draw: Callable[[int, torch.Size], torch.Tensor]) -> None:
        super().__init__()
        self.draw = draw
        self.calls = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not torch.randn:
            return func(*args, **(kwargs or {}))
        shape = torch.Size(args[0])
        if len(shape) != 2:
            raise ValueError(f"noise of shape {list(shape)}, where spatial maps are expected")
        self.calls += 1
        return self.draw(self.calls - 1, shape)


class AttentionEntropy(TorchFunctionMode):
    """Collect the mean entropy of every attention, as a share of that of one uniform over what the mask lets through.

    A mask is additive: zero, or minus infinity.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shares: list[float] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.nn.functional.scaled_dot_product_attention:
            query, key = args[:2]
            mask = (kwargs or {}).get("attn_mask")
            scores = query @ key.mT / math.sqrt(query.shape[-1])
            self._collect((scores if mask is None else scores + mask).softmax(-1), mask)
        elif func is torch.nn.functional.softmax:
            self._collect(result)
        return result

    def _collect(self, attention: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        entropy = -torch.xlogy(attention, attention).sum(-1).mean()
        if mask is None:
            uniform = math.log(attention.shape[-1])
        else:
            uniform = float(torch.isfinite(mask).sum(-1).double().log().mean())
        self.shares.append(float(entropy) / uniform)
