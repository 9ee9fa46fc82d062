"""Where one axis is cut, and what becomes of each tile's output along it. Policies make it, the tiler follows it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """One tile along one axis.

    start, stop     of the input
    skip, omit      outputs that are dropped in front and behind, before anything is blended
    fade_in, fade_out
                    outputs that are blended with the tile before, and with the one behind
    at              position of the first output in the whole, where tiles are added up
    keep            outputs that the whole takes from this tile; None: all
    """

    start: int
    stop: int
    skip: int = 0
    omit: int = 0
    fade_in: int = 0
    fade_out: int = 0
    at: int = 0
    keep: int | None = None

    def of(self, x: Tensor, axis: int) -> Tensor:
        """The tile's input."""
        return x.narrow(axis, self.start, self.stop - self.start)

    def trimmed(self, y: Tensor, axis: int) -> Tensor:
        """The tile's output without what is dropped."""
        return y.narrow(axis, self.skip, y.shape[axis] - self.skip - self.omit)

    def kept(self, y: Tensor, axis: int) -> Tensor:
        """The blended output without what the next tile brings."""
        return y if self.keep is None else y.narrow(axis, 0, min(self.keep, y.shape[axis]))


@dataclass(frozen=True)
class Cuts:
    """All tiles along one axis; a single one means that the axis is not cut.

    axis        counted from the end
    length      most of the whole output; None: what the tiles make
    grain       neighbouring outputs that share one weight
    """

    axis: int
    pieces: tuple[Piece, ...]
    length: int | None = None
    grain: int = 1

    @property
    def whole(self) -> bool:
        """Whether the axis is not cut."""
        return len(self.pieces) == 1

    def cropped(self, y: Tensor) -> Tensor:
        """The whole output without what is over its length."""
        return y if self.length is None else y.narrow(self.axis, 0, min(self.length, y.shape[self.axis]))


def uncut(n: int, axis: int) -> Cuts:
    """An axis of n inputs in one piece."""
    return Cuts(axis, (Piece(0, n),))
