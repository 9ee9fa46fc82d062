"""Norms by the operators of `ops.py`, with the activation and the edges behind them in the same pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vaeport.kernels.kept import Kept
from vaeport.kernels.ops import OPS, merged
from vaeport.layers.layer import Barrier, Chunk, Interval, Layer, Settled, State
from vaeport.layers.norm import ChannelRMSNorm, GroupNorm, PixelNorm
from vaeport.layers.pad import Pad


def edges_of(pad: Pad | None) -> tuple[list[int], str]:
    """(top, bottom, left, right) and mode of a pad that leaves time alone, as the operators take them."""
    if pad is None:
        return [], "replicate"
    return [n for side in pad.pads[-2:] for n in side], pad.mode


class FastNorm(Layer):
    """A norm over the channels of each position, then an activation if `silu`, then edges in height and width."""

    def __init__(self, norm: ChannelRMSNorm | PixelNorm, silu: bool, pad: Pad | None = None) -> None:
        super().__init__()
        self.norm, self.silu, self.pad = norm, silu, pad
        self._gain = Kept(lambda gain: (gain.to(torch.promote_types(gain.dtype, torch.float32)) * gain.numel() ** 0.5,))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes] -> the same, or with edges."""
        return self._run(x, self.pad)

    def _run(self, x: Tensor, pad: Pad | None) -> Tensor:
        norm, (edges, mode) = self.norm, edges_of(pad)
        if isinstance(norm, PixelNorm):
            given: tuple[Any, ...] = (None, 1.0 / x.shape[1], norm.eps, 0.0)
        else:
            given = (*self._gain.of(norm.gain), 1.0, 0.0, 1e-24)
        y: Tensor = OPS.unit(x, *given, self.silu, edges, mode)
        return y

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """Positions are alone but for the edges."""
        if self.pad is None or not any(self.pad.pads[axis]):
            return (None if x is None else self(x)), state
        return self.pad.step(None if x is None else self._run(x, None), state, last, axis)

    def length(self, n: int, axis: int) -> int:
        """With the edges."""
        return n if self.pad is None else self.pad.length(n, axis)

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """Behind the edges."""
        return outputs if self.pad is None else self.pad.needs(outputs, axis)


class FastGroupNorm(Barrier):
    """A group norm, then an activation if `silu`."""

    def __init__(self, norm: GroupNorm, silu: bool) -> None:
        super().__init__()
        self.norm, self.silu = norm, silu

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes], same shape."""
        return self.with_edges(x, None)

    def with_edges(self, x: Tensor, pad: Pad | None) -> Tensor:
        """[B, C, *axes] -> with the edges in height and width."""
        slope, offset = self._affine(OPS.moments(x, self.norm.groups))
        y: Tensor = OPS.scaled(x, slope, offset, self.silu, *edges_of(pad))
        return y

    def _affine(self, notes: Tensor) -> Any:
        return OPS.affine(notes, self.norm.weight, self.norm.bias, self.norm.eps)

    def note(self, x: Tensor) -> Tensor:
        """Count, mean and sum of squared deviations of each sample's groups: [B, groups, 3] in float64."""
        return merged(OPS.moments(x, self.norm.groups))

    def settled(self, notes: Sequence[Tensor], axis: int) -> Settled:
        """With the statistics of all pieces."""
        wide = torch.promote_types(self.norm.weight.dtype, torch.float32)
        slope, offset = self._affine(torch.stack(tuple(notes), 1).to(wide))
        return SettledScale(slope, offset, self.silu, axis)


class SettledScale(Settled):
    """silu(x * slope + offset), which are [B, C]."""

    def __init__(self, slope: Tensor, offset: Tensor, silu: bool, axis: int) -> None:
        super().__init__(axis)
        self.slope, self.offset, self.silu = slope, offset, silu

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes], same shape."""
        y: Tensor = OPS.scaled(x, self.slope, self.offset, self.silu, [], "replicate")
        return y
