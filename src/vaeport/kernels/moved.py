"""Edges, and channels that become positions or positions that become channels, by the operators of `ops.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import Tensor

from vaeport.kernels.kept import in_place_of
from vaeport.kernels.ops import OPS
from vaeport.layers import GroupMean, Layer, Pad, RepeatChannels, Shuffle, TileChannels, Unshuffle

_FEWEST = 16
"""channels from which on the operators are worth it"""


class FastEdges(Pad):
    """First and last frames, repeated, and the edges of frames, repeated or mirrored."""

    @classmethod
    def of(cls, pad: Pad) -> Pad:
        """The layer itself where it is for images or adds zeros."""
        if type(pad) is not Pad or pad.mode == "constant" or len(pad.pads) != 3:
            return pad
        return in_place_of(cls, pad)

    def _padded(self, x: Tensor, pads: tuple[tuple[int, int], ...]) -> Tensor:
        amounts = [n for side in pads for n in side]
        if not any(amounts):
            return x
        if self.mode == "reflect":
            for axis in (-2, -1):
                self._require_a_mirror_image(x.shape[axis], max(pads[axis]))
        y: Tensor = OPS.repeated(x, [1, 1, 1], False, amounts, self.mode)
        return y


class ShuffledChannels(Shuffle):
    """`Shuffle`, with a `RepeatChannels` in front of it or a `TileChannels` behind it."""

    repeat = tile = 1

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> tuple[int, Self] | None:
        """How many layers at the beginning of a row it replaces, and itself."""
        found = _leading(layers, (RepeatChannels, Shuffle, TileChannels))
        shuffle = next((layer for layer in found if isinstance(layer, Shuffle)), None)
        if shuffle is None:
            return None
        twin = cls(shuffle.factors, width_first=shuffle.width_first)
        for layer in found:
            if isinstance(layer, RepeatChannels):
                twin.repeat = layer.times
            elif isinstance(layer, TileChannels):
                twin.tile = layer.times
        return len(found), twin

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C', t * T, h * H, w * W]."""
        if x.shape[1] < _FEWEST:
            few = super().forward(RepeatChannels(self.repeat).forward(x))
            return TileChannels(self.tile).forward(few)
        y: Tensor = OPS.shuffled(x, self.factors, self.width_first, self.repeat, self.tile)
        return y


class UnshuffledChannels(Unshuffle):
    """`Unshuffle`, and `GroupMean` behind it where there is one."""

    groups = 0

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> tuple[int, Self] | None:
        """How many layers at the beginning of a row it replaces, and itself."""
        found = _leading(layers, (Unshuffle, GroupMean))
        if not found or not isinstance(found[0], Unshuffle):
            return None
        twin = cls(found[0].factors, width_first=found[0].width_first)
        if isinstance(found[-1], GroupMean):
            twin.groups = found[-1].groups
        return len(found), twin

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, C', T // t, H // h, W // w]."""
        if x.shape[1] < _FEWEST:
            y: Tensor = super().forward(x)
            return y if not self.groups else GroupMean(self.groups).forward(y)
        y = OPS.unshuffled(x, self.factors, self.width_first, self.groups)
        return y


def _leading(layers: Sequence[Layer], kinds: tuple[type[Layer], ...]) -> list[Layer]:
    """The layers at the beginning of a row that are of these kinds, in this order, each at most once."""
    found: list[Layer] = []
    for kind in kinds:
        if len(found) < len(layers) and type(layers[len(found)]) is kind:
            found.append(layers[len(found)])
    return found
