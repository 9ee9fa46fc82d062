"""Convolutions over 1, 2 or 3 axes, each with its own padding before and after.

y[o] = bias + sum_k weight[k] * x[o * stride - before + k * dilation]        zeros outside x
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeport.layers.layer import TIME, Chunk, Interval, Layer, State

Pad = tuple[int, int]
_CONV: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class Window:
    """How a convolution walks along one axis."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0

    @property
    def span(self) -> int:
        """Inputs from the first to the last tap."""
        return (self.kernel - 1) * self.dilation + 1

    def count(self, n: int) -> int:
        """Outputs of `n` inputs that are padded already."""
        return 0 if n < self.span else (n - self.span) // self.stride + 1

    def needs(self, outputs: Interval) -> Interval:
        """Inputs under the windows of `outputs`."""
        start, stop = outputs
        return start * self.stride - self.before, (stop - 1) * self.stride - self.before + self.span


class Conv(Layer):
    """A convolution whose rank is the number of kernel axes.

    kernel, stride, dilation    one number per axis, or one for all
    pad                         zeros (before, after) per axis
    weight                      [C_out, C_in, *kernel]

        Conv(96, 96, (3, 3, 3), pad=((2, 0), (1, 1), (1, 1)))    causal in time: only zeros and the past
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        kernel: tuple[int, ...],
        *,
        stride: int | tuple[int, ...] = 1,
        dilation: int | tuple[int, ...] = 1,
        pad: tuple[Pad, ...] | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        rank = len(kernel)
        self.kernel = kernel
        self.stride = (stride,) * rank if isinstance(stride, int) else stride
        self.dilation = (dilation,) * rank if isinstance(dilation, int) else dilation
        self.pad = pad or ((0, 0),) * rank
        self._parameters_of(channels, out_channels, bias)

    def _parameters_of(self, channels: int, out_channels: int, bias: bool) -> None:
        shape = (out_channels, channels, *self.kernel)
        bound = (channels * prod(self.kernel)) ** -0.5
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound)) if bias else None

    def kernel_weight(self) -> Tensor:
        """The weight that the convolution multiplies with: [C_out, C_in, *kernel]."""
        return self.weight

    def window(self, axis: int) -> Window:
        """The window along `axis` (negative)."""
        before, after = self.pad[axis]
        return Window(self.kernel[axis], self.stride[axis], self.dilation[axis], before, after)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, *axes] -> [B, C_out, *axes']."""
        return self._convolve(x, self.kernel_weight(), self.pad)

    def _convolve(self, x: Tensor, weight: Tensor, pad: tuple[Pad, ...]) -> Tensor:
        if any(before != after for before, after in pad):
            shared = tuple(min(p) for p in pad)
            x = F.pad(x, [n - s for p, s in zip(reversed(pad), reversed(shared), strict=True) for n in p])
        else:
            shared = tuple(before for before, _ in pad)
        if len(pad) == 3 and x.shape[TIME] == self.kernel[TIME] == self.window(TIME).span and not shared[TIME]:
            # one frame comes out: its frames in are channels of a flat convolution, for which backends do better
            flat, kernel = x.flatten(1, 2), weight.flatten(1, 2)
            return F.conv2d(flat, kernel, self.bias, self.stride[1:], shared[1:], self.dilation[1:]).unsqueeze(2)
        return _CONV[len(pad)](x, weight, self.bias, self.stride, shared, self.dilation)  # type: ignore[no-any-return]

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """State: the last inputs that later windows still cover, and the weight, which is folded once per stream."""
        window = self.window(axis)
        buffer, weight = state or (None, None)
        if x is None and buffer is None:
            return None, state
        if weight is None:
            weight = self.kernel_weight()
        if x is not None and window.span == window.stride == 1 and window.before == window.after == 0:
            return self._convolve(x, weight, self.pad), (None, weight)
        before = window.before if buffer is None else 0
        after = window.after if last else 0
        buffer = x if buffer is None else buffer if x is None else torch.cat((buffer, x), axis)
        assert buffer is not None
        if before or after:
            buffer = F.pad(buffer, [0, 0] * (-axis - 1) + [before, after])
        size = buffer.shape[axis]
        # a stride wider than its window waits for the inputs in between, so that the next window starts in the buffer
        n = window.count(size if last else size - max(0, window.stride - window.span))
        if n == 0:
            return None, (buffer, weight)
        pad = tuple((0, 0) if i == len(self.pad) + axis else p for i, p in enumerate(self.pad))
        y = self._convolve(buffer.narrow(axis, 0, (n - 1) * window.stride + window.span), weight, pad)
        # a clone, since a view would keep the whole buffer alive
        used = min(n * window.stride, size)
        rest = buffer.narrow(axis, used, size - used).clone()
        return y, (rest, weight)

    def length(self, n: int, axis: int) -> int:
        """floor((n + before + after - span) / stride) + 1, never negative, and 0 for no input."""
        window = self.window(axis)
        return window.count(n + window.before + window.after) if n > 0 else 0

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """The inputs under the windows."""
        return self.window(axis).needs(outputs)

    def rate(self, axis: int) -> Fraction:
        """One in `stride`."""
        return Fraction(1, self.stride[axis])


class WeightNormConv(Conv):
    """A convolution with weight = weight_g * weight_v / |weight_v|, the norm over all axes but the first.

    weight_v [C_out, C_in, *kernel], weight_g [C_out, 1, ...]
    """

    weight_g: nn.Parameter
    weight_v: nn.Parameter

    def _parameters_of(self, channels: int, out_channels: int, bias: bool) -> None:
        super()._parameters_of(channels, out_channels, bias)
        weight_norm_parameters(self)

    def kernel_weight(self) -> Tensor:
        """The folded weight."""
        return torch._weight_norm(self.weight_v, self.weight_g, 0)


def weight_norm_parameters(module: nn.Module) -> None:
    """Replaces the parameter `weight` by `weight_g` and `weight_v`, which give the same weight."""
    weight = module._parameters.pop("weight")
    assert weight is not None
    # arithmetic on the meta device imports a symbolic algebra package, for nothing
    length = weight.new_empty(len(weight)) if weight.is_meta else weight.detach().flatten(1).norm(dim=1)
    module.weight_g = nn.Parameter(length.view(-1, *(1,) * (weight.dim() - 1)))
    module.weight_v = nn.Parameter(weight.detach())
