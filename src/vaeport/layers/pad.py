"""Padding that `Conv` does not do by itself: the edge again, mirrored, or zeros in front of another layer."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeport.errors import InputError
from vaeport.layers import large
from vaeport.layers.layer import Chunk, Interval, Layer, State

Pads = tuple[tuple[int, int], ...]
"""(before, after) for each of the last axes"""


class Pad(Layer):
    """`before` positions more in front of an axis, `after` more behind it.

    mode    "constant": zeros; "replicate": the edge again; "reflect": mirrored at the edge, which is not repeated

        Pad("replicate", ((2, 0), (0, 0), (0, 0)))      what a causal convolution sees as the past of frame 0
    """

    def __init__(self, mode: Literal["constant", "replicate", "reflect"], pads: Pads) -> None:
        super().__init__()
        self.mode, self.pads = mode, pads

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes] -> [B, C, *padded axes]."""
        return self._padded(x, self.pads)

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """State: the inputs at the edge, whether they have been released, or waiting for as many as are mirrored."""
        before, after = self.pads[axis]
        if not (before or after):
            return (None if x is None else self(x)), None
        edge, released = state or (None, False)
        if x is None and (edge is None or (released and not last)):
            return None, state
        known = x if edge is None else edge if x is None else torch.cat((edge, x), axis)
        assert known is not None
        if not (last or released) and known.shape[axis] < self._edge(before):
            return None, (known, False)
        pad = (0 if released else before, after if last else 0)
        if released and not last and x is not None:
            y = self._padded(x, self._only(axis, pad))
        else:
            y = self._padded(known, self._only(axis, pad))
            skip = edge.shape[axis] if released and edge is not None else 0
            y = y.narrow(axis, skip, y.shape[axis] - skip)
        kept = min(max(self._edge(after), min(after, 1)), known.shape[axis])
        # a clone, since a view would keep the whole piece alive
        edge = known.narrow(axis, known.shape[axis] - kept, kept).clone() if kept else None
        return (y if y.shape[axis] else None), (edge, True)

    def length(self, n: int, axis: int) -> int:
        """before + n + after; nothing of nothing."""
        return n + sum(self.pads[axis]) if -axis <= len(self.pads) and n > 0 else n

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """The inputs and, beyond an edge, those that are repeated there; no fewer, since the end is not known here."""
        start, stop = outputs
        before, after = self.pads[axis]
        if self.mode == "constant" or not (before or after):
            return start - before, stop - before
        mirrored = self._edge(before) if start < before else 0
        behind = self._edge(after) + after - 1 if after else 0
        return max(start - before - behind, 0), max(stop - before, mirrored)

    def _edge(self, amount: int) -> int:
        """Inputs at an edge that `amount` of padding is made of."""
        return 0 if not amount or self.mode == "constant" else 1 if self.mode == "replicate" else amount + 1

    def _only(self, axis: int, pad: tuple[int, int]) -> Pads:
        return tuple(pad if i == len(self.pads) + axis else p for i, p in enumerate(self.pads))

    def _padded(self, x: Tensor, pads: Pads) -> Tensor:
        amounts = [n for pad in reversed(pads) for n in pad]
        if not any(amounts):
            return x
        axes = [i - len(pads) for i, pad in enumerate(pads) if any(pad)]
        if self.mode == "reflect":
            for axis in axes:
                self._require_a_mirror_image(x.shape[axis], max(pads[axis]))
            if large.reach(x) > large.INDEXABLE:
                for axis in axes:
                    before, after = pads[axis]
                    n = x.shape[axis]
                    start, stop = x.narrow(axis, 1, before), x.narrow(axis, n - 1 - after, after)
                    x = torch.cat((start.flip(axis), x, stop.flip(axis)), axis)
                return x
        if self.mode == "replicate" and len(axes) == 1:
            # whole frames are copied, which the kernel for all axes does element by element
            axis, (before, after) = axes[0], pads[axes[0]]
            n, shape = x.shape[axis], [-1] * x.dim()
            ends = []
            for edge, amount in ((0, before), (n - 1, after)):
                shape[axis] = amount
                ends.append(x.narrow(axis, edge, 1).expand(shape))
            return torch.cat((ends[0], x, ends[1]), axis)
        return F.pad(x, amounts, mode=self.mode)

    def _require_a_mirror_image(self, size: int, amount: int) -> None:
        if size <= amount:
            what = "too short to be mirrored at its edges, as this model does"
            fix = "make height and width larger: of latents, at least 2"
            raise InputError(what, expected=f"more than {amount}", found=size, fix=fix)
