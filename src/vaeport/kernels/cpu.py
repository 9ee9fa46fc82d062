"""Layers as they run fastest on a CPU, where multiplications and passes through memory are what takes time.

Tensors stay as they are laid out. Channels last, oneDNN multiplies by other kernels, which are a twelfth faster but
take the products of all channels and taps in one sum: errors in float32 grow 2.5-fold (Wan) to 4.6-fold (FLUX).
"""

from __future__ import annotations

from typing import Self

from torch import Tensor

from vaeport.kernels.kept import in_place_of, served
from vaeport.kernels.single_frame import SingleFrame
from vaeport.kernels.winograd import MinimalConv
from vaeport.layers.layer import Layer
from vaeport.layers.norm import ChannelRMSNorm


class CausalConv(MinimalConv, SingleFrame):
    """A causal convolution over [B, C, T, H, W]: a first frame alone takes one tap, two frames take four."""

    @classmethod
    def serves(cls, conv: Layer) -> bool:
        """Whether both classes compute this layer."""
        return SingleFrame.serves(conv) and MinimalConv.serves(conv)


class SummedRMSNorm(ChannelRMSNorm):
    """y = x / max(sqrt(sum(x^2)), 1e-12) * sqrt(C) * gain, over the channels of each position, in fewer passes.

    x [B, C, *axes]; gain [C]. For float32 and float64 without gradients; else as `ChannelRMSNorm`.
    """

    @classmethod
    def of(cls, norm: ChannelRMSNorm) -> Self:
        """With the gain of `norm`."""
        return in_place_of(cls, norm)

    @classmethod
    def serves(cls, norm: Layer) -> bool:
        """Whether the layer is that norm and nothing else."""
        return type(norm) is ChannelRMSNorm

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes], same shape."""
        if not served(x, self.gain):
            return super().forward(x)
        # summed as torch sums, eight columns at a time; `linalg.vector_norm` walks through the channels one by one
        length = x.square().sum(1, keepdim=True).sqrt_().clamp_(min=1e-12)
        gain = self.gain * self.gain.numel() ** 0.5
        return x.div(length).mul_(gain.view(-1, *(1,) * (x.dim() - 2)))
