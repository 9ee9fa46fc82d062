"""Padding that is not zeros: zeros are an argument of `Conv`."""

from __future__ import annotations

import torch
from torch import Tensor

from vaeport.layers.layer import TIME, Chunk, Interval, Layer, State


class ReplicatePad(Layer):
    """Frame 0 of [B, C, T, H, W] `before` times more in front of itself: what a causal convolution sees as its past."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.before = before

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C, before + T, H, W]."""
        return torch.cat((x[:, :, :1].expand(-1, -1, self.before, -1, -1), x), TIME)

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """In time: the first piece is padded, the others pass. State: whether there was one."""
        if x is None or (axis == TIME and state):
            return x, state
        return self(x), True

    def length(self, n: int, axis: int) -> int:
        """before + n frames; no frames of nothing."""
        return n + self.before if axis == TIME and n > 0 else n

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """The padding is frame 0."""
        if axis != TIME:
            return outputs
        start, stop = outputs
        return max(start - self.before, 0), max(stop - self.before, 1)
