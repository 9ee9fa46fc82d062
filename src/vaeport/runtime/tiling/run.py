"""The tiler: cuts the input, runs each tile, and hands the outputs to the policy, which makes them one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from vaeport.configs import AxisRule
from vaeport.runtime.tiling.policy import Policy, Way


def run_tiled(
    half: Callable[[Tensor], Tensor], x: Tensor, policy: Policy, rules: Sequence[AxisRule], way: Way
) -> Tensor:
    """`half(x)` as the policy tiles it; exactly `half(x)` where it leaves the input whole.

    half    encodes media [B, C, *axes] into moments, or decodes latents; it sees one tile at a time, rows first in
            each stretch of time
    rules   of the axes of x, [T,] H, W: `multiple` is the compression, `offset` 1 where the first position is alone

    ConfigError for sizes that are no whole numbers of latents.
    """
    *in_time, rows, columns = policy.cuts(x.shape[2:], rules, way)

    def in_space(x: Tensor) -> Tensor:
        if rows.whole and columns.whole:
            return half(x)
        tiles = (
            (half(column.of(row.of(x, rows.axis), columns.axis)) for column in columns.pieces) for row in rows.pieces
        )
        return policy.grid(tiles, rows, columns)

    if not in_time or in_time[0].whole:
        return in_space(x)
    (frames,) = in_time
    parts = (piece.trimmed(in_space(piece.of(x, frames.axis)), frames.axis) for piece in frames.pieces)
    return policy.line(parts, frames)
