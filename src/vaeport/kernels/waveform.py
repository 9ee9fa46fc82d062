"""Layers over samples by the operators of `ops.py`: a waveform is a frame of one row."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from vaeport.kernels import hopper_conv
from vaeport.kernels.kept import Kept, in_place_of
from vaeport.kernels.ops import OPS
from vaeport.layers import Conv, Layer, Snake, WeightNormConv, WeightNormConvTranspose1d
from vaeport.layers.conv import Pad

_MOST_TAPS, _WIDEST = 7, 128
"""taps of a kernel, and inputs around those of a block"""


class FastWaveConv(Conv):
    """A convolution over samples, with weight norm or not; of a stride that divides its kernel, too."""

    adds = True
    _kept: Kept

    @classmethod
    def of(cls, conv: Conv) -> Self:
        """With the parameters of `conv`."""
        twin = in_place_of(cls, conv)
        twin._kept = Kept(lambda *weights: _pair(_unfolded(conv.kernel_weight(), conv.stride[0])))
        return twin

    @classmethod
    def serves(cls, layer: Layer) -> bool:
        """Whether the operator computes this layer."""
        if type(layer) not in (Conv, WeightNormConv):
            return False
        assert isinstance(layer, Conv)
        (kernel, *more), stride, dilation = layer.kernel, layer.stride[0], layer.dilation[0]
        if more or kernel % stride or (stride > 1 and dilation > 1):
            return False
        return kernel // stride <= _MOST_TAPS and (kernel // stride - 1) * dilation <= _WIDEST

    def kernel_weight(self) -> Tensor:
        """The folded weight, with what a stride passes over as channels: [O, C * stride, kernel / stride]."""
        return self._weights()[0]

    def _weights(self) -> tuple[Tensor, ...]:
        return self._kept.of(*(p for name, p in self._parameters.items() if p is not None and name != "bias"))

    def _convolve(self, x: Tensor, weight: Tensor, pad: tuple[Pad, ...]) -> Tensor:
        return self._run(x, pad, None)

    def plus(self, x: Tensor, addend: Tensor) -> Tensor:
        """The addend joins the sums before they are rounded."""
        return self._run(x, self.pad, addend)

    def _run(self, x: Tensor, pad: tuple[Pad, ...], addend: Tensor | None) -> Tensor:
        weight, packed = self._weights()
        ((before, after),), stride = pad, self.stride[0]
        if stride > 1:  # positions between two windows are channels of one
            batch, channels, n = x.shape
            count = self.window(-1).count(n + before + after) + self.kernel[0] // stride - 1
            row = x.new_zeros(batch, count * stride, channels)
            end = min(n, count * stride - before)
            row[:, before : before + end] = x.movedim(1, -1)[:, :end]
            x, before, after = row.view(batch, count, stride * channels).movedim(-1, 1), 0, 0
        more = None if addend is None else _row(addend)
        sides = [0, 0, before], [0, 0, after]
        y: Tensor = OPS.conv(
            _row(x), None, _row(weight), self.bias, packed, self.bias, more, *sides, [1, 1, 1], self.dilation[0],
            False, [1, 1, 1], "groups",
        )  # fmt: skip
        return y[:, :, 0, 0]


class FastWaveUp(WeightNormConvTranspose1d):
    """A transposed convolution of twice its stride: each output sees two inputs, so `stride` groups of channels."""

    _kept: Kept

    @classmethod
    def of(cls, conv: WeightNormConvTranspose1d) -> Self:
        """With the parameters of `conv`."""
        twin = in_place_of(cls, conv)
        twin._kept = Kept(lambda v, g: _pair(_groups(conv.kernel_weight(), conv.stride)))
        return twin

    @classmethod
    def serves(cls, layer: Layer) -> bool:
        """Whether the operator computes this layer."""
        if type(layer) is not WeightNormConvTranspose1d or layer.kernel != 2 * layer.stride:
            return False
        return layer.weight_v.shape[1] % 32 == 0

    def kernel_weight(self) -> Tensor:
        """The folded weight by groups: [stride * C_out, C_in, 2]."""
        return self._kept.of(self.weight_v, self.weight_g)[0]

    def _transposed(self, x: Tensor, weight: Tensor, crop: int) -> Tensor:
        weight, packed = self._kept.of(self.weight_v, self.weight_g)
        bias = self.bias.repeat(self.stride)
        y: Tensor = OPS.conv(
            _row(x), None, _row(weight), bias, packed, bias, None, [0, 0, 1], [0, 0, 1], [1, 1, 1], 1, False,
            [1, 1, self.stride], "groups",
        )  # fmt: skip
        return y[:, :, 0, 0, crop : y.shape[-1] - crop]


class FastSnake(Snake):
    """`Snake` in one pass, in float32 at least."""

    @classmethod
    def of(cls, snake: Snake) -> Self:
        """With the parameters of `snake`."""
        return in_place_of(cls, snake)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, L], same shape."""
        y: Tensor = OPS.snake(x, self.log_alpha, self.log_beta)
        return y


def _row(x: Tensor) -> Tensor:
    """[B, C, L] -> [B, C, 1, 1, L]."""
    return x[:, :, None, None]


def _unfolded(weight: Tensor, stride: int) -> Tensor:
    """[O, C, taps * stride] -> [O, stride * C, taps]."""
    if stride == 1:
        return weight
    out, channels, kernel = weight.shape
    return weight.view(out, channels, kernel // stride, stride).permute(0, 3, 1, 2).reshape(out, -1, kernel // stride)


def _groups(weight: Tensor, stride: int) -> Tensor:
    """[C_in, C_out, 2 * stride] -> [stride * C_out, C_in, 2], of the input before and the one at an output."""
    before, here = weight[..., stride:], weight[..., :stride]
    return torch.stack((before, here), -1).permute(2, 1, 0, 3).reshape(-1, weight.shape[0], 2)


def _pair(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [O, C, taps], and as the kernel of its device reads it, empty where the definition runs."""
    return weight, hopper_conv.packed(_row(weight)) if weight.is_cuda else weight.new_empty(0)
