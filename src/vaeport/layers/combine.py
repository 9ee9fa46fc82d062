"""The combinators that models are built from: `Chain`, `Add`, `PerFrame`; `SplitFirst` has a file of its own.

They carry `step`, `length` and `needs` from the layers to the whole model, which states nothing about how it is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import prod

import torch
from torch import Tensor

from vaeport.layers.layer import TIME, Chunk, Interval, Layer, State, hull


class Chain(Layer):
    """Layers one after the other. Named by keyword, or numbered; a layer given as None is left out.

    Chain(norm=GroupNorm(64, 32), act=SiLU(), conv=Conv(64, 64, (3, 3)))
    """

    opens = True
    """Whether a chain around it runs its layers one by one."""

    def __init__(self, *layers: Layer, **named: Layer | None) -> None:
        super().__init__()
        for name, layer in (*((str(i), layer) for i, layer in enumerate(layers)), *named.items()):
            if layer is not None:
                self.add_module(name, layer)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in the order in which they are applied."""
        return tuple(self._modules.values())  # type: ignore[arg-type]

    def flat(self, *, but_hooked: bool = False) -> Iterator[Layer]:
        """The layers with inner chains opened: the call of an inner chain would keep its input alive to its end.

        but_hooked  leave chains closed that have forward hooks, which run when a chain is called
        """
        for layer in self.layers:
            if (
                isinstance(layer, Chain)
                and layer.opens
                and not (but_hooked and (layer._forward_hooks or layer._forward_pre_hooks))
            ):
                yield from layer.flat(but_hooked=but_hooked)
            else:
                yield layer

    def forward(self, x: Tensor) -> Tensor:
        """The last layer's output."""
        for layer in self.flat(but_hooked=True):
            x = layer(x)
        return x

    @property
    def adds(self) -> bool:  # type: ignore[override]
        """Whether the last layer does."""
        return bool(self.layers) and self.layers[-1].adds

    def plus(self, x: Tensor, addend: Tensor) -> Tensor:
        """The last layer adds; only where it can, since a sum behind it would keep its input."""
        *layers, end = self.flat(but_hooked=True)
        for layer in layers:
            x = layer(x)
        return end.plus(x, addend)

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """Each layer's step on what the one before it released; the list of states is used again."""
        y, _, states = self.step_plus(x, state, last, axis, None)
        return y, states

    def step_plus(self, x: Chunk, state: State, last: bool, axis: int, addend: Chunk) -> tuple[Chunk, Chunk, State]:
        """The last layer adds."""
        layers = tuple(self.flat())
        states = [None] * len(layers) if state is None else state
        for i, layer in enumerate(layers):
            if i == len(layers) - 1 and layer.adds:
                x, addend, states[i] = layer.step_plus(x, states[i], last, axis, addend)
            else:
                x, states[i] = layer.step(x, states[i], last, axis)
        return x, addend, states

    def flush(self, state: State, axis: int) -> Iterator[Tensor]:
        """Layer by layer: what one still held goes through those behind it before they are flushed themselves.

        At once it would be as long as the reach of the whole chain.
        """
        layers = tuple(self.flat())
        states = [None] * len(layers) if state is None else state
        for i, layer in enumerate(layers):
            for part in layer.flush(states[i], axis):
                y: Chunk = part
                for j in range(i + 1, len(layers)):
                    y, states[j] = (None, states[j]) if y is None else layers[j].step(y, states[j], False, axis)
                if y is not None:
                    yield y
            states[i] = None

    def length(self, n: int, axis: int) -> int:
        """The last layer's length."""
        for layer in self.layers:
            n = layer.length(n, axis)
        return n

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """The intervals composed from the last layer to the first."""
        interval: Interval | None = outputs
        for layer in reversed(self.layers):
            interval = None if interval is None else layer.needs(interval, axis)
        return interval

    def rate(self, axis: int) -> Fraction:
        """The product of all rates."""
        return prod((layer.rate(axis) for layer in self.layers), start=Fraction(1))


class Add(Layer):
    """y = main(x) + shortcut(x); in a stream the branch that is ahead waits for the other."""

    def __init__(self, main: Layer, shortcut: Layer) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """The sum; both branches give the same shape."""
        if self.main.adds:
            return self.main.plus(x, self.shortcut(x))
        y: Tensor = self.shortcut(x) + self.main(x)
        return y

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """The sum of what both branches have released."""
        main_state, shortcut_state, waiting = state or (None, None, (None, None))
        shortcut, shortcut_state = self.shortcut.step(x, shortcut_state, last, axis)
        given = shortcut if all(part is None for part in waiting) else None
        main, left, main_state = self.main.step_plus(x, main_state, last, axis, given)
        if given is not None and left is None:
            return main, (main_state, shortcut_state, waiting)
        (main, shortcut), waiting = in_pairs((main, shortcut), waiting, axis)
        y = None if main is None or shortcut is None else shortcut + main
        return y, (main_state, shortcut_state, waiting)

    def length(self, n: int, axis: int) -> int:
        """Both branches have the same."""
        return self.main.length(n, axis)

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """The hull of both branches."""
        return hull(self.main.needs(outputs, axis), self.shortcut.needs(outputs, axis))

    def rate(self, axis: int) -> Fraction:
        """Both branches have the same."""
        return self.main.rate(axis)


class PerFrame(Layer):
    """A layer for images [N, C, H, W] applied to each frame of [B, C, T, H, W]."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, D, T, H', W']."""
        return unfold(self.layer(fold(x)), x.shape[0])

    @property
    def adds(self) -> bool:  # type: ignore[override]
        """Whether the image layer does."""
        return self.layer.adds

    def plus(self, x: Tensor, addend: Tensor) -> Tensor:
        """Frame by frame."""
        return unfold(self.layer.plus(fold(x), fold(addend)), x.shape[0])

    def step_plus(self, x: Chunk, state: State, last: bool, axis: int, addend: Chunk) -> tuple[Chunk, Chunk, State]:
        """In time, where both have the same frames."""
        if axis == TIME and self.adds and x is not None and addend is not None and x.shape[TIME] == addend.shape[TIME]:
            return self.plus(x, addend), None, None
        return super().step_plus(x, state, last, axis, addend)

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """In time every frame is alone; along other axes the image layer's own step."""
        if axis == TIME:
            return (None if x is None else self(x)), None
        batch, inner = state or (0, None)
        batch = batch if x is None else x.shape[0]
        y, inner = self.layer.step(None if x is None else fold(x), inner, last, axis)
        return (None if y is None else unfold(y, batch)), (batch, inner)

    def length(self, n: int, axis: int) -> int:
        """As many frames out as in; along other axes the image layer's."""
        return n if axis == TIME else self.layer.length(n, axis)

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """A frame needs itself; along other axes what the image layer needs."""
        return outputs if axis == TIME else self.layer.needs(outputs, axis)

    def rate(self, axis: int) -> Fraction:
        """One in time; along other axes the image layer's."""
        return Fraction(1) if axis == TIME else self.layer.rate(axis)


def fold(x: Tensor) -> Tensor:
    """[B, C, T, H, W] -> [B * T, C, H, W]."""
    return x.transpose(1, 2).flatten(0, 1)


def unfold(x: Tensor, batch: int) -> Tensor:
    """The inverse of `fold`."""
    return x.view(batch, -1, *x.shape[1:]).transpose(1, 2)


def in_pairs(
    new: tuple[Chunk, Chunk], waiting: tuple[Chunk, Chunk], axis: int
) -> tuple[tuple[Chunk, Chunk], tuple[Chunk, Chunk]]:
    """The positions that both sides have by now, and what each side has beyond them."""
    a, b = (
        fresh if old is None else old if fresh is None else torch.cat((old, fresh), axis)
        for fresh, old in zip(new, waiting, strict=True)
    )
    if a is None or b is None:
        return (None, None), (a, b)
    n = min(a.shape[axis], b.shape[axis])
    ready = (a.narrow(axis, 0, n), b.narrow(axis, 0, n))
    # a clone, since a view would keep the whole piece alive
    left = tuple(t.narrow(axis, n, t.shape[axis] - n).clone() if t.shape[axis] > n else None for t in (a, b))
    return ready, (left[0], left[1])
