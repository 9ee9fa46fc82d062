"""Convolutions by the operators of `ops.py`: layers with the weights of those whose place they take."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, Self

import torch
from torch import Tensor

from vaeport.kernels import hopper_conv, ops
from vaeport.layers.conv import Conv, Pad
from vaeport.layers.layer import TIME, Chunk, Interval, Layer, State
from vaeport.layers.pad import Pad as Edges
from vaeport.layers.resample import NearestUpsample

_OPS = torch.ops.vaeport


class Derived:
    """What is made of a weight, kept until the weight changes."""

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        self.make = make
        self.key: tuple[Any, ...] = ()
        self.value: Tensor | None = None

    def of(self, weight: Tensor) -> Tensor:
        """Made anew after a load, a move, or a change of type."""
        key = (weight.data_ptr(), weight._version, weight.dtype, weight.device)
        if self.value is None or key != self.key:
            with torch.no_grad():
                self.key, self.value = key, self.make(weight)
        return self.value


def packed(weight: Tensor) -> Tensor:
    """As the kernel of the weight's device reads it; empty where the definition runs."""
    return hopper_conv.packed(_volume(weight)) if weight.is_cuda else weight.new_empty(0)


def _volume(weight: Tensor) -> Tensor:
    """[O, C, *kernel] with three axes."""
    return weight.view(*weight.shape[:2], *(1,) * (5 - weight.dim()), *weight.shape[2:])


class FastConv(Conv):
    """A convolution of stride 1 over two or three axes.

    split   the i-th share of the output channels is frame i of as many frames, as `ChannelsToTime` behind it has them
    """

    split = 1
    adds = True

    @classmethod
    def of(cls, conv: Conv, split: int = 1) -> Self:
        """With the parameters of `conv`."""
        twin = cls.__new__(cls)
        twin.__dict__.update(copy(conv).__dict__)
        twin.split = split
        twin.__dict__["_packed"] = Derived(packed)
        return twin

    @classmethod
    def serves(cls, layer: Layer) -> bool:
        """Whether the operator computes this layer."""
        return (
            type(layer) is Conv
            and len(layer.kernel) in (2, 3)
            and set(layer.stride) == set(layer.dilation) == {1}
            and all(k <= 3 for k in layer.kernel)
            and layer.weight.shape[1] % 8 == 0
        )

    def _convolve(self, x: Tensor, weight: Tensor, pad: tuple[Pad, ...]) -> Tensor:
        return self._run(x, None, pad)

    def plus(self, x: Tensor, addend: Tensor) -> Tensor:
        """The addend joins the sums before they are rounded."""
        return self._run(x, None, self.pad, addend)

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """In time a causal layer keeps the frames that later ones see, and joins nothing."""
        y, _, state = self.step_plus(x, state, last, axis, None)
        return y, state

    def step_plus(self, x: Chunk, state: State, last: bool, axis: int, addend: Chunk) -> tuple[Chunk, Chunk, State]:
        """As `Layer.step_plus`."""
        window = self.window(axis)
        if axis != TIME or len(self.kernel) < 3 or window.after or window.before != window.kernel - 1:
            y, state = super().step(x, state, last, axis)
            return y, addend, state
        if x is None:
            return None, addend, state
        past, weight = state or (None, None)
        fits = addend is not None and addend.shape[TIME] == x.shape[TIME] * self.split
        before = window.before - (0 if past is None else past.shape[TIME])
        y = self._run(x, past, ((before, 0), *self.pad[1:]), addend if fits else None)
        kept = window.before
        if kept:
            n = x.shape[TIME]
            known = x if n >= kept or past is None else torch.cat((past, x), TIME)
            start = max(0, known.shape[TIME] - kept)
            # a clone, since a view would keep the whole piece alive
            past = known[:, :, start:].clone() if known is x else known[:, :, start:]
        return y, None if fits else addend, (past, weight)

    def _run(self, x: Tensor, past: Chunk, pad: tuple[Pad, ...], addend: Chunk = None, repeat: bool = False) -> Tensor:
        flat = len(self.kernel) == 2
        if flat:
            x, addend, pad = x.unsqueeze(2), None if addend is None else addend.unsqueeze(2), ((0, 0), *pad)
        before, after = ([side[i] for side in pad] for i in (0, 1))
        weight = self.weight
        y: Tensor = _OPS.conv(
            x, past, _volume(weight), self._packed.of(weight), self.bias, addend, before, after, repeat, self.split
        )
        return y.squeeze(2) if flat else y

    def length(self, n: int, axis: int) -> int:
        """`split` frames for each."""
        return super().length(n, axis) * (self.split if axis == TIME else 1)

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """The inputs under the windows."""
        if axis == TIME and self.split > 1:
            outputs = outputs[0] // self.split, -(-outputs[1] // self.split)
        return super().needs(outputs, axis)

    def rate(self, axis: int) -> Any:
        """`split` in time."""
        return super().rate(axis) * (self.split if axis == TIME else 1)


class RepeatingConv(Layer):
    """A convolution over [B, C, T, H, W] that sees its first and last frame again beyond the ends of time.

    edges   the layer in front of it that repeats them; what it does along other axes is not the operator's
    """

    adds = True

    def __init__(self, edges: Edges, conv: FastConv) -> None:
        super().__init__()
        self.edges, self.conv = edges, conv

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, O, T', H', W']."""
        return self.conv._run(x, None, self._pad, None, True)

    def plus(self, x: Tensor, addend: Tensor) -> Tensor:
        """The addend joins the sums before they are rounded."""
        return self.conv._run(x, None, self._pad, addend, True)

    @property
    def _pad(self) -> tuple[Pad, ...]:
        return (self.edges.pads[TIME], *self.conv.pad[1:])

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """One after the other."""
        edges, conv = state or (None, None)
        x, edges = self.edges.step(x, edges, last, axis)
        y, conv = self.conv.step(x, conv, last, axis)
        return y, (edges, conv)

    def length(self, n: int, axis: int) -> int:
        """Of both."""
        return self.conv.length(self.edges.length(n, axis), axis)

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """Of both."""
        inner = self.conv.needs(outputs, axis)
        return None if inner is None else self.edges.needs(inner, axis)

    def rate(self, axis: int) -> Any:
        """The convolution's."""
        return self.conv.rate(axis)


class UpsampledConv(Layer):
    """A 3 x 3 convolution, zeros around, of [N, C, H, W] with each position repeated to 2 x 2.

    Each of the four outputs of a position sees 2 x 2 inputs: their weights are sums of the nine.
    """

    def __init__(self, nearest: NearestUpsample, conv: FastConv) -> None:
        super().__init__()
        self.nearest, self.conv = nearest, conv
        self.__dict__["_packed"] = Derived(folded)

    @classmethod
    def serves(cls, nearest: Layer, conv: Layer) -> bool:
        """Whether the operator computes these two."""
        return (
            isinstance(nearest, NearestUpsample)
            and nearest.factors == (2, 2)
            and FastConv.serves(conv)
            and isinstance(conv, Conv)
            and conv.kernel == (3, 3)
            and conv.pad == ((1, 1), (1, 1))
            and conv.weight.shape[0] % 32 == 0
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, O, 2H, 2W]."""
        weight = self.conv.weight
        y: Tensor = _OPS.upsampled_conv(x, weight, self._packed.of(weight), self.conv.bias)
        return y

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """One after the other."""
        return self.conv.step(None if x is None else self.nearest(x), state, last, axis)

    def length(self, n: int, axis: int) -> int:
        """Twice as many."""
        return self.nearest.length(n, axis)

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """Of both."""
        inner = self.conv.needs(outputs, axis)
        return None if inner is None else self.nearest.needs(inner, axis)

    def rate(self, axis: int) -> Any:
        """Two."""
        return self.nearest.rate(axis)


def folded(weight: Tensor) -> Tensor:
    """[O, C, 3, 3] -> the four convolutions of 2 x 2 taps, each as `packed`: [2, 2, ...]; empty on other devices."""
    if not weight.is_cuda:
        return weight.new_empty(0)
    return torch.stack([torch.stack([packed(w) for w in row]) for row in phases(weight)])


def phases(weight: Tensor) -> list[list[Tensor]]:
    """Weights [O, C, 2, 2] for outputs 2i + a, 2j + b of inputs i - 1 + a.. and j - 1 + b.., by a and b."""
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    rows = [
        torch.stack((wide[:, :, 0], wide[:, :, 1] + wide[:, :, 2]), 2),
        torch.stack((wide[:, :, 0] + wide[:, :, 1], wide[:, :, 2]), 2),
    ]
    return [
        [
            torch.stack((row[..., 0], row[..., 1] + row[..., 2]), 3).to(weight.dtype),
            torch.stack((row[..., 0] + row[..., 1], row[..., 2]), 3).to(weight.dtype),
        ]
        for row in rows
    ]
