"""Faults of timesteps, modulations and noise."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.drift.sites import Site, at, kind, of, rewrite, whole
from vaeport.layers import Modulation, SpatialNoise, TimestepEmbedding, TimestepScale
from vaeport.vae import VAE


def modulated(vae: VAE, site: Site, change: Any) -> None:
    """(shift, 1 + scale) changed."""
    base = type(at(vae, site))

    def bind(self: Any, given: Any) -> Any:
        twin = base.bind(self, given)
        twin.bound = change(*twin.bound)
        return twin

    rewrite(vae, site, bind=bind)


@kind("modulation_order", of(Modulation))
def modulation_order(vae: VAE, site: Site) -> None:
    modulated(vae, site, lambda shift, factor: (factor - 1, 1 + shift))


@kind("modulation_scale", of(Modulation))
def modulation_without_one(vae: VAE, site: Site) -> None:
    modulated(vae, site, lambda shift, factor: (shift, factor - 1))


@kind("modulation_order", of(Modulation, when=lambda m: m.count > 1))
def modulation_of_the_other(vae: VAE, site: Site) -> None:
    module = at(vae, site)
    module.index = module.count - 1 - module.index


@kind("modulation_table", of(Modulation))
def modulation_table_missing(vae: VAE, site: Site) -> None:
    at(vae, site).table.data.zero_()


@kind("modulation_missing", of(Modulation))
def modulation_missing(vae: VAE, site: Site) -> None:
    modulated(vae, site, lambda shift, factor: (torch.zeros_like(shift), torch.ones_like(factor)))


@kind("timestep_scale", of(TimestepScale))
def timestep_not_scaled(vae: VAE, site: Site) -> None:
    at(vae, site).multiplier.data.fill_(1.0)


@kind("timestep", whole(lambda vae: vae.contract.decode_timestep is not None, ("decoder",)))
def timestep_zero(vae: VAE, site: Site) -> None:
    vae.contract = replace(vae.contract, decode_timestep=0.0)


def embedded(
    self: Any, timestep: Tensor, *, sines_first: bool = False, shift: float = 0.0, act: Any = F.silu, base: float = 1e4
) -> Tensor:
    """The embedding written out."""
    steps = torch.arange(self.frequencies, dtype=torch.float64, device=timestep.device)
    angles = timestep.double()[:, None] * torch.exp(-math.log(base) / (self.frequencies - shift) * steps)
    waves = [angles.cos(), angles.sin()]
    x = torch.cat(waves[::-1] if sines_first else waves, 1).to(self.linear_1.weight.dtype)
    return self.linear_2(act(self.linear_1(x)))


@kind("timestep_embedding", of(TimestepEmbedding))
def embedding_sines_first(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, t: embedded(self, t, sines_first=True))


@kind("timestep_embedding", of(TimestepEmbedding))
def embedding_frequencies(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, t: embedded(self, t, shift=1.0))


@kind("timestep_embedding", of(TimestepEmbedding))
def embedding_base(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, t: embedded(self, t, base=1e3))


@kind("activation", of(TimestepEmbedding, details=("gelu", "relu", "none")))
def embedding_activation(vae: VAE, site: Site) -> None:
    act = {"gelu": F.gelu, "relu": F.relu, "none": lambda x: x}[site.detail]
    rewrite(vae, site, forward=lambda self, t: embedded(self, t, act=act))


@kind("noise", of(SpatialNoise))
def noise_missing(vae: VAE, site: Site) -> None:
    """It is drawn, so that all others are what they were, and not added."""
    rewrite(vae, site, added=lambda self, x, noise: x)


@kind("noise", of(SpatialNoise))
def noise_not_scaled(vae: VAE, site: Site) -> None:
    rewrite(vae, site, added=lambda self, x, noise: x + noise)


@kind("noise", of(SpatialNoise))
def noise_transposed(vae: VAE, site: Site) -> None:
    def added(self: Any, x: Tensor, noise: Tensor) -> Tensor:
        return x + (noise.flip(-1) * self.scale[:, None, None])[:, None]

    rewrite(vae, site, added=added)
