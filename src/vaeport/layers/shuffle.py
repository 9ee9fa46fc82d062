"""Positions to channels and back: the N-dimensional pixel (un)shuffle."""

from __future__ import annotations

from fractions import Fraction
from math import prod

import torch
from torch import Tensor

from vaeport.layers.layer import Chunk, Interval, Layer, State

Factors = tuple[int, int, int]
"""of time, height, width"""


class Unshuffle(Layer):
    """Blocks of t x h x w positions become channels; what does not fill a block is dropped.

    channel of the output = ((c * t + i_t) * h + i_h) * w + i_w, with `width_first` ((c * t + i_t) * w + i_w) * h + i_h.
    """

    def __init__(self, factors: Factors, *, width_first: bool = False) -> None:
        super().__init__()
        self.factors, self.width_first = factors, width_first

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C * t * h * w, T // t, H // h, W // w]."""
        batch, channels, *axes = x.shape
        counts = [n // f for n, f in zip(axes, self.factors, strict=True)]
        for axis, (n, f) in enumerate(zip(counts, self.factors, strict=True), 2):
            x = x.narrow(axis, 0, n * f) if x.shape[axis] != n * f else x
        split = [size for pair in zip(counts, self.factors, strict=True) for size in pair]
        inner = (3, 7, 5) if self.width_first else (3, 5, 7)
        y = x.reshape(batch, channels, *split).permute(0, 1, *inner, 2, 4, 6)
        return y.reshape(batch, channels * prod(self.factors), *counts)

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """State: the positions that do not fill a block yet."""
        factor = self.factors[axis]
        known = x if state is None else state if x is None else torch.cat((state, x), axis)
        if known is None or known.shape[axis] < factor:
            return None, known
        used = known.shape[axis] // factor * factor
        rest = known.shape[axis] - used
        # a clone, since a view would keep the whole piece alive
        return self(known), known.narrow(axis, used, rest).clone() if rest else None

    def length(self, n: int, axis: int) -> int:
        """n // factor."""
        return n // self.factors[axis]

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """The blocks."""
        factor = self.factors[axis]
        return outputs[0] * factor, outputs[1] * factor

    def rate(self, axis: int) -> Fraction:
        """One in `factor`."""
        return Fraction(1, self.factors[axis])


class Shuffle(Layer):
    """The inverse of `Unshuffle` with the same arguments."""

    def __init__(self, factors: Factors, *, width_first: bool = False) -> None:
        super().__init__()
        self.factors, self.width_first = factors, width_first

    def forward(self, x: Tensor) -> Tensor:
        """[B, C * t * h * w, T, H, W] -> [B, C, t * T, h * H, w * W]."""
        batch, channels, *axes = x.shape
        t, h, w = self.factors
        inner = (t, w, h) if self.width_first else (t, h, w)
        order = (0, 1, 5, 2, 6, 4, 7, 3) if self.width_first else (0, 1, 5, 2, 6, 3, 7, 4)
        y = x.reshape(batch, channels // (t * h * w), *inner, *axes).permute(order)
        return y.reshape(batch, -1, *(n * f for n, f in zip(axes, self.factors, strict=True)))

    def length(self, n: int, axis: int) -> int:
        """factor * n."""
        return n * self.factors[axis]

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """The positions whose channels are spread out."""
        factor = self.factors[axis]
        return outputs[0] // factor, -(-outputs[1] // factor)

    def rate(self, axis: int) -> Fraction:
        """The factor."""
        return Fraction(self.factors[axis])
