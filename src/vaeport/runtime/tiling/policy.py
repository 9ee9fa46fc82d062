"""Policies: what published code does when it tiles, as data. `Ramps` and `Trapezoids` are the two kinds.

Sizes are in positions of the media, pixels and frames; on latents they are divided by the axis' compression.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from torch import Tensor

from vaeport.configs import AxisRule
from vaeport.errors import ConfigError
from vaeport.runtime.tiling.cuts import Cuts

Way = Literal["encode", "decode"]
Part = Literal["space", "time"]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """How one axis is cut; neighbouring tiles share `tile - stride` positions.

    above       longest media that is left whole; None: one tile
    grain       neighbouring outputs that share one weight
    """

    tile: int
    stride: int
    above: int | None = None
    grain: int = 1

    def __post_init__(self) -> None:
        """ConfigError for tiles with gaps between them."""
        if not 0 < self.stride <= self.tile:
            raise ConfigError("tiles must leave nothing out", expected="0 < stride <= tile", found=self)

    def in_latents(self, ratio: int) -> tuple[int, int]:
        """Tile and stride divided by the compression; ConfigError if they are no multiples of it."""
        if self.tile % ratio or self.stride % ratio:
            what = "tile and stride must be whole numbers of latents"
            raise ConfigError(what, expected=f"multiples of {ratio}", found=f"{self.tile} and {self.stride}")
        return self.tile // ratio, self.stride // ratio


@dataclass(frozen=True, kw_only=True)
class Axes:
    """How each axis is cut; None: it is not."""

    time: Axis | None = None
    height: Axis | None = None
    width: Axis | None = None

    @classmethod
    def square(cls, space: Axis | None, time: Axis | None = None) -> Self:
        """The same for height and width."""
        return cls(time=time, height=space, width=space)

    def along(self, rule: AxisRule) -> Axis | None:
        """The axis that a rule is of."""
        found: Axis | None = getattr(self, rule.name)
        return found

    def only(self, part: Part) -> Axes:
        """Those of space, or that of time."""
        return replace(self, time=None) if part == "space" else Axes(time=self.time)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What all policies state.

    source      the published code
    encode, decode
                how the axes are cut either way; what is blended in encoding are the moments
    """

    source: str
    encode: Axes
    decode: Axes

    def only(self, part: Part) -> Self:
        """The policy for space or time alone."""
        return replace(self, encode=self.encode.only(part), decode=self.decode.only(part))

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is cut."""
        space = (*self._both("height"), *self._both("width"))
        found: tuple[tuple[Part, bool], ...] = (("space", any(space)), ("time", any(self._both("time"))))
        return tuple(part for part, is_cut in found if is_cut)

    def _both(self, axis: str) -> tuple[Axis | None, Axis | None]:
        return getattr(self.encode, axis), getattr(self.decode, axis)

    def cuts(self, shape: Sequence[int], rules: Sequence[AxisRule], way: Way) -> tuple[Cuts, ...]:
        """The cuts of each axis of an input; `shape` and `rules` are those of [T,] H, W."""
        raise NotImplementedError

    def line(self, tiles: Iterable[Tensor], cuts: Cuts) -> Tensor:
        """Tiles along one axis, made one."""
        raise NotImplementedError

    def grid(self, tiles: Iterable[Iterable[Tensor]], rows: Cuts, columns: Cuts) -> Tensor:
        """Rows of tiles, made one."""
        raise NotImplementedError
