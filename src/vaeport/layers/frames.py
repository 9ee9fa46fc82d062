"""What is done at the start of a video."""

from __future__ import annotations

from torch import Tensor

from vaeport.layers.layer import TIME, Chunk, Interval, Layer, State


class DropFrames(Layer):
    """Leaves out the first `count` frames of [B, C, T, H, W]."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C, T - count, H, W]."""
        return x[:, :, self.count :]

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """State, in time: how many frames have been left out."""
        if x is None or axis != TIME:
            return (None if x is None else self(x)), state
        dropped = state or 0
        y = x[:, :, self.count - dropped :]
        return (y if y.shape[TIME] else None), min(self.count, dropped + x.shape[TIME])

    def length(self, n: int, axis: int) -> int:
        """n - count frames."""
        return max(0, n - self.count) if axis == TIME else n

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """The same frames, counted from the first."""
        return (outputs[0] + self.count, outputs[1] + self.count) if axis == TIME else outputs
