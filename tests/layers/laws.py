"""What every layer promises, as checks: streamed equals whole, `length` is the length, `needs` is what is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vaeport.layers import Barrier, Layer

STREAMED = 1e-12
"""rms difference between streamed and whole, in float64"""

Module = TypeVar("Module", bound=nn.Module)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal values in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(module: Module, seed: int = 0) -> Module:
    """The module in float64, all weights drawn, none at rest: matrices keep the scale, gains are near 1."""
    module.double().requires_grad_(False)
    for i, (name, value) in enumerate(sorted(module.named_parameters())):
        noise, last = normal(*value.shape, seed=1000 * seed + i), name.rpartition(".")[2]
        if value.dim() == 0:
            continue  # a number that no training moves
        if last in ("bias", "log_alpha", "log_beta", "table", "scale"):
            value.copy_(0.2 * noise)
        elif last == "weight_g":
            value.copy_(0.4 * (1 + 0.2 * noise).abs())  # without norms, more would grow from layer to layer
        elif last == "gain" or value.dim() == 1:
            value.copy_((1 + 0.2 * noise).abs())
        else:
            value.copy_(noise / (value.numel() / value.shape[0]) ** 0.5)
    for i, (name, value) in enumerate(sorted(module.named_buffers())):
        noise = normal(*value.shape, seed=1000 * seed + 500 + i)
        value.copy_(1 + noise.tanh() / 2 if name.endswith("std") else noise / 2)
    return module


@dataclass(frozen=True)
class Cutting:
    """Lengths of the pieces, zeros among them, and whether the end is told with the last piece or after it."""

    sizes: tuple[int, ...]
    flush: bool

    def pieces(self, x: Tensor, axis: int) -> Iterator[Tensor | None]:
        for piece in x.split(self.sizes, axis):
            yield piece if piece.shape[axis] else None


@st.composite
def cuttings(draw: st.DrawFn, n: int) -> Cutting:
    """Any way to cut `n` positions, from one piece to single positions, with empty pieces anywhere."""
    bounds = [0, *sorted(draw(st.lists(st.integers(0, n), max_size=min(n + 3, 30)))), n]
    return Cutting(tuple(b - a for a, b in pairwise(bounds)), draw(st.booleans()))


def singles(n: int) -> Cutting:
    """One position at a time, an empty piece after each."""
    return Cutting((0, *(1, 0) * n), flush=True)


def streamed(layer: Layer, x: Tensor, axis: int, cutting: Cutting) -> Tensor | None:
    """All that the layer releases, one behind the other; None if that is nothing."""
    pieces: Sequence[Tensor | None] = [*cutting.pieces(x, axis), *([None] if cutting.flush else [])]
    state, outputs = None, []
    for i, piece in enumerate(pieces):
        y, state = layer.step(piece, state, i == len(pieces) - 1, axis)
        assert y is None or y.shape[axis] > 0, "an empty output is None"
        outputs += [] if y is None else [y]
    return torch.cat(outputs, axis) if outputs else None


def kept_alive(state: object) -> int:
    """Bytes of memory that a state holds."""
    if isinstance(state, Tensor):
        return state.untyped_storage().nbytes()
    return sum(map(kept_alive, state)) if isinstance(state, list | tuple) else 0


class Largest(TorchDispatchMode):
    """`elements` of the largest tensor that any operation within makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [t.numel() for t in tree_leaves(out) if isinstance(t, Tensor)]
        self.elements = max(self.elements, *made, 0)
        return out


def difference(a: Tensor, b: Tensor) -> float:
    """Root mean square of a - b."""
    assert a.shape == b.shape
    return float((a - b).detach().square().mean().sqrt())


def assert_streams(layer: Layer, x: Tensor, axis: int, cutting: Cutting) -> None:
    """Streamed equals whole, and both are as long as `length` says."""
    whole, found = layer(x), streamed(layer, x, axis, cutting)
    assert whole.shape[axis] == layer.length(x.shape[axis], axis)
    if whole.shape[axis] == 0:
        assert found is None
        return
    assert found is not None, "nothing came out"
    assert difference(found, whole) <= STREAMED


def dependence(layer: Layer, x: Tensor, axis: int) -> Tensor:
    """[inputs, outputs]: whether an output changes with an input, each of which is changed in turn. x has batch 1."""
    axis %= x.dim()
    n = x.shape[axis]
    batch = x.repeat(n + 1, *(1,) * (x.dim() - 1))
    for i in range(n):
        batch[i].select(axis - 1, i).add_(normal(*batch[i].select(axis - 1, i).shape, seed=i))
    y = layer(batch).movedim(axis, 1).flatten(2)
    return (y[:n] - y[n]).abs().amax(2) > 1e-12


def assert_needs(layer: Layer, x: Tensor, axis: int, *, tight: bool = True) -> None:
    """For every interval of outputs: nothing outside `needs` changes them, and its first and last input do."""
    depends = dependence(layer, x, axis)
    n, outputs = depends.shape
    assert outputs, "a layer without outputs shows nothing"
    for start in range(outputs):
        for stop in range(start + 1, outputs + 1):
            found = depends[:, start:stop].any(1).nonzero().flatten().tolist()
            needed = layer.needs((start, stop), axis)
            first, last = (0, n) if needed is None else (max(needed[0], 0), min(needed[1], n))
            told = f"outputs {start}..{stop - 1} need {needed} and depend on {found}"
            assert all(first <= i < last for i in found), told
            if tight:
                assert [first, last] == [found[0], found[-1] + 1] if found else first >= last, told


def assert_local(layer: Layer, x: Tensor, axis: int) -> None:
    """For every interval of outputs: the inputs that it needs, from a whole multiple of the rate on, give it."""
    y, rate = layer(x), layer.rate(axis)
    n, outputs = x.shape[axis], y.shape[axis]
    assert outputs, "a layer without outputs shows nothing"
    for start in range(outputs):
        for stop in range(start + 1, outputs + 1):
            needed = layer.needs((start, stop), axis)
            assert needed is not None
            first, last = max(needed[0], 0), min(needed[1], n)
            first -= first % rate.denominator
            part, skip = layer(x.narrow(axis, first, last - first)), start - int(first * rate)
            found = part.narrow(axis, skip, stop - start)
            assert difference(found, y.narrow(axis, start, stop - start)) <= STREAMED, (start, stop)


def assert_settles(barrier: Barrier, x: Tensor, axis: int, cutting: Cutting) -> None:
    """Settled on the notes of all pieces, a barrier gives each piece its part of the whole, also in a stream."""
    pieces = [piece for piece in x.split(cutting.sizes, axis) if piece.shape[axis]]
    settled = barrier.settled([barrier.note(piece) for piece in pieces], axis)
    starts = [sum(piece.shape[axis] for piece in pieces[:i]) for i in range(len(pieces))]
    found = [settled.at(start)(piece) for start, piece in zip(starts, pieces, strict=True)]
    assert difference(torch.cat(found, axis), barrier(x)) <= STREAMED
    again = streamed(settled, x, axis, cutting)
    assert again is not None
    assert difference(again, barrier(x)) <= STREAMED
