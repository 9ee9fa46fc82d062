"""`Bands`: an activation that is written and read piece by piece, and let go as soon as nobody needs it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from vaeport.layers.layer import TIME, Interval


class Bands:
    """Tensors that follow each other along `axis`.

    resident    bytes that stay on the device; what is over waits in (pinned) host memory; None: all stay
    """

    def __init__(self, axis: int, device: torch.device, resident: int | None = None) -> None:
        self.axis, self.device, self.resident = axis, device, resident
        self.parts: list[tuple[int, Tensor]] = []
        self.length = 0

    @classmethod
    def of(cls, x: Tensor, axis: int) -> Bands:
        """A tensor as one band."""
        bands = cls(axis, x.device)
        bands.append(x)
        return bands

    def size(self, axis: int) -> int:
        """Along any axis."""
        return self.length if axis == self.axis else self.parts[0][1].shape[axis]

    def kept(self, band: Tensor) -> Tensor:
        """The band as it will be kept."""
        held = sum(part.nbytes for _, part in self.parts if part.device == self.device)
        if self.resident is None or held + band.nbytes <= self.resident:
            # a view would keep the rows that were cut off, too
            return band.contiguous()
        parked = torch.empty(band.shape, dtype=band.dtype, pin_memory=band.is_cuda)
        return parked.copy_(band, non_blocking=True)

    def append(self, band: Tensor) -> None:
        """The next one, as `kept` gave it."""
        self.parts.append((self.length, band))
        self.length += band.shape[self.axis]

    def read(self, rows: Interval, axis: int, frames: Interval | None = None) -> Tensor:
        """Those rows along `axis`, of those frames if given, on the device."""
        wanted, others = (rows, {TIME: frames}) if axis == self.axis else (frames, {axis: rows})
        assert wanted is not None
        found = []
        for at, part in self.parts:
            first, last = max(wanted[0] - at, 0), min(wanted[1] - at, part.shape[self.axis])
            if first < last:
                # a piece is moved as it lies, since parts of it do not lie in one stretch
                piece = part.to(self.device, non_blocking=True).narrow(self.axis, first, last - first)
                for other, interval in others.items():
                    piece = piece if interval is None else piece.narrow(other, interval[0], interval[1] - interval[0])
                found.append(piece)
        return found[0] if len(found) == 1 else torch.cat(found, self.axis)

    def release(self, below: int) -> None:
        """What lies below that position is not read again."""
        self.parts = [(at, part) for at, part in self.parts if at + part.shape[self.axis] > below]


def cuts(n: int, first: int, rest: int) -> Sequence[Interval]:
    """0..n in a first piece and others, the last perhaps shorter."""
    bounds = [0, *range(min(first, n), n, rest), n]
    return [(a, b) for a, b in pairwise(bounds) if b > a]
