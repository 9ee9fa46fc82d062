"""A combinator for causal video models, whose first frame is an image of its own: `SplitFirst`."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from vaeport.layers.combine import in_pairs
from vaeport.layers.layer import TIME, Chunk, Interval, Layer, State, hull


class SplitFirst(Layer):
    """Frame 0 goes through `first`, the others through `rest`; outputs follow each other in time.

    first   [B, C, 1, H, W] -> [B, D, 1, H, W]
    rest    sees frames 1.. or, with `shared`, frame 0 too
    """

    def __init__(self, first: Layer, rest: Layer, *, shared: bool = False) -> None:
        super().__init__()
        self.first = first
        self.rest = rest
        self.skip = 0 if shared else 1

    def forward(self, x: Tensor) -> Tensor:
        """Frame 0 first, then what `rest` gives, which may be nothing."""
        y: Tensor = self.first(x[:, :, :1])
        if self.rest.length(x.shape[TIME] - self.skip, TIME) <= 0:
            return y
        return torch.cat((y, self.rest(x[:, :, self.skip :])), TIME)

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """In time: `first` on the very first frame, then `rest`. Along other axes: both, side by side."""
        if x is None and state is None:
            return None, None
        if axis != TIME:
            return self._step_across(x, state, last, axis)
        head: Chunk = None
        if x is not None and state is None:
            head, x = self.first(x[:, :, :1]), x[:, :, self.skip :] if x.shape[TIME] > self.skip else None
        y, rest = self.rest.step(x, None if state is None else state[0], last, axis)
        return _joined(head, y), (rest,)

    def _step_across(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        first, rest, waiting, has_rest = state or (None, None, (None, None), False)
        if x is not None:
            has_rest = self.rest.length(x.shape[TIME] - self.skip, TIME) > 0
        y, first = self.first.step(None if x is None else x[:, :, :1], first, last, axis)
        if has_rest:
            z, rest = self.rest.step(None if x is None else x[:, :, self.skip :], rest, last, axis)
            (y, z), waiting = in_pairs((y, z), waiting, axis)
            y = _joined(y, z)
        return y, (first, rest, waiting, has_rest)

    def length(self, n: int, axis: int) -> int:
        """In time 1 + what `rest` gives; along other axes what `first` gives."""
        if axis != TIME:
            return self.first.length(n, axis)
        return 0 if n < 1 else 1 + max(0, self.rest.length(n - self.skip, axis))

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """Output 0 needs frame 0; output k is output k-1 of `rest`."""
        start, stop = outputs
        if axis != TIME:
            return hull(self.first.needs(outputs, axis), self.rest.needs(outputs, axis))
        if stop <= 1:
            return 0, 1
        rest = self.rest.needs((max(start, 1) - 1, stop - 1), axis)
        if rest is None:
            return None
        # frames before `rest` begins are its own padding, not frame 0
        shifted = (max(rest[0], 0) + self.skip, rest[1] + self.skip)
        return hull((0, 1), shifted) if start < 1 else shifted

    def rate(self, axis: int) -> Fraction:
        """That of `rest`."""
        return self.rest.rate(axis)


def _joined(a: Chunk, b: Chunk) -> Chunk:
    if a is None or b is None:
        return b if a is None else a
    return torch.cat((a, b), TIME)
