"""`Bands`: an activation that is written and read piece by piece, and let go as soon as nobody needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from vaeport.layers.layer import TIME, Interval


@dataclass(frozen=True)
class Band:
    """A part of an activation: its first position along the bands' axis, and its slices along another."""

    start: int
    slices: tuple[Tensor, ...]

    def length(self, axis: int) -> int:
        """Along the axis of the bands."""
        return self.slices[0].shape[axis]


class Bands:
    """Tensors that follow each other along `axis`.

    resident    bytes that stay on the device; what is over waits in (pinned) host memory; None: all stay
    sliced      an axis and a length: what waits is cut so, since it comes back slice by slice
    """

    def __init__(
        self, axis: int, device: torch.device, resident: int | None = None, sliced: tuple[int, int] | None = None
    ) -> None:
        self.axis, self.device, self.resident, self.sliced = axis, device, resident, sliced
        self.bands: list[Band] = []
        self.length = 0

    @classmethod
    def of(cls, x: Tensor, axis: int) -> Bands:
        """A tensor as one band."""
        bands = cls(axis, x.device)
        bands.append((x,))
        return bands

    def size(self, axis: int) -> int:
        """Along any axis."""
        if axis == self.axis:
            return self.length
        slices = self.bands[0].slices
        along = axis == (self.sliced or (axis,))[0]
        return sum(t.shape[axis] for t in slices) if along else slices[0].shape[axis]

    def kept(self, band: Tensor) -> tuple[Tensor, ...]:
        """The band as it will be kept."""
        held = sum(t.nbytes for part in self.bands for t in part.slices if t.device == self.device)
        if self.resident is None or held + band.nbytes <= self.resident:
            # a view would keep the rows that were cut off, too
            return (band.contiguous(),)
        slices = (band,) if self.sliced is None else band.split(self.sliced[1], self.sliced[0])
        return tuple(_parked(part) for part in slices)

    def append(self, band: tuple[Tensor, ...]) -> None:
        """The next one, as `kept` gave it."""
        self.bands.append(Band(self.length, band))
        self.length += self.bands[-1].length(self.axis)

    def read(self, rows: Interval, axis: int, frames: Interval | None = None) -> Tensor:
        """Those rows along `axis`, of those frames if given, on the device."""
        wanted, across, other = (rows, frames, TIME) if axis == self.axis else (frames, rows, axis)
        assert wanted is not None
        if across is None and self.sliced is not None:
            other = self.sliced[0]
        found = []
        for band in self.bands:
            first, last = max(wanted[0] - band.start, 0), min(wanted[1] - band.start, band.length(self.axis))
            if first < last:
                parts = self._across(band, other, across)
                found.append(_joined(parts, other).narrow(self.axis, first, last - first))
        return _joined(found, self.axis)

    def _across(self, band: Band, axis: int, interval: Interval | None) -> list[Tensor]:
        """The slices on the device, cut to the interval; each is moved as it lies, in one stretch."""
        if interval is None:
            return [part.to(self.device, non_blocking=True) for part in band.slices]
        found, start = [], 0
        for part in band.slices:
            stop = start + part.shape[axis]
            first, last = max(interval[0], start), min(interval[1], stop)
            if first < last:
                found.append(part.to(self.device, non_blocking=True).narrow(axis, first - start, last - first))
            start = stop
        return found

    def release(self, below: int) -> None:
        """What lies below that position is not read again."""
        self.bands = [band for band in self.bands if band.start + band.length(self.axis) > below]


def _parked(x: Tensor) -> Tensor:
    waiting = torch.empty(x.shape, dtype=x.dtype, pin_memory=x.is_cuda)
    # what has gaps would be copied row by row
    return waiting.copy_(x.contiguous(), non_blocking=True)


def _joined(parts: Sequence[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts), axis)


def cuts(n: int, first: int, rest: int) -> Sequence[Interval]:
    """0..n in a first piece and others, the last perhaps shorter."""
    bounds = [0, *range(min(first, n), n, rest), n]
    return [(a, b) for a, b in pairwise(bounds) if b > a]
