"""One of several ranks, of which the others are not there: for rehearsals on tensors without memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vaeport.layers.layer import Layer
from vaeport.runtime.shards.ranks import Ranks, Shape
from vaeport.runtime.shards.tree import partition, sharded


class RehearsedRanks(Ranks):
    """Holds what rank `rank` of `size` holds; what others would send it is made up. Messages take no time."""

    def __init__(self, rank: int, size: int, overlap: int) -> None:
        self.group, self.device, self._watch = None, torch.device("meta"), None
        self.rank, self.size, self.overlap = rank, size, overlap

    def _started(self, sent: dict[int, Tensor], received: dict[int, Tensor]) -> list[tuple[Any, list[int]]]:
        return []

    def gather(self, tensor: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        """Tensors of these shapes."""
        return [tensor.new_empty(tuple(shape)) for shape in shapes]


def busiest(layer: Layer, x: Tensor, axis: int, size: int, overlap: int) -> tuple[Layer, Tensor]:
    """The shard and the stripe of x of the rank that has most to do, of `size` ranks along `axis`.

    That is the longest stripe, one with neighbours on both sides if there is one.
    """
    n = x.shape[axis]
    stripes = partition(layer, n, axis, RehearsedRanks(0, size, overlap)).stripes(n)
    rank = max(range(size), key=lambda rank: (stripes[rank][1] - stripes[rank][0], 0 < rank < size - 1))
    start, stop = stripes[rank]
    return sharded(layer, n, axis, RehearsedRanks(rank, size, overlap)), x.narrow(axis, start, stop - start)
