"""What every layer states about itself, so that it can be run whole, in a stream, in bands or in shards.

A layer is a function of a tensor `[B, C, *axes]`. Along each of its axes it states

    length(n, axis)             how many outputs n inputs give
    needs((a, b), axis)         which inputs the outputs a..b-1 depend on; None means all of them
    rate(axis)                  outputs per input
    step(x, state, last, axis)  the same function, fed piece by piece: `-> (y, state)`

State goes in and comes out; a layer stores nothing in itself. `state is None` means that nothing has arrived yet: the
layer is at its origin and applies its edge rule there. A state is handed over: the step that takes it may reuse its
memory, so it serves once. Pieces are `None` when empty: a piece that is too short to yield an output gives `None`, and
`x=None` with `last=True` flushes what is still buffered. Streamed equals whole, for any cutting into pieces.

Away from its edges a layer is the same everywhere: fed with the inputs from some position on, it gives the outputs from
`rate` times that position on, all but those at the cut that need what was cut off. So bands and shards of an image are
plain calls. What sees all positions (a `Barrier`) takes notes of every piece first, and is local once it is settled.

Axes are counted from the end, so that they keep their number when frames are folded into the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn

TIME, HEIGHT, WIDTH, SAMPLES = -3, -2, -1, -1

Chunk = Tensor | None
State = Any
Interval = tuple[int, int]


@dataclass(frozen=True)
class Conditions:
    """What a layer may depend on beside its input.

    timestep    [B] or [1]
    embedding   of the timestep, made on the way by a `Conditioned` chain
    generator   of noise; None: the default generator
    """

    timestep: Tensor | None = None
    embedding: Tensor | None = None
    generator: torch.Generator | None = None


class Layer(nn.Module):
    """A layer that treats every position alike and alone; layers that look around override what differs."""

    adds = False
    """Whether it adds to its outputs while it makes them."""

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """The outputs that become known with the piece `x`, and the state for the next piece."""
        return (None if x is None else self(x)), None

    def plus(self, x: Tensor, addend: Tensor) -> Tensor:
        """The addend and what `x` gives, in one tensor, of a layer that `adds`."""
        raise NotImplementedError(f"{type(self).__name__} adds nothing to its outputs")

    def step_plus(self, x: Chunk, state: State, last: bool, axis: int, addend: Chunk) -> tuple[Chunk, Chunk, State]:
        """As `step`, with what is left of an addend: None once it is in the outputs."""
        y, state = self.step(x, state, last, axis)
        return y, addend, state

    def flush(self, state: State, axis: int) -> Iterator[Tensor]:
        """What comes after the last piece: as `step` with `last`, in as many small parts as it can."""
        y, _ = self.step(None, state, True, axis)
        if y is not None:
            yield y

    def length(self, n: int, axis: int) -> int:
        """Number of outputs along `axis` for `n` inputs."""
        return n

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """Inputs `[start, stop)` that `outputs` depend on, not clipped to the tensor; None: all inputs."""
        return outputs

    def rate(self, axis: int) -> Fraction:
        """Outputs per input along `axis`, away from the edges."""
        return Fraction(1)

    def bind(self, given: Conditions) -> Layer:
        """The layer under `given` conditions: itself, or a copy that shares its weights where a layer depends on them.

        What is bound runs whole or in a stream like any layer; the layer itself is left as it was.
        """
        bound = {name: child.bind(given) for name, child in self.named_children() if isinstance(child, Layer)}
        if all(layer is self._modules[name] for name, layer in bound.items()):
            return self
        twin = copy(self)
        twin._modules = {**self._modules, **bound}
        return twin


class Identity(Layer):
    """y = x."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, returned as it is."""
        return x


class Settled(Layer):
    """What a barrier is once it has notes of all pieces: local along the axis, for the piece that begins at `start`."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis, self.start = axis, 0

    def at(self, start: int) -> Self:
        """The layer for a piece that begins there."""
        twin = copy(self)
        twin.start = start
        return twin

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """State: where the next piece begins."""
        if x is None:
            return None, state
        start = self.start if state is None else state
        return self.at(start)(x), start + (x.shape[axis] if axis == self.axis else 0)


class Replayed(Settled):
    """The outputs themselves, piece by piece, whatever the inputs."""

    def __init__(self, outputs: Tensor, axis: int) -> None:
        super().__init__(axis)
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        """As many outputs as inputs."""
        return self.outputs.narrow(self.axis, self.start, x.shape[self.axis])


class Barrier(Layer):
    """A layer whose outputs depend on all inputs (a norm or attention over the axis), as many as there are inputs.

    In a stream it waits for the last piece. Where the input can be gone through twice it need not: it takes a `note` of
    each piece, and `settled` on all notes is the same function as a local layer.
    """

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """Collects pieces; the last one releases the whole."""
        pieces: tuple[Tensor, ...] = (state or ()) if x is None else (*(state or ()), x)
        if not last or not pieces:
            return None, pieces
        return self(pieces[0] if len(pieces) == 1 else torch.cat(pieces, axis)), None

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """All inputs."""
        return None

    def note(self, x: Tensor) -> Tensor:
        """What must be known of a piece; a barrier that knows no better keeps it whole."""
        return x

    def settled(self, notes: Sequence[Tensor], axis: int) -> Settled:
        """The layer that has seen the pieces that the notes were taken of, in their order along `axis`."""
        return Replayed(self(torch.cat(tuple(notes), axis)), axis)


def hull(a: Interval | None, b: Interval | None) -> Interval | None:
    """The smallest interval that holds both; None is everything."""
    return None if a is None or b is None else (min(a[0], b[0]), max(a[1], b[1]))


def stream(layer: Layer, pieces: Iterable[Tensor], axis: int) -> Iterator[Tensor]:
    """Feeds `pieces` (cut along `axis`; their length may be 0) to `layer`; yields outputs as soon as they are known."""
    state: State = None
    for piece in pieces:
        y, state = layer.step(piece if piece.shape[axis] else None, state, False, axis)
        if y is not None:
            yield y
    yield from layer.flush(state, axis)


Streamed = Callable[[Layer, Iterable[Tensor], int], Iterator[Tensor]]


def run_in_pieces(layer: Layer, x: Tensor, axis: int, first: int, rest: int, streamed: Streamed = stream) -> Tensor:
    """`layer(x)` from pieces of `first`, then `rest` positions along `axis`, written into one output tensor."""
    n = x.shape[axis]
    bounds = [0, *range(min(first, n), n, rest), n]
    pieces = (x.narrow(axis, a, b - a) for a, b in pairwise(bounds) if b > a)
    out: Tensor | None = None
    filled = 0
    for y in streamed(layer, pieces, axis):
        if out is None:
            shape = list(y.shape)
            shape[axis] = layer.length(n, axis)
            if shape[axis] == y.shape[axis]:
                return y
            out = y.new_empty(shape)
        out.narrow(axis, filled, y.shape[axis]).copy_(y)
        filled += y.shape[axis]
    if out is None or filled != out.shape[axis]:
        raise RuntimeError(f"{type(layer).__name__} gave {filled} outputs for {n} inputs, not {layer.length(n, axis)}")
    return out
