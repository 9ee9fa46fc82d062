"""The eight ways a camera can have been held, from the display matrix of a video."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from torch import Tensor

from vaeport.errors import MediaError

_ONE = 1 << 16  # the matrix holds 16.16 fixed-point numbers


@dataclass(frozen=True)
class Orientation:
    """Swap rows and columns first, then mirror."""

    swap: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @classmethod
    def from_display_matrix(cls, matrix: bytes) -> Orientation:
        """`matrix`: nine native-endian int32, which send (x, y) to (a x + c y, b x + d y).

        Raises:
            MediaError: the matrix scales, shears or turns by less than a quarter.
        """
        a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
        if b == c == 0 and abs(a) == abs(d) == _ONE:
            return cls(flip_rows=d < 0, flip_columns=a < 0)
        if a == d == 0 and abs(b) == abs(c) == _ONE:
            return cls(swap=True, flip_rows=b < 0, flip_columns=c < 0)
        raise MediaError(
            "the video asks to be turned by an odd angle or scaled",
            expected="quarter turns and mirrors",
            found=f"display matrix {[round(value / _ONE, 3) for value in (a, b, c, d)]}",
            fix="re-encode it upright first",
        )

    def apply(self, frame: Tensor) -> Tensor:
        """Turn `[H, W, 3]` upright; a view."""
        upright = frame.transpose(0, 1) if self.swap else frame
        axes = [axis for axis, flip in ((0, self.flip_rows), (1, self.flip_columns)) if flip]
        return upright.flip(axes) if axes else upright
