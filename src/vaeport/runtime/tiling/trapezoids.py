"""`Trapezoids`: tiles that are added up, each weighted with a trapezoid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vaeport.configs import AxisRule
from vaeport.runtime.tiling.cuts import Cuts, Piece, uncut
from vaeport.runtime.tiling.policy import Axis, Policy, Way

COMPLEMENTARY = 1e-5
"""Summed weights that are this near to 1 everywhere are not divided by."""


@dataclass(frozen=True, kw_only=True)
class Trapezoids(Policy):
    """A weighted sum of tiles, divided by the sum of the weights. Every axis is cut by itself, in whole latents.

    The last tile ends where the input does. In time a tile after the first starts one latent early, since its first
    latent makes a single position; the weights leave that one out.
    """

    def cuts(self, shape: Sequence[int], rules: Sequence[AxisRule], way: Way) -> tuple[Cuts, ...]:
        """See `Policy`."""
        axes = self.encode if way == "encode" else self.decode
        indices = range(-len(shape), 0)
        return tuple(
            self._along(i, n, rule, axes.along(rule), way) for i, n, rule in zip(indices, shape, rules, strict=True)
        )

    def _along(self, index: int, n: int, rule: AxisRule, axis: Axis | None, way: Way) -> Cuts:
        latents = (n - rule.offset) // rule.multiple + rule.offset if way == "encode" else n
        if axis is None:
            return uncut(n, index)
        tile, stride = axis.in_latents(rule.multiple)
        if latents <= tile:
            return uncut(n, index)
        pieces = tuple(_pieces(latents, tile, stride, rule, way))
        return Cuts(index, pieces, latents if way == "encode" else rule.decoded(latents))

    def line(self, tiles: Iterable[Tensor], cuts: Cuts) -> Tensor:
        """See `Policy`."""
        tiles = iter(tiles)
        first = next(tiles)
        if cuts.whole:
            return first
        masks, total = weights(cuts, torch.promote_types(first.dtype, torch.float32))
        along, whole = [1] * first.dim(), list(first.shape)
        along[cuts.axis], whole[cuts.axis] = -1, len(total)
        y = first.new_zeros(whole)
        for i, piece in enumerate(cuts.pieces):
            tile = first if i == 0 else next(tiles)
            y.narrow(cuts.axis, piece.at, len(masks[i])).add_(tile * masks[i].view(along).to(tile.device))
        if float((total - 1).abs().max()) > COMPLEMENTARY:
            y = (y / total.clamp(min=1e-8).view(along).to(y.device)).to(y.dtype)
        return y

    def grid(self, tiles: Iterable[Iterable[Tensor]], rows: Cuts, columns: Cuts) -> Tensor:
        """See `Policy`. The weights are products of those along each axis, so two passes of `line` give the sum."""
        return self.line((self.line(line, columns) for line in tiles), rows)


def _pieces(latents: int, tile: int, stride: int, rule: AxisRule, way: Way) -> Iterator[Piece]:
    overlap, early = tile - stride, rule.offset
    starts = range(0, latents - overlap, stride)
    for start in starts:
        first, last = start == 0, start == starts[-1]
        begin, end = start - (0 if first else early), latents if last else start + tile
        rise, fall = 0 if first else overlap + early, 0 if last else overlap
        positions = (begin * rule.multiple, rule.decoded(end))
        if way == "encode":
            yield Piece(*positions, at=begin, keep=end - begin, fade_in=rise, fade_out=fall)
        else:
            rise, fall = 0 if first else rule.decoded(rise), fall * rule.multiple
            at, stop = positions
            yield Piece(begin, end, at=at, keep=stop - at, fade_in=rise, fade_out=fall)


def weights(cuts: Cuts, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    """The trapezoid of each tile along an axis, and their sum at each position of the whole output."""
    assert cuts.length is not None
    total = torch.zeros(cuts.length, dtype=dtype)
    masks = []
    for piece in cuts.pieces:
        assert piece.keep is not None
        masks.append(trapezoid(piece.keep, piece.fade_in, piece.fade_out, cuts.axis == -3, dtype))
        total[piece.at : piece.at + piece.keep] += masks[-1]
    return masks, total


def trapezoid(n: int, rise: int, fall: int, from_zero: bool, dtype: torch.dtype) -> Tensor:
    """Weights of n positions: a linear rise, ones, a linear fall; rise and fall multiply where they meet.

    A ramp of r positions takes r of the values between 0 and 1 that divide the way into r + 1 steps, but a rise
    `from_zero` starts at 0 and divides it into r.
    """
    mask = torch.ones(n, dtype=dtype)
    if rise:
        values = torch.linspace(0.0, 1.0, rise + 1 if from_zero else rise + 2, dtype=dtype)[:-1]
        mask[:rise] *= values if from_zero else values[1:]
    if fall:
        mask[n - fall :] *= torch.linspace(1.0, 0.0, fall + 2, dtype=dtype)[1:-1]
    return mask
