"""Layers of which every rank runs its stripe: what looks around fetches the edge of its neighbours' stripes first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from vaeport.layers.layer import Barrier, Chunk, Interval, Layer, State
from vaeport.runtime.shards.partition import Partition, common, inputs_of, skipped
from vaeport.runtime.shards.ranks import Ranks


@dataclass(frozen=True)
class Strip:
    """Outputs next to each other that one call gives: from `inputs`, behind the first `skip` that it gives."""

    outputs: Interval
    inputs: Interval
    skip: int


class Sharded(Layer):
    """A local layer, its own stripe in and its own stripe out along `axis`; runs whole or streams along other axes.

    leaf    the layer; its input has n positions in all, shared out by `partition`

    What it needs of other stripes is fetched while it computes what its own stripe suffices for. Every rank has to call
    it alike.
    """

    leaf: Layer

    def __init__(self, leaf: Layer, n: int, axis: int, partition: Partition, ranks: Ranks) -> None:
        super().__init__()
        self.leaf, self.axis, self.ranks = leaf, axis, ranks
        outputs = partition.stripes(leaf.length(n, axis))
        owned = partition.stripes(n)
        wanted = [inputs_of(leaf, own, n, axis) for own in outputs]
        self.own, self.outputs = owned[ranks.rank], outputs[ranks.rank]
        others = [rank for rank in range(ranks.size) if rank != ranks.rank]
        sends = ((rank, common(wanted[rank], self.own)) for rank in others)
        receives = ((rank, common(wanted[ranks.rank], owned[rank])) for rank in others)
        self.sends, self.receives = ({r: i for r, i in pairs if i[0] < i[1]} for pairs in (sends, receives))
        self.strips = self._strips(n)

    def forward(self, x: Tensor) -> Tensor:
        """The own stripe of the input -> the own stripe of the output."""
        parts = [(strip, self._trimmed(strip, self.leaf(piece))) for strip, piece in self._pieces(x)]
        return self._joined(parts)

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """State: that of each strip."""
        if axis == self.axis:
            raise NotImplementedError("a shard streams along other axes than the one that is shared out")
        states = dict.fromkeys(self.strips) if state is None else state
        parts = []
        for strip, piece in ((s, None) for s in self.strips) if x is None else self._pieces(x):
            y, states[strip] = self.leaf.step(piece, states[strip], last, axis)
            if y is not None:
                parts.append((strip, self._trimmed(strip, y)))
        return (self._joined(parts) if parts else None), states

    def length(self, n: int, axis: int) -> int:
        """The leaf's; along the shared axis that of the own stripe."""
        return self.outputs[1] - self.outputs[0] if axis == self.axis else self.leaf.length(n, axis)

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """The leaf's."""
        return self.leaf.needs(outputs, axis)

    def rate(self, axis: int) -> Fraction:
        """The leaf's."""
        return self.leaf.rate(axis)

    def _strips(self, n: int) -> tuple[Strip, ...]:
        """One call on all inputs; or, if the own stripe suffices for many outputs, one on it and one at each cut."""
        axis, (start, stop) = self.axis, self.outputs

        def strip(outputs: Interval) -> Strip:
            inputs = inputs_of(self.leaf, outputs, n, axis)
            return Strip(outputs, inputs, skipped(self.leaf, inputs, outputs, axis))

        def foreign(outputs: Interval) -> tuple[bool, bool]:
            first, last = strip(outputs).inputs
            return first < self.own[0], last > self.own[1]

        a, b = start, stop
        while a < stop and foreign((a, a + 1))[0]:
            a += 1
        while b > a and foreign((b - 1, b))[1]:
            b -= 1
        if not self.receives or b - a < self.ranks.overlap or any(foreign((a, b))):
            return (strip(self.outputs),)
        edges = tuple(strip(edge) for edge in ((start, a), (b, stop)) if edge[0] < edge[1])
        # the plain call on the own stripe gives outputs at a cut too: wrong ones, in the right place to be overwritten
        first = -(-self.own[0] // self.leaf.rate(axis).denominator) * self.leaf.rate(axis).denominator
        skip = skipped(self.leaf, (first, self.own[1]), self.outputs, axis)
        if skip >= 0 and self.leaf.length(self.own[1] - first, axis) >= skip + stop - start:
            return (Strip(self.outputs, (first, self.own[1]), skip), *edges)
        return (strip((a, b)), *edges)

    def _pieces(self, x: Tensor) -> Iterator[tuple[Strip, Tensor]]:
        """The inputs of each strip, those that wait for other ranks last."""
        start, axis = self.own[0], self.axis
        shape = list(x.shape)
        receives = {}
        for rank, (a, b) in self.receives.items():
            shape[axis] = b - a
            receives[rank] = tuple(shape)
        sends = {rank: x.narrow(axis, a - start, b - a) for rank, (a, b) in self.sends.items()}
        exchange = self.ranks.exchange(sends, receives, x)
        fetched: dict[int, Tensor] | None = None
        for strip in self.strips:
            if self.own[0] <= strip.inputs[0] and strip.inputs[1] <= self.own[1]:
                yield strip, x.narrow(axis, strip.inputs[0] - start, strip.inputs[1] - strip.inputs[0])
                continue
            fetched = exchange.wait() if fetched is None else fetched
            stripes = sorted([(self.own, x), *((self.receives[rank], halo) for rank, halo in fetched.items())], key=_at)
            parts = []
            for interval, stripe in stripes:
                a, b = common(strip.inputs, interval)
                if a < b:
                    parts.append(stripe.narrow(axis, a - interval[0], b - a))
            yield strip, parts[0] if len(parts) == 1 else torch.cat(parts, axis)
        if fetched is None:
            exchange.wait()

    def _trimmed(self, strip: Strip, y: Tensor) -> Tensor:
        return y.narrow(self.axis, strip.skip, strip.outputs[1] - strip.outputs[0])

    def _joined(self, parts: list[tuple[Strip, Tensor]]) -> Tensor:
        (first, y), *edges = parts
        if first.outputs != self.outputs:
            return torch.cat([part for _, part in sorted(parts, key=lambda part: part[0].outputs)], self.axis)
        for strip, part in edges:
            start, stop = strip.outputs
            y.narrow(self.axis, start - self.outputs[0], stop - start).copy_(part)
        return y


class ShardedBarrier(Barrier):
    """A barrier of which every rank runs its stripe along `axis`, after all have told each other what they noted."""

    barrier: Barrier

    def __init__(self, barrier: Barrier, n: int, axis: int, partition: Partition, ranks: Ranks) -> None:
        super().__init__()
        self.barrier, self.axis, self.ranks = barrier, axis, ranks
        self.stripes = partition.stripes(n)

    def forward(self, x: Tensor) -> Tensor:
        """The own stripe, same shape."""
        y: Tensor = self._settled(x)(x)
        return y

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """Where the barrier waits for the last piece, so does this; else what the first piece told holds for all."""
        if axis == self.axis:
            raise NotImplementedError("a shard streams along other axes than the one that is shared out")
        if self.barrier.needs((0, 1), axis) is None:
            return super().step(x, state, last, axis)
        if x is None:
            return None, state
        settled = self._settled(x) if state is None else state
        return settled(x), settled

    def length(self, n: int, axis: int) -> int:
        """The barrier's; along the shared axis it is given the own stripe."""
        return self.barrier.length(n, axis)

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """The barrier's."""
        return self.barrier.needs(outputs, axis)

    def _settled(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        note = self.barrier.note(x)
        notes = self.ranks.gather(note, self._shapes(note, x))
        return self.barrier.settled(notes, self.axis).at(self.stripes[self.ranks.rank][0])

    def _shapes(self, note: Tensor, x: Tensor) -> list[tuple[int, ...]]:
        """Shapes of all ranks' notes, which are as long as their stripes along some axis or along none."""
        sizes, own = [stop - start for start, stop in self.stripes], x.shape[self.axis]
        if len(set(sizes)) == 1:
            return [tuple(note.shape)] * len(sizes)
        # found out on a stripe of another length; asking the others would stop a GPU at every barrier
        probe = self.barrier.note(x.narrow(self.axis, 0, 1) if own > 1 else torch.cat((x, x), self.axis))
        pairs = list(zip(note.shape, probe.shape, strict=True))
        return [tuple(n if n == m else n * size // own for n, m in pairs) for size in sizes]


def _at(stripe: tuple[Interval, Tensor]) -> int:
    return stripe[0][0]
