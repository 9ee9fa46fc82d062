"""Nearest upsampling and the 3 x 3 convolution behind it in one, with a third of the multiplications.

Of the three rows k0, k1, k2 that a kernel multiplies with, two meet the same row x of the input (x+ and x- beside it):

    even output row     k0 x- + (k1 + k2) x = (k0 + k1 + k2) x - k0 (x - x-)
    odd output row      (k0 + k1) x + k2 x+ = (k0 + k1 + k2) x - k2 (x - x+)

so three products give two rows, and likewise two columns need a kernel of two columns each: 12 products instead of 36.
"""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeport.kernels.kept import Kept, served, worthwhile
from vaeport.layers.conv import Conv
from vaeport.layers.layer import Chunk, Interval, Layer, State
from vaeport.layers.resample import NearestUpsample


class FoldedUpsample(Layer):
    """y = conv(upsample(x)): the sums of the two layers in another order, for float32 and float64 without gradients.

    x [N, C, H, W]; conv.weight [O, C, 3, 3], zeros around; y [N, O, 2H, 2W]. Infinite inputs give NaN around them.
    """

    def __init__(self, upsample: NearestUpsample, conv: Conv) -> None:
        super().__init__()
        self.upsample, self.conv = upsample, conv
        self._folded = Kept(folded)

    @classmethod
    def of(cls, upsample: NearestUpsample, conv: Conv) -> FoldedUpsample:
        """With the parameters of `conv`."""
        return cls(upsample, conv)

    @classmethod
    def serves(cls, upsample: Layer, conv: Layer) -> bool:
        """Whether these two are what the class computes."""
        return (
            type(upsample) is NearestUpsample
            and upsample.factors == (2, 2)
            and type(conv) is Conv
            and conv.kernel == (3, 3)
            and conv.pad == ((1, 1), (1, 1))
            and set(conv.stride) == set(conv.dilation) == {1}
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, O, 2H, 2W]."""
        weight, bias = self.conv.weight, self.conv.bias
        if not (worthwhile(x.numel()) and served(x, weight, bias)):
            y: Tensor = self.conv(self.upsample(x))
            return y
        (batch, _, height, width), channels = x.shape, weight.shape[0]
        whole, *parts = self._folded.of(weight)
        level = F.conv2d(x, whole, None if bias is None else bias.repeat(2), padding=(0, 1))
        y = x.new_empty(batch, channels, height, 2, width, 2)
        for row, part in enumerate(parts):
            slope, inner, edge = torch.empty_like(x), 1 - row, (0, height - 1)[row]
            torch.sub(
                x[:, :, inner : height - row], x[:, :, row : height - inner], out=slope[:, :, inner : height - row]
            )
            slope[:, :, edge] = x[:, :, edge]
            bend = F.conv2d(slope, part, padding=(0, 1))
            for column in (0, 1):
                a, b = (t.unflatten(1, (2, -1))[:, column, :, :, column : column + width] for t in (level, bend))
                torch.sub(a, b, out=y[:, :, :, row, :, column])
        return y.view(batch, channels, 2 * height, 2 * width)

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """State: the last input, whose second output waits for the next one."""
        known = x if state is None else state if x is None else torch.cat((state, x), axis)
        if known is None or (x is None and not last):
            return None, state
        n, start = known.shape[axis], 0 if state is None else 1
        y = self(known).narrow(axis, start, 2 * n - start - (0 if last else 1))
        # a clone, since a view would keep the whole piece alive
        return y, known.narrow(axis, n - 1, 1).clone()

    def length(self, n: int, axis: int) -> int:
        """2n."""
        return self.conv.length(self.upsample.length(n, axis), axis)

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """What the convolution needs, before it was repeated."""
        repeated = self.conv.needs(outputs, axis)
        return None if repeated is None else self.upsample.needs(repeated, axis)

    def rate(self, axis: int) -> Fraction:
        """Two."""
        return self.upsample.rate(axis)


def folded(weight: Tensor) -> tuple[Tensor, ...]:
    """[O, C, 3, 3] -> k0 + k1 + k2, k0 and k2, each [2 O, C, 1, 2]: the kernels of even columns, then of odd ones."""
    k0, k1, k2 = weight.double().unbind(2)
    return tuple(_columns(rows).to(weight.dtype) for rows in (k0 + k1 + k2, k0, k2))


def _columns(row: Tensor) -> Tensor:
    a, b, c = row.unbind(-1)
    return torch.cat((torch.stack((a, b + c), -1), torch.stack((a + b, c), -1))).unsqueeze(2)
