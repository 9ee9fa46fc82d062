"""The first frame through a causal convolution: one tap in time, since the others meet zeros.

y[0] = bias + weight[-1] * x[0]
"""

from __future__ import annotations

from typing import Self

import torch.nn.functional as F
from torch import Tensor

from vaeport.kernels.kept import in_place_of
from vaeport.layers.conv import Conv, Pad
from vaeport.layers.layer import TIME, Chunk, Layer, State


class SingleFrame(Conv):
    """As `Conv`; where a single frame comes first, zeros before it are not multiplied. Any type and device.

    x [B, C, T, H, W]; causal: as many zeros before the first frame as a window has taps for the past.
    """

    @classmethod
    def of(cls, conv: Conv) -> Self:
        """With the parameters of `conv`."""
        return in_place_of(cls, conv)

    @classmethod
    def serves(cls, conv: Layer) -> bool:
        """Whether the layer is a causal convolution that sees more than one frame."""
        if type(conv) is not Conv or len(conv.kernel) != 3 or conv.stride[TIME] != 1:
            return False
        return conv.kernel[TIME] > 1 and conv.pad[TIME] == (conv.window(TIME).span - 1, 0)

    def _convolve(self, x: Tensor, weight: Tensor, pad: tuple[Pad, ...]) -> Tensor:
        if x.shape[TIME] > 1 or pad[TIME][0] != self.window(TIME).span - 1:
            return super()._convolve(x, weight, pad)
        shared = [min(side) for side in pad[1:]]
        sides = [n - s for p, s in zip(reversed(pad[1:]), reversed(shared), strict=True) for n in p]
        flat = F.pad(x.squeeze(TIME), sides) if any(sides) else x.squeeze(TIME)
        last = weight.select(TIME, -1)
        return F.conv2d(flat, last, self.bias, self.stride[1:], shared, self.dilation[1:]).unsqueeze(TIME)

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """State: as `Conv`."""
        if axis != TIME or state is not None or x is None or x.shape[TIME] > 1:
            return super().step(x, state, last, axis)
        weight = self.kernel_weight()
        past = F.pad(x, (0, 0, 0, 0, self.window(TIME).before - 1, 0))
        return self._convolve(x, weight, self.pad), (past, weight)
