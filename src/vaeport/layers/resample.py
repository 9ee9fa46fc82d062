"""Parameter-free changes of resolution."""

from __future__ import annotations

from fractions import Fraction
from math import prod

import torch.nn.functional as F
from torch import Tensor

from vaeport.layers.large import in_parts
from vaeport.layers.layer import TIME, Interval, Layer


class NearestUpsample(Layer):
    """Every position becomes factor x factor positions, or as many as the factors of the last axes say."""

    def __init__(self, factor: int | tuple[int, ...] = 2) -> None:
        super().__init__()
        self.factors = (factor, factor) if isinstance(factor, int) else factor

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] or [B, C, T, H, W], as many axes as factors -> each axis its factor times as long."""
        return in_parts(self._upsampled, x, x.numel() * prod(self.factors))

    def _upsampled(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=[float(f) for f in self.factors], mode="nearest")

    def length(self, n: int, axis: int) -> int:
        """factor * n."""
        return int(n * self.rate(axis))

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """The positions that are repeated."""
        return _repeated(outputs, int(self.rate(axis)))

    def rate(self, axis: int) -> Fraction:
        """The axis' factor."""
        return Fraction(self.factors[axis] if -axis <= len(self.factors) else 1)


class RepeatFrames(Layer):
    """Every frame of [B, C, T, H, W] `factor` times: nearest upsampling in time."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C, factor * T, H, W]."""
        return x.repeat_interleave(self.factor, TIME)

    def length(self, n: int, axis: int) -> int:
        """factor * n frames."""
        return int(n * self.rate(axis))

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """The frames that are repeated."""
        return _repeated(outputs, int(self.rate(axis)))

    def rate(self, axis: int) -> Fraction:
        """The factor, in time."""
        return Fraction(self.factor if axis == TIME else 1)


class ChannelsToTime(Layer):
    """[B, factor * C, T, H, W] -> [B, C, factor * T, H, W]: the i-th C channels are frame i of each group of frames."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        b, c, t, h, w = x.shape
        return (
            x.view(b, self.factor, c // self.factor, t, h, w)
            .permute(0, 2, 3, 1, 4, 5)
            .reshape(b, -1, t * self.factor, h, w)
        )

    def length(self, n: int, axis: int) -> int:
        """factor * n frames."""
        return int(n * self.rate(axis))

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """The frames whose channels are spread out."""
        return _repeated(outputs, int(self.rate(axis)))

    def rate(self, axis: int) -> Fraction:
        """The factor, in time."""
        return Fraction(self.factor if axis == TIME else 1)


def _repeated(outputs: Interval, rate: int) -> Interval:
    return outputs[0] // rate, -(-outputs[1] // rate)
