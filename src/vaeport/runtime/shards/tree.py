"""`sharded`: a copy of a layer tree of which every rank runs its own stripe."""

from __future__ import annotations

from copy import copy

from vaeport.errors import InputError
from vaeport.layers import TIME, Add, Chain, PerFrame, SplitFirst
from vaeport.layers.layer import Barrier, Layer
from vaeport.runtime.shards.partition import Partition
from vaeport.runtime.shards.ranks import Ranks
from vaeport.runtime.shards.sharded import Sharded, ShardedBarrier

_CHILDREN = {Add: ("main", "shortcut"), SplitFirst: ("first", "rest"), PerFrame: ("layer",)}
"""names of the layers in each combinator, all of which get the same input along height and width"""


def sharded(layer: Layer, n: int, axis: int, ranks: Ranks) -> Layer:
    """A copy of `layer` that shares its weights: from a rank's stripe of the input to its stripe of the output.

    n       length of the whole input along `axis`, which is HEIGHT, WIDTH, or SAMPLES of a layer for audio
    ranks   each of which runs its own copy, alike and at the same time

    Stripes are those of `partition(layer, n, axis, ranks)`. The copy runs whole, or streams along other axes; layers of
    it that draw noise need generators in the same state on all ranks.
    InputError for more ranks than positions, and for a layer that runs whole only.
    """
    if axis == TIME:
        raise InputError("shards lie along height, width or samples", found="axis TIME", fix="share out whole clips")
    if ranks.size == 1:
        return layer
    return _walk(layer, n, axis, partition(layer, n, axis, ranks), ranks)


def partition(layer: Layer, n: int, axis: int, ranks: Ranks) -> Partition:
    """How `n` inputs of `layer` and its outputs are shared out: even in whichever are fewer."""
    return Partition(min(n, layer.length(n, axis)), ranks.size)


def _walk(layer: Layer, n: int, axis: int, parts: Partition, ranks: Ranks) -> Layer:
    _require_stripes(layer, n, parts)
    _require_stripes(layer, layer.length(n, axis), parts)
    if isinstance(layer, Chain):
        inside = {id(child) for child in layer.layers}
        found = {}
        for name, child in layer.named_children():
            if id(child) in inside:
                assert isinstance(child, Layer)
                found[name] = _walk(child, n, axis, parts, ranks)
                n = child.length(n, axis)
        return _with(layer, found)
    for combinator, names in _CHILDREN.items():
        if isinstance(layer, combinator):
            return _with(layer, {name: _walk(getattr(layer, name), n, axis, parts, ranks) for name in names})
    if isinstance(layer, Barrier):
        if layer.length(n, axis) != n:
            what = f"{type(layer).__name__} runs whole only, so it cannot be shared out"
            raise InputError(what, fix="shard the VAE itself, not one that is tiled already")
        return ShardedBarrier(layer, n, axis, parts, ranks)
    return layer if _alone(layer, n, axis, parts) else Sharded(layer, n, axis, parts, ranks)


def _with(layer: Layer, children: dict[str, Layer]) -> Layer:
    twin = copy(layer)
    twin._modules = {**layer._modules, **children}
    return twin


def _alone(layer: Layer, n: int, axis: int, parts: Partition) -> bool:
    """Whether on every rank a plain call on the own stripe gives the own stripe."""
    stripes = zip(parts.stripes(n), parts.stripes(layer.length(n, axis)), strict=True)
    rate = layer.rate(axis)
    return all(
        layer.needs(outputs, axis) == own and own[0] * rate == outputs[0] and own[1] * rate == outputs[1]
        for own, outputs in stripes
    )


def _require_stripes(layer: Layer, n: int, parts: Partition) -> None:
    if any(start >= stop for start, stop in parts.stripes(n)):
        what = f"{type(layer).__name__} meets a tensor too short to be shared out"
        raise InputError(what, expected=f"at least {parts.units}", found=n, fix="use fewer ranks")
