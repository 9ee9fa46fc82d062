"""`Program`: an encoder or decoder as a list of steps on a stack of tensors, which can be interrupted between any two.

A tree of layers hides what is alive inside a residual block. Laid out flat, a block is `Fork` (its shortcut goes onto
the stack), the layers of its main branch, and `Join`; what a pause has to keep is the stack.

Steps run on windows: an interval of outputs, from the interval of inputs that they need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, lcm

from torch import Tensor

from vaeport.layers.combine import Add, Chain, PerFrame, fold, unfold
from vaeport.layers.layer import Barrier, Interval, Layer, Settled, hull


@dataclass(frozen=True)
class Apply:
    """The layer's output takes the place of the last tensor; `name` is where the layer lies in the half."""

    layer: Layer
    name: str = ""


@dataclass(frozen=True)
class Fork:
    """The shortcut of the last tensor goes below it."""

    shortcut: tuple[Op, ...]


@dataclass(frozen=True)
class Join:
    """The last two tensors become their sum."""


Op = Apply | Fork | Join
Placed = tuple[Tensor, int]
"""A tensor and the position of its first row in the whole"""


ALL: Interval = (0, 2**62)
"""Every row, however many there are"""


class FoldFrames(Layer):
    """[B, C, T, H, W] -> [B * T, C, H, W]; the way into a `PerFrame` whose layers are steps of their own."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return fold(x)


class UnfoldFrames(Layer):
    """The way back, to a batch of that size."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return unfold(x, self.batch)


def steps_of(layer: Layer, batch: int | None = None, name: str = "") -> list[Op]:
    """The steps of a layer; with a batch size, image layers with barriers that are applied per frame are opened too."""

    def inside(child: Layer, key: str) -> list[Op]:
        return steps_of(child, batch, f"{name}.{key}".strip("."))

    if isinstance(layer, Chain):
        named = [(key, child) for key, child in layer._modules.items() if isinstance(child, Layer)]
        return [op for key, child in named for op in inside(child, key)]
    if isinstance(layer, Add):
        return [Fork(tuple(inside(layer.shortcut, "shortcut"))), *inside(layer.main, "main"), Join()]
    if isinstance(layer, PerFrame) and batch is not None and any(isinstance(m, Barrier) for m in layer.modules()):
        return [Apply(FoldFrames(), name), *inside(layer.layer, "layer"), Apply(UnfoldFrames(batch), name)]
    return [Apply(layer, name)]


def layer_of(ops: Sequence[Op]) -> Chain:
    """The steps as one layer again; they leave the stack as deep as it was."""
    stack: list[tuple[list[Layer], Layer | None]] = [([], None)]
    for op in ops:
        match op:
            case Apply(layer):
                stack[-1][0].append(layer)
            case Fork(shortcut):
                stack.append(([], layer_of(shortcut)))
            case Join():
                main, below = stack.pop()
                assert below is not None
                stack[-1][0].append(Add(Chain(*main), below))
    ((layers, _),) = stack
    return Chain(*layers)


def is_barrier(op: Op, axis: int) -> bool:
    """Whether the step waits for all positions along `axis`."""
    return isinstance(op, Apply) and op.layer.needs((0, 1), axis) is None


def depth_after(op: Op) -> int:
    """By how much the step changes the depth of the stack."""
    return {Apply: 0, Fork: 1, Join: -1}[type(op)]


def touched(ops: Sequence[Op], depth: int) -> int:
    """How many entries at the bottom of a stack of that depth the steps leave alone."""
    least = depth - 1
    for op in ops:
        depth += depth_after(op)
        least = min(least, depth - 1)
    return least


def without_loose_forks(ops: Sequence[Op]) -> list[Op]:
    """The steps without the shortcuts that they do not join."""
    loose: list[int] = []
    for i, op in enumerate(ops):
        if isinstance(op, Fork):
            loose.append(i)
        elif isinstance(op, Join) and loose:
            loose.pop()
    return [op for i, op in enumerate(ops) if i not in loose]


def lengths(ops: Sequence[Op], start: Sequence[int], axis: int) -> list[int]:
    """Rows of each tensor on the stack after the steps, from those before."""
    stack = list(start)
    for op in ops:
        match op:
            case Apply(layer):
                stack[-1] = layer.length(stack[-1], axis)
            case Fork(shortcut):
                stack[-1:] = [*lengths(shortcut, stack[-1:], axis), stack[-1]]
            case Join():
                stack.pop()
    return stack


def needed(ops: Sequence[Op], outputs: Sequence[Interval], axis: int) -> list[Interval]:
    """For each tensor on the stack before the steps, the rows that the `outputs` after them depend on, not clipped."""
    stack = list(outputs)
    for op in reversed(ops):
        match op:
            case Apply(layer):
                stack.append(layer.needs(stack.pop(), axis) or ALL)
            case Join():
                stack.append(stack[-1])
            case Fork(shortcut):
                top = stack.pop()
                (below,) = needed(shortcut, [stack.pop()], axis)
                stack.append(hull(below, top) or ALL)
    return stack


def grains(ops: Sequence[Op], axis: int, depth: int = 1) -> list[int]:
    """For each tensor on a stack of that depth, the number of rows in whose multiples a window of it may begin.

    All that is made of such a window then begins at a whole row.
    """
    found, least = [1] * depth, depth
    for i, op in enumerate(ops, 1):
        depth += depth_after(op)
        if depth < least:
            found[depth - 1], least = _grain(ops[i:], axis), depth
    found[-1] = _grain(ops, axis)
    return found


def _grain(ops: Sequence[Op], axis: int, rate: Fraction = Fraction(1)) -> int:
    stack, found = [rate], 1
    for op in ops:
        match op:
            case Apply(layer):
                stack[-1] *= layer.rate(axis)
            case Join():
                stack[-2:] = stack[-1:]
            case Fork(shortcut):
                found = lcm(found, _grain(shortcut, axis, stack[-1]))
                stack.append(stack[-1])
        found = lcm(found, stack[-1].denominator)
    return found


def run(ops: Sequence[Op], stack: Sequence[Placed], axis: int) -> list[Placed]:
    """The steps on windows of the stack's tensors. Rows at a cut that needed what was cut off are wrong."""
    found = list(stack)
    del stack  # or what it holds would live as long as this call
    for op in ops:
        match op:
            case Apply(layer):
                found.append(_applied(layer, *found.pop(), axis))
            case Fork(shortcut):
                found[-1:] = [*run(shortcut, found[-1:], axis), found[-1]]
            case Join():
                found.append(_joined(found.pop(), found.pop(), axis))
    return found


def _applied(layer: Layer, x: Tensor, start: int, axis: int) -> Placed:
    y = (layer.at(start) if isinstance(layer, Settled) else layer)(x)
    return y, floor(start * layer.rate(axis))


def _joined(main: Placed, below: Placed, axis: int) -> Placed:
    """The sum of the rows that both have; a function of its own, since a name in `run` would keep them alive."""
    start, stop = max(main[1], below[1]), min(t.shape[axis] + at for t, at in (main, below))
    a, b = (t.narrow(axis, start - at, stop - start) for t, at in (below, main))
    return a + b, start
