"""Convolutions by the operators of `ops.py`: layers with the weights of those whose place they take."""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import Self

import torch
from torch import Tensor

from vaeport.kernels import hopper_conv
from vaeport.kernels.kept import Kept, in_place_of
from vaeport.kernels.ops import OPS
from vaeport.layers import TIME, Chain, ChannelsToTime, Conv, Layer, NearestUpsample, Shuffle, SplitFirst
from vaeport.layers import Pad as Edges
from vaeport.layers.conv import Pad
from vaeport.layers.layer import Chunk, Interval, State

Factors = tuple[int, int, int]
_MOST_TAPS = 3


class FastConv(Conv):
    """A convolution over two or three axes, and what turns its channels into positions behind it.

    split, order    as the operator's: factors of time, height, width
    """

    split: Factors = (1, 1, 1)
    order = "groups"
    adds = True
    _packed: Kept

    @classmethod
    def of(cls, conv: Conv, behind: Layer | None = None) -> Self:
        """With the parameters of `conv`; behind: a layer of which `joins` is true."""
        twin = in_place_of(cls, conv)
        if isinstance(behind, ChannelsToTime):
            twin.split = (behind.factor, 1, 1)
        elif isinstance(behind, Shuffle):
            twin.split, twin.order = behind.factors, "width-first" if behind.width_first else "shuffle"
        twin._packed = Kept(twin._pack)
        return twin

    @classmethod
    def serves(cls, layer: Layer) -> bool:
        """Whether the operator computes this layer."""
        return (
            type(layer) is Conv
            and len(layer.kernel) in (2, 3)
            and set(layer.dilation) == {1}
            and max(layer.kernel) <= _MOST_TAPS
            and max(layer.stride) <= 2
        )

    @classmethod
    def joins(cls, conv: Conv, behind: Layer) -> bool:
        """Whether the layer behind a convolution is part of the operator: channels that become positions."""
        if len(conv.kernel) < 3 or not isinstance(behind, ChannelsToTime | Shuffle):
            return False
        factor = behind.factor if isinstance(behind, ChannelsToTime) else prod(behind.factors)
        channels = conv.weight.shape[0]
        return channels % (32 * factor) == 0 or (channels <= hopper_conv.FEW and channels // factor % 32 != 0)

    def _pack(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The weight as the kernel of its device reads it; empty where the definition runs."""
        if not weight.is_cuda:
            return (weight.new_empty(0),)
        return (hopper_conv.packed(self._grouped(volume(weight)), self._strided),)

    def _grouped(self, t: Tensor) -> Tensor:
        """Rows in the order of groups."""
        if self.order == "groups":
            return t
        a, b, c = self.split
        inner = (a, c, b) if self.order == "width-first" else (a, b, c)
        rows = torch.arange(len(t), device=t.device).view(-1, *inner)
        rows = rows.permute(1, 3, 2, 0) if self.order == "width-first" else rows.permute(1, 2, 3, 0)
        return t[rows.flatten()]

    @property
    def _strided(self) -> bool:
        return any(s != 1 for s in self.stride)

    def _convolve(self, x: Tensor, weight: Tensor, pad: tuple[Pad, ...]) -> Tensor:
        return self.run(x, None, pad)

    def plus(self, x: Tensor, addend: Tensor) -> Tensor:
        """The addend joins the sums before they are rounded."""
        return self.run(x, None, self.pad, addend)

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """In time a causal layer keeps the frames that later ones see, and joins nothing."""
        y, _, state = self.step_plus(x, state, last, axis, None)
        return y, state

    def step_plus(self, x: Chunk, state: State, last: bool, axis: int, addend: Chunk) -> tuple[Chunk, Chunk, State]:
        """As `Layer.step_plus`."""
        window = self.window(axis)
        causal = window.before == window.kernel - 1 and not window.after and window.stride == 1
        if axis != TIME or len(self.kernel) < 3 or not causal:
            y, state = super().step(x, state, last, axis)
            return y, addend, state
        if x is None:
            return None, addend, state
        past: Chunk = None if state is None else state[0]
        fits = addend is not None and addend.shape[TIME] == x.shape[TIME] * self.split[0]
        before = window.before - (0 if past is None else past.shape[TIME])
        y = self.run(x, past, ((before, 0), *self.pad[1:]), addend if fits else None)
        n, kept = x.shape[TIME], window.before
        if n == kept or not kept:
            past = x if kept else None
        else:
            known = x if n > kept or past is None else torch.cat((past, x), TIME)
            # a clone, since a view would keep the whole piece alive
            past = known[:, :, max(0, known.shape[TIME] - kept) :].clone()
        return y, None if fits else addend, (past,)

    def run(self, x: Tensor, past: Chunk, pad: tuple[Pad, ...], addend: Chunk = None, repeat: bool = False) -> Tensor:
        """The operator on x with these zeros around; repeat: in time, the first and last frame instead."""
        flat = len(self.kernel) == 2
        if flat:
            x, addend, pad = x.unsqueeze(2), None if addend is None else addend.unsqueeze(2), ((0, 0), *pad)
        before, after = ([side[i] for side in pad] for i in (0, 1))
        weight, bias = self.weight, self.bias
        given_bias = None if bias is None or not x.is_cuda else self._grouped(bias)
        y: Tensor = OPS.conv(
            x, past, volume(weight), bias, *self._packed.of(weight), given_bias, addend,
            before, after, [*(1,) * flat, *self.stride], 1, repeat, self.split, self.order,
        )  # fmt: skip
        return y.squeeze(2) if flat else y

    def length(self, n: int, axis: int) -> int:
        """As many for each as the split says."""
        return super().length(n, axis) * self.split[axis]

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """The inputs under the windows."""
        factor = self.split[axis]
        return super().needs((outputs[0] // factor, -(-outputs[1] // factor)), axis)

    def rate(self, axis: int) -> Fraction:
        """As many for each as the split says."""
        return super().rate(axis) * self.split[axis]


class RepeatingConv(Layer):
    """A convolution over [B, C, T, H, W] that sees its first and last frame again beyond the ends of time.

    edges   the layer in front of it that repeats them
    """

    adds = True

    def __init__(self, edges: Edges, conv: FastConv) -> None:
        super().__init__()
        self.edges, self.conv = edges, conv

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, O, T', H', W']."""
        return self.conv.run(x, None, self._pad, None, True)

    def plus(self, x: Tensor, addend: Tensor) -> Tensor:
        """The addend joins the sums before they are rounded."""
        return self.conv.run(x, None, self._pad, addend, True)

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

    def rate(self, axis: int) -> Fraction:
        """The convolution's."""
        return self.conv.rate(axis)


class UpsampledConv(Layer):
    """Positions repeated to 2 x 2, or with all frames but the first to 2 x 2 x 2, and the convolution that sees them.

    Each of the outputs of a position sees 2 x 2 inputs (and two frames): their weights are sums of the nine (or 27).

    plain       the layers whose place it takes, which run where it is cut
    """

    adds = True

    def __init__(self, plain: Chain, conv: Conv, frames: bool) -> None:
        super().__init__()
        self.plain, self.conv, self.frames = plain, conv, frames
        self._packed = Kept(lambda weight: (folded(volume(weight), frames),))

    @classmethod
    def of(cls, layers: list[Layer]) -> UpsampledConv | None:
        """Of an upsampling and a convolution, or of an upsampling, replicated edges and a causal convolution."""
        nearest, *rest = layers
        frames = isinstance(nearest, SplitFirst)
        if isinstance(nearest, SplitFirst):
            sizes = [
                part.factors if isinstance(part, NearestUpsample) else () for part in (nearest.first, nearest.rest)
            ]
            if sizes != [(1, 2, 2), (2, 2, 2)] or not nearest.skip:
                return None
        elif not isinstance(nearest, NearestUpsample) or nearest.factors[-2:] != (2, 2) or nearest.factors[:-2] == (2,):
            return None
        conv = rest[-1] if rest else None
        if not isinstance(conv, Conv) or not FastConv.serves(conv) or conv.weight.shape[0] % 32 or max(conv.stride) > 1:
            return None
        if len(rest) == 1:
            flat = conv.kernel == (3, 3) and conv.pad == ((1, 1), (1, 1)) and not frames
            return cls(Chain(*layers), conv, False) if flat else None
        causal = isinstance(rest[0], Edges) and rest[0].mode == "replicate" and rest[0].pads == ((2, 0), (1, 1), (1, 1))
        whole = causal and conv.kernel == (3, 3, 3) and not any(map(any, conv.pad)) and len(rest) == 2
        return cls(Chain(*layers), conv, frames) if whole else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, O, 2H, 2W], or [B, C, T, H, W] -> [B, O, T', 2H, 2W]."""
        return self._run(x, None)

    def plus(self, x: Tensor, addend: Tensor) -> Tensor:
        """The addend joins the sums before they are rounded."""
        return self._run(x, addend)

    def _run(self, x: Tensor, addend: Chunk) -> Tensor:
        weight, flat = self.conv.weight, x.dim() == 4
        if flat:
            x, addend = x.unsqueeze(2), None if addend is None else addend.unsqueeze(2)
        y: Tensor = OPS.upsampled_conv(x, volume(weight), self.conv.bias, *self._packed.of(weight), addend, self.frames)
        return y.squeeze(2) if flat else y

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """The plain layers."""
        return self.plain.step(x, state, last, axis)

    def length(self, n: int, axis: int) -> int:
        """The plain layers'."""
        return self.plain.length(n, axis)

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """The plain layers'."""
        return self.plain.needs(outputs, axis)

    def rate(self, axis: int) -> Fraction:
        """The plain layers'."""
        return self.plain.rate(axis)


def volume(weight: Tensor) -> Tensor:
    """[O, C, *kernel] with three axes."""
    return weight.view(*weight.shape[:2], *(1,) * (5 - weight.dim()), *weight.shape[2:])


def folded(weight: Tensor, frames: bool) -> Tensor:
    """[O, C, 1 or 3, 3, 3] -> the convolutions of the outputs of a position, each `packed`; empty on other devices."""
    if not weight.is_cuda:
        return weight.new_empty(0)
    return torch.stack([hopper_conv.packed(part) for part in phases(weight, frames)])


def phases(weight: Tensor, frames: bool) -> list[Tensor]:
    """[O, C, kt, 3, 3] -> [O, C, kt or 2, 2, 2] for each output of a position, width the fastest.

    Outputs 2i + a of an axis see the inputs i - 1 + a and i + a.
    """
    parts = [weight.to(torch.promote_types(weight.dtype, torch.float32))]
    for axis in (2, 3, 4) if frames else (3, 4):
        parts = [half for part in parts for half in _halves(part, axis)]
    return [part.to(weight.dtype) for part in parts]


def _halves(weight: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    first, middle, last = weight.unbind(axis)
    return torch.stack((first, middle + last), axis), torch.stack((first + middle, last), axis)
