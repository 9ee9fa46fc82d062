"""Convolutions with two thirds of the multiplications: minimal filtering F(2, 3) along one axis.

Two neighbouring outputs of three taps g, from four inputs d, take four products instead of six:

    p0 = (d0 - d2) g0       p1 = (d1 + d2) (g0 + g1 + g2) / 2
    p3 = (d1 - d3) g2       p2 = (d2 - d1) (g0 - g1 + g2) / 2
    y0 = p0 + p1 + p2       y1 = p1 - p2 - p3

Each product is a convolution over the other axes. Source: Lavin and Gray, arXiv 1509.09308; here along one axis alone,
where rounding errors are no larger than those of the plain sum.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeport.kernels.kept import Kept, served, worthwhile
from vaeport.layers.conv import Conv, Pad
from vaeport.layers.layer import Layer


class MinimalConv(Conv):
    """As `Conv`: the sums in another order, for float32 and float64 without gradients.

    x [B, C, H, W] or [B, C, T, H, W]; the first axis of the kernel has three taps. Infinite inputs give NaN nearby.
    """

    _filters: Kept

    @classmethod
    def of(cls, conv: Conv) -> Self:
        """With the parameters of `conv`."""
        twin = cls.__new__(cls)
        twin.__dict__.update(copy(conv).__dict__)
        twin._filters = Kept(filters)
        return twin

    @classmethod
    def serves(cls, conv: Layer) -> bool:
        """Whether the class computes this layer, and faster than it does itself.

        With few channels the additions take longer than the multiplications that they save, with one row sooner.
        """
        if type(conv) is not Conv or len(conv.kernel) not in (2, 3) or conv.kernel[0] != 3:
            return False
        least = 128 if len(conv.kernel) == 2 else 32
        return set(conv.stride) == set(conv.dilation) == {1} and min(conv.weight.shape[:2]) >= least

    def _convolve(self, x: Tensor, weight: Tensor, pad: tuple[Pad, ...]) -> Tensor:
        rank = len(pad)
        n = x.shape[-rank] + sum(pad[0]) - 2
        if n < 2 or not (worthwhile(x.numel() // x.shape[-rank] * (n // 2)) and served(x, weight, self.bias)):
            return super()._convolve(x, weight, pad)
        # a convolution takes as many zeros on both sides alone; those of the first axis are never made
        inner = [0 if before != after else before for before, after in pad[1:]]
        sides = [side - k for p, k in zip(reversed(pad[1:]), reversed(inner), strict=True) for side in p]
        x = F.pad(x, sides) if any(sides) else x
        sizes = [x.shape[i] + 2 * inner[i] - self.kernel[i] + 1 for i in range(1 - rank, 0)]
        y = x.new_empty(x.shape[0], weight.shape[0], n, *sizes)
        self._pairs(x, y, weight, inner, pad[0][0])
        if n % 2:
            first = n - 1 - pad[0][0]
            start, stop = max(first, 0), min(first + 3, x.shape[-rank])
            edges = (start - first, first + 3 - stop)
            rest = super()._convolve(x.narrow(-rank, start, stop - start), weight, (edges, *((p, p) for p in inner)))
            y.narrow(-rank, n - 1, 1).copy_(rest)
        return y

    def _pairs(self, x: Tensor, y: Tensor, weight: Tensor, inner: list[int], before: int) -> None:
        """Writes the outputs 2i and 2i + 1 into `y`."""
        frames = len(inner) == 2
        if frames:  # are samples of a flat convolution
            x, y, axis = x.transpose(1, 2), y.transpose(1, 2), 1
        else:
            inner, axis = [0, *inner], 2
        n = y.shape[axis] // 2
        filters, ahead = self._filters.of(weight), (slice(None),) * axis
        d = [_Taps.of(x, axis, i - before, n) for i in range(4)]
        mixed = x.new_empty(*x.shape[:axis], n, *x.shape[axis + 1 :])

        def product(i: int, a: int, b: int, sign: int, bias: Tensor | None = None) -> Tensor:
            d[a].plus(d[b], sign, mixed)
            p = F.conv2d(mixed.flatten(0, 1) if frames else mixed, filters[i], bias, padding=inner)
            return p.unflatten(0, mixed.shape[:2]) if frames else p

        p1, p2 = product(1, 1, 2, 1, self.bias), product(2, 2, 1, -1)
        torch.add(product(0, 0, 2, -1).add_(p1), p2, out=y[(*ahead, slice(0, 2 * n, 2))])
        torch.sub(p1.sub_(p2), product(3, 1, 3, -1), out=y[(*ahead, slice(1, 2 * n, 2))])


@dataclass(frozen=True)
class _Taps:
    """Every second input: those under one tap of all pairs from the pair `start` on; the pairs before see zeros there."""

    inputs: Tensor
    axis: int
    start: int

    @classmethod
    def of(cls, x: Tensor, axis: int, offset: int, pairs: int) -> _Taps:
        start = max(0, -(offset // 2))
        rows = slice(offset + 2 * start, max(0, offset + 2 * pairs), 2)
        return cls(x[(*(slice(None),) * axis, rows)], axis, start)

    @property
    def stop(self) -> int:
        return self.start + self.inputs.shape[self.axis]

    def between(self, start: int, stop: int) -> Tensor:
        return self.inputs.narrow(self.axis, start - self.start, stop - start)

    def plus(self, other: _Taps, sign: int, out: Tensor) -> None:
        """self + sign * other"""
        pairs, axis = out.shape[self.axis], self.axis
        start, stop = max(self.start, other.start), min(self.stop, other.stop)
        torch.add(
            self.between(start, stop), other.between(start, stop), alpha=sign, out=out.narrow(axis, start, stop - start)
        )
        for i in (*range(start), *range(stop, pairs)):
            edge = out.narrow(axis, i, 1).zero_()
            for taps, factor in ((self, 1), (other, sign)):
                if taps.start <= i < taps.stop:
                    edge.add_(taps.between(i, i + 1), alpha=factor)


def filters(weight: Tensor) -> tuple[Tensor, ...]:
    """[O, C, 3, *kernel] -> g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2: each [O, C, *kernel], over two axes."""
    g0, g1, g2 = weight.double().unbind(2)
    sums = (g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2)
    return tuple((g if g.dim() == 4 else g.unsqueeze(2)).to(weight.dtype).contiguous() for g in sums)
