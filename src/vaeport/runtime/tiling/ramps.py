"""`Ramps`: tiles that are faded over from their neighbours one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from vaeport.configs import AxisRule
from vaeport.errors import ConfigError
from vaeport.runtime.tiling.cuts import Cuts, Piece, uncut
from vaeport.runtime.tiling.policy import Axis, Policy, Way


@dataclass(frozen=True, kw_only=True)
class Ramps(Policy):
    """k/n ramps in sequence, over neighbours that have been faded over themselves: above, then left, then before.

    Tiles start every `stride` positions as long as there is input, so the last may be short. Height and width are cut
    together, if either is longer than it may be. Tiles in time are one position longer, since their first stands
    alone; those after the first lose one output for it: the first in encoding, that of `drops` in decoding.

    crops       the output is cropped to what whole latents make
    """

    drops: Literal["first", "last"] = "first"
    crops: bool = True

    def cuts(self, shape: Sequence[int], rules: Sequence[AxisRule], way: Way) -> tuple[Cuts, ...]:
        """See `Policy`."""
        axes = self.encode if way == "encode" else self.decode
        *in_time, height, width = ((n, rule, axes.along(rule)) for n, rule in zip(shape, rules, strict=True))
        is_cut = any(_is_long(n, rule, axis, way) for n, rule, axis in (height, width))
        in_space = ((-2, *height), (-1, *width))
        return (
            *(self._in_time(n, rule, axis, way) for n, rule, axis in in_time),
            *(self._in_space(i, n, rule, axis if is_cut else None, way) for i, n, rule, axis in in_space),
        )

    def _in_space(self, index: int, n: int, rule: AxisRule, axis: Axis | None, way: Way) -> Cuts:
        if axis is None:
            return uncut(n, index)
        tile, stride, fade, keep = _measures(axis, rule, way)
        pieces = (Piece(i, min(i + tile, n), fade_in=fade if i else 0, keep=keep) for i in range(0, n, stride))
        return Cuts(index, tuple(pieces), self._length(n, rule, way), axis.grain)

    def _in_time(self, n: int, rule: AxisRule, axis: Axis | None, way: Way) -> Cuts:
        if axis is None or not _is_long(n, rule, axis, way):
            return uncut(n, -3)
        if rule.offset != 1:
            what = "tiles in time are for models whose first frame stands alone"
            raise ConfigError(what, where=self.source, fix="tile in space alone, or run it whole")
        tile, stride, fade, keep = _measures(axis, rule, way)
        dropped = {"omit": 1} if way == "decode" and self.drops == "last" else {"skip": 1}
        first: dict[str, Any] = {"keep": keep + 1}
        other: dict[str, Any] = {"keep": keep, "fade_in": fade, **dropped}
        pieces = (Piece(i, min(i + tile + 1, n), **(other if i else first)) for i in range(0, n, stride))
        return Cuts(-3, tuple(pieces), self._length(n, rule, way), axis.grain)

    def _length(self, n: int, rule: AxisRule, way: Way) -> int | None:
        if not self.crops:
            return None
        n -= rule.offset
        return rule.offset + (n // rule.multiple if way == "encode" else n * rule.multiple)

    def line(self, tiles: Iterable[Tensor], cuts: Cuts) -> Tensor:
        """See `Policy`."""
        kept: list[Tensor] = []
        before: Tensor | None = None
        for tile, piece in zip(tiles, cuts.pieces, strict=True):
            before = tile if before is None else faded(before, tile, piece.fade_in, cuts.axis, cuts.grain)
            kept.append(piece.kept(before, cuts.axis))
        return cuts.cropped(torch.cat(kept, cuts.axis))

    def grid(self, tiles: Iterable[Iterable[Tensor]], rows: Cuts, columns: Cuts) -> Tensor:
        """See `Policy`. No two passes of `line`: what a tile is faded over from has been so along both axes."""
        bands: list[Tensor] = []
        above: list[Tensor] = []
        for line, row in zip(tiles, rows.pieces, strict=True):
            done: list[Tensor] = []
            for j, (tile, column) in enumerate(zip(line, columns.pieces, strict=True)):
                if above:
                    tile = faded(above[j], tile, row.fade_in, rows.axis, rows.grain)
                if done:
                    tile = faded(done[-1], tile, column.fade_in, columns.axis, columns.grain)
                done.append(tile)
            kept = [c.kept(row.kept(t, rows.axis), columns.axis) for t, c in zip(done, columns.pieces, strict=True)]
            bands.append(torch.cat(kept, columns.axis))
            above = done
        return columns.cropped(rows.cropped(torch.cat(bands, rows.axis)))


def faded(a: Tensor, b: Tensor, extent: int, axis: int, grain: int = 1) -> Tensor:
    """b, whose first n lines are faded over from the last n of a: line k is a * (1 - k/n) + b * (k/n).

    n is `extent`, or less where a tile is shorter; `grain` neighbouring lines share one k. Products are rounded to the
    tiles' type before they are added, as in the published code.
    """
    n = min(a.shape[axis], b.shape[axis], extent) // grain
    if n == 0:
        return b
    shape = [1] * b.dim()
    shape[axis] = n * grain
    rise = (torch.arange(n, dtype=torch.float64) / n).repeat_interleave(grain).view(shape)
    wide = torch.promote_types(b.dtype, torch.float32)
    up, down = (w.to(b.device, wide) for w in (rise, 1 - rise))
    tail, head = a.narrow(axis, a.shape[axis] - n * grain, n * grain), b.narrow(axis, 0, n * grain)
    mixed = (tail * down).to(b.dtype) + (head * up).to(b.dtype)
    return torch.cat((mixed, b.narrow(axis, n * grain, b.shape[axis] - n * grain)), axis)


def _is_long(n: int, rule: AxisRule, axis: Axis | None, way: Way) -> bool:
    if axis is None:
        return False
    above = axis.above or axis.tile
    return n > (above if way == "encode" else above // rule.multiple)


def _measures(axis: Axis, rule: AxisRule, way: Way) -> tuple[int, int, int, int]:
    """Tile and stride of the input; how much of the output is faded over, and how much is kept."""
    tile, stride = axis.in_latents(rule.multiple)
    if way == "encode":
        return axis.tile, axis.stride, tile - stride, stride
    return tile, stride, axis.tile - axis.stride, axis.stride
