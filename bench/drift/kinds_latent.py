"""Faults of the latent: its normalisation, its scale, the posterior, the order of the moments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.drift.sites import Site, around, halves, kind, method, of, posterior_class, rewrite, whole
from vaeport.layers import LatentNormalizer, SharedLogvar
from vaeport.vae import VAE


def statistics(vae: VAE) -> tuple[Any, Any]:
    """Shift and scale of normalize(z) = (z - shift) * scale, as float64 tensors of one or of all channels."""
    n = vae.normalizer
    pair = (n.shift, n.scale) if isinstance(n, LatentNormalizer) else (n.mean, 1 / n.std.double())
    return tuple(torch.as_tensor(value, dtype=torch.float64).reshape(-1) for value in pair)


def normalized(vae: VAE) -> bool:
    shift, scale = statistics(vae)
    return bool((shift != 0).any() or (scale != 1).any()) or not isinstance(vae.normalizer, LatentNormalizer)


def shifted(vae: VAE) -> bool:
    return bool((statistics(vae)[0] != 0).any()) or not isinstance(vae.normalizer, LatentNormalizer)


def per_channel(vae: VAE) -> bool:
    return len(statistics(vae)[1]) > 1


def scaled(vae: VAE) -> bool:
    return normalized(vae) and not per_channel(vae)


def affine(vae: VAE, there: Callable[..., Tensor], back: Callable[..., Tensor]) -> None:
    """Other formulas of the two directions, in z, shift and scale."""

    def direction(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def applied(self: VAE, z: Tensor) -> Tensor:
            view = (-1, *(1,) * (z.dim() - 2))
            return formula(z, *(t.to(z).view(view) for t in statistics(self)))

        return applied

    method(vae, "normalize", direction(there))
    method(vae, "denormalize", direction(back))


AT_NORMALIZER = ("normalizer",)


@kind("normalization", whole(normalized, AT_NORMALIZER))
def normalization_missing(vae: VAE, site: Site) -> None:
    affine(vae, lambda z, b, s: z, lambda z, b, s: z)


@kind("normalization", whole(normalized, AT_NORMALIZER))
def normalization_twice(vae: VAE, site: Site) -> None:
    affine(vae, lambda z, b, s: ((z - b) * s - b) * s, lambda z, b, s: (z / s + b) / s + b)


@kind("normalization_inverted", whole(normalized, AT_NORMALIZER))
def std_inverted(vae: VAE, site: Site) -> None:
    affine(vae, lambda z, b, s: (z - b) / s, lambda z, b, s: z * s + b)


@kind("normalization_side", whole(normalized, AT_NORMALIZER))
def normalization_inside(vae: VAE, site: Site) -> None:
    vae.config = replace(vae.config, latents="normalized")


@kind("normalization_order", whole(shifted, AT_NORMALIZER))
def scale_before_shift(vae: VAE, site: Site) -> None:
    affine(vae, lambda z, b, s: z * s - b, lambda z, b, s: (z + b) / s)


@kind("shift", whole(shifted, AT_NORMALIZER))
def shift_missing(vae: VAE, site: Site) -> None:
    affine(vae, lambda z, b, s: z * s, lambda z, b, s: z / s)


@kind("shift", whole(shifted, AT_NORMALIZER))
def shift_sign(vae: VAE, site: Site) -> None:
    affine(vae, lambda z, b, s: (z + b) * s, lambda z, b, s: z / s - b)


@kind("shift", whole(scaled))
def shift_of_another_model(vae: VAE, site: Site) -> None:
    affine(vae, lambda z, b, s: (z - 0.1159) * s, lambda z, b, s: z / s + 0.1159)


@kind("scaling", whole(scaled))
def scale_of_another_model(vae: VAE, site: Site) -> None:
    affine(vae, lambda z, b, s: (z - b) * 0.13025, lambda z, b, s: z / 0.13025 + b)


@kind("normalization_channels", whole(per_channel, AT_NORMALIZER))
def statistics_reversed(vae: VAE, site: Site) -> None:
    affine(vae, lambda z, b, s: (z - b.flip(0)) * s.flip(0), lambda z, b, s: z / s.flip(0) + b.flip(0))


@kind("scaling", halves(scaled))
def scaled_inside(vae: VAE, site: Site) -> None:
    factor = float(statistics(vae)[1])
    if site.path == "decoder":
        around(vae, "decoder", before=lambda z: z / factor)
    else:
        around(vae, "encoder", after=lambda m: torch.cat((m.chunk(2, 1)[0] * factor, m.chunk(2, 1)[1]), 1))


AT_ENCODER = halves(names=("encoder",))


@kind("posterior", AT_ENCODER)
def sample_for_mode(vae: VAE, site: Site) -> None:
    posterior_class(vae, mode=lambda self: self.sample())


@kind("std", AT_ENCODER)
def std_formula(vae: VAE, site: Site) -> None:
    soft = vae.contract.posterior == "gaussian-softplus"
    wrong = (lambda self: torch.exp(0.5 * self._spread)) if soft else (lambda self: torch.exp(self.logvar))
    posterior_class(vae, std=property(wrong))


@kind("std", halves(lambda vae: vae.contract.posterior == "gaussian-softplus", ("encoder",)))
def std_floor_missing(vae: VAE, site: Site) -> None:
    posterior_class(vae, std=property(lambda self: F.softplus(self._spread)))


@kind("moments_order", AT_ENCODER)
def moments_swapped(vae: VAE, site: Site) -> None:
    around(vae, "encoder", after=lambda m: torch.cat(m.chunk(2, 1)[::-1], 1))


@kind("moments_order", AT_ENCODER)
def moments_interleaved(vae: VAE, site: Site) -> None:
    around(vae, "encoder", after=lambda m: torch.cat((m[:, ::2], m[:, 1::2]), 1))


@kind("moments_order", of(SharedLogvar))
def shared_logvar_first(vae: VAE, site: Site) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.cat((x[:, 1:], x[:, :1].expand_as(x[:, 1:])), 1)

    rewrite(vae, site, forward=forward)


@kind("latent_channel_order", halves())
def latent_channels_reversed(vae: VAE, site: Site) -> None:
    if site.path == "decoder":
        around(vae, "decoder", before=lambda z: z.flip(1))
    else:
        around(vae, "encoder", after=lambda m: torch.cat([part.flip(1) for part in m.chunk(2, 1)], 1))
