"""Layers that depend on more than their input: a timestep, and noise. `bind` gives it to them (see `Layer.bind`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeport.layers.combine import Chain
from vaeport.layers.layer import TIME, Barrier, Chunk, Conditions, Interval, Layer, Settled, State
from vaeport.layers.random import standard_normal


class TimestepEmbedding(nn.Module):
    """linear_2(silu(linear_1(wave(timestep)))), wave the cosines, then the sines, of 128 frequencies from 1 to 1e-4.

    timestep [B] -> [B, out]; the waves are computed in float32 at least.
    """

    def __init__(self, out: int, width: int | None = None, frequencies: int = 128) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.linear_1 = nn.Linear(2 * frequencies, width or out)
        self.linear_2 = nn.Linear(width or out, out)

    def forward(self, timestep: Tensor) -> Tensor:
        """[B] -> [B, out]."""
        weight = self.linear_1.weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        steps = torch.arange(self.frequencies, dtype=wide, device=timestep.device)
        angles = timestep.to(wide)[:, None] * torch.exp(-math.log(10_000) / self.frequencies * steps)
        waves = torch.cat((angles.cos(), angles.sin()), 1).to(weight.dtype)
        embedding: Tensor = self.linear_2(F.silu(self.linear_1(waves)))
        return embedding


class Modulation(Layer):
    """y = x * (1 + scale) + shift, where (shift, scale) = table + the `index`-th of `count` parts of an embedding.

    x [B, C, *axes]; table [2, C]; embedding [B or 1, count * 2 * C], which it must be bound to.
    """

    def __init__(self, channels: int, index: int = 0, count: int = 1) -> None:
        super().__init__()
        self.index, self.count = index, count
        self.table = nn.Parameter(torch.zeros(2, channels))
        self.bound: tuple[Tensor, Tensor] | None = None

    def bind(self, given: Conditions) -> Self:
        """With an embedding."""
        if given.embedding is None:
            raise ValueError("a Modulation stands in a Conditioned chain, which makes the embedding")
        parts = given.embedding.unflatten(1, (self.count, *self.table.shape))[:, self.index]
        shift, scale = (self.table + parts).unbind(1)
        twin = copy(self)
        twin.bound = (shift, 1 + scale)
        return twin

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *axes], same shape."""
        if self.bound is None:
            raise ValueError("this layer depends on a timestep: call `bind` first")
        shift, factor = (t.view(*t.shape, *(1,) * (x.dim() - 2)) for t in self.bound)
        return torch.addcmul(shift, x, factor)


class SpatialNoise(Barrier):
    """y = x + scale * noise, one map of noise [H, W] for all samples, channels and frames.

    x [B, C, T, H, W]; scale [C]. The map is drawn when it is first needed, from the generator it is bound to.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(channels))
        self.generator: torch.Generator | None = None

    def bind(self, given: Conditions) -> Self:
        """With a generator."""
        twin = copy(self)
        twin.generator = given.generator
        return twin

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W], same shape."""
        return self.added(x, self._noise(x))

    def step(self, x: Chunk, state: State, last: bool, axis: int) -> tuple[Chunk, State]:
        """In time all pieces get the same map, which is the state; along other axes it waits, to draw it whole."""
        if axis != TIME:
            return super().step(x, state, last, axis)
        if x is None:
            return None, state
        noise = self._noise(x) if state is None else state
        return self.added(x, noise), noise

    def needs(self, outputs: Interval, axis: int) -> Interval | None:
        """A frame needs itself; along other axes all inputs, with which the map is drawn."""
        return outputs if axis == TIME else None

    def note(self, x: Tensor) -> Tensor:
        """How large the piece is: one channel of one frame."""
        return x[:1, :1, :1]

    def settled(self, notes: Sequence[Tensor], axis: int) -> Settled:
        """With the whole map."""
        return SettledNoise(self, self._noise(torch.cat(tuple(notes), axis)), axis)

    def _noise(self, x: Tensor) -> Tensor:
        return standard_normal(x.shape[-2:], x, self.generator)

    def added(self, x: Tensor, noise: Tensor) -> Tensor:
        """x with `noise`, a map of its own height and width."""
        return x + (noise * self.scale[:, None, None])[:, None]


class SettledNoise(Settled):
    """Noise whose map [H, W] is drawn."""

    layer: SpatialNoise

    def __init__(self, layer: SpatialNoise, noise: Tensor, axis: int) -> None:
        super().__init__(axis)
        self.__dict__["layer"] = layer  # no child: its weights are another's
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W], same shape."""
        return self.layer.added(x, self.noise.narrow(self.axis, self.start, x.shape[self.axis]))


class Conditioned(Chain):
    """A chain with an embedding of the timestep, which its layers are bound to."""

    def __init__(self, embed: TimestepEmbedding, **named: Layer | None) -> None:
        super().__init__(**named)
        self.embed = embed

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in the order in which they are applied; the embedding is none of them."""
        return super().layers[:-1]

    def bind(self, given: Conditions) -> Layer:
        """With the embedding of `given.timestep`."""
        return super().bind(replace(given, embedding=self.embed(given.timestep)))


class TimestepScale(Chain):
    """A chain whose layers are bound to `multiplier * timestep`."""

    def __init__(self, **named: Layer | None) -> None:
        super().__init__(**named)
        self.multiplier = nn.Parameter(torch.tensor(1000.0))

    def bind(self, given: Conditions) -> Layer:
        """With the timestep, scaled."""
        if given.timestep is None:
            raise ValueError("this decoder depends on a timestep")
        return super().bind(replace(given, timestep=given.timestep * self.multiplier))
