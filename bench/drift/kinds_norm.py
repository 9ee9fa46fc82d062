"""Faults of norms."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.drift.sites import Site, at, is_a, kind, of, rewrite
from vaeport.layers import ChannelLayerNorm, ChannelRMSNorm, GroupNorm, PixelNorm
from vaeport.vae import VAE

NORMS = (GroupNorm, ChannelLayerNorm, ChannelRMSNorm, PixelNorm)
MEAN = (GroupNorm, ChannelLayerNorm)
POSITION = (ChannelLayerNorm, ChannelRMSNorm, PixelNorm)
GAINED = (GroupNorm, ChannelLayerNorm, ChannelRMSNorm)


def view(t: Tensor, x: Tensor) -> Tensor:
    """A value per channel, against x."""
    return t.view(-1, *(1,) * (x.dim() - 2))


def written(
    norm: Any,
    x: Tensor,
    *,
    axes: tuple[int, ...] | None = None,
    centred: bool | None = None,
    unbiased: bool = False,
    gain: Any = None,
    eps: float | None = None,
) -> Tensor:
    """Any of the norms written out; axes over which statistics are taken, of [B, G, C/G, *axes]; None as it should."""
    groups = norm.groups if is_a(norm, GroupNorm) else 1
    split = x.unflatten(1, (groups, -1))
    over = axes or (tuple(range(2, split.dim())) if is_a(norm, GroupNorm) else (2,))
    if is_a(norm, *MEAN) if centred is None else centred:
        split = split - split.mean(over, keepdim=True)
    count = 1
    for axis in over:
        count *= split.shape[axis]
    mean = split.square().sum(over, keepdim=True) / (count - 1 if unbiased and count > 1 else count)
    floor = getattr(norm, "eps", 0.0) if eps is None else eps
    y = (split / (mean + floor).sqrt().clamp_min(1e-15)).flatten(1, 2)
    weight = getattr(norm, "gain", getattr(norm, "weight", None)) if gain is None else gain
    if weight is not None:
        y = y * view(weight.to(x), x)
    bias = getattr(norm, "bias", None)
    return y if bias is None else y + view(bias, x)


def rewritten(vae: VAE, site: Site, **options: Any) -> None:
    """The norm of a site with other options of `written`."""
    rewrite(vae, site, forward=lambda self, x: written(self, x, **options))


@kind("eps", of(*NORMS))
def norm_eps(vae: VAE, site: Site) -> None:
    norm = at(vae, site)
    if isinstance(norm, ChannelRMSNorm):
        rewritten(vae, site, eps=1e-6)
    else:
        norm.eps = 1e-6 if isinstance(norm, PixelNorm) else 1e-5


@kind("eps", of(GroupNorm, ChannelLayerNorm, PixelNorm))
def norm_eps_missing(vae: VAE, site: Site) -> None:
    at(vae, site).eps = 0.0


@kind("groups", of(GroupNorm))
def norm_groups_halved(vae: VAE, site: Site) -> None:
    at(vae, site).groups //= 2


@kind("groups", of(GroupNorm, when=lambda m: len(m.weight) % (2 * m.groups) == 0))
def norm_groups_doubled(vae: VAE, site: Site) -> None:
    at(vae, site).groups *= 2


@kind("statistics", of(*NORMS))
def norm_statistics(vae: VAE, site: Site) -> None:
    """Per position for per frame or sample, and the other way round."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if is_a(self, *POSITION):
            return written(self, x, axes=(2, -2, -1) if x.dim() > 3 else (2, -1))
        return written(self, x, axes=(2, -2, -1) if x.dim() == 5 else (2,))

    rewrite(vae, site, forward=forward)


@kind("statistics", of(*POSITION))
def norm_axis(vae: VAE, site: Site) -> None:
    rewritten(vae, site, axes=(-1,))


@kind("centering", of(*NORMS))
def norm_centring(vae: VAE, site: Site) -> None:
    rewritten(vae, site, centred=not isinstance(at(vae, site), MEAN))


@kind("variance", of(*MEAN))
def norm_unbiased(vae: VAE, site: Site) -> None:
    rewritten(vae, site, unbiased=True)


@kind("gain", of(*GAINED))
def norm_gain_around_zero(vae: VAE, site: Site) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        weight = self.gain if is_a(self, ChannelRMSNorm) else self.weight
        return written(self, x, gain=1 + weight)

    rewrite(vae, site, forward=forward)


@kind("gain", of(*GAINED))
def norm_gain_missing(vae: VAE, site: Site) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return written(self, x, gain=torch.ones(x.shape[1], dtype=x.dtype, device=x.device))

    rewrite(vae, site, forward=forward)


@kind("norm_scale", of(ChannelRMSNorm, PixelNorm))
def norm_scale(vae: VAE, site: Site) -> None:
    """A sum of squares for their mean."""
    rewrite(vae, site, forward=lambda self, x: written(self, x) / x.shape[1] ** 0.5)


@kind("norm_missing", of(*NORMS))
def norm_missing(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, x: x)


@kind("norm_kind", of(ChannelLayerNorm, ChannelRMSNorm, PixelNorm))
def norm_over_groups(vae: VAE, site: Site) -> None:
    """A group norm with one group of all channels, over all positions, for the norm of a position."""

    def forward(self: Any, x: Tensor) -> Tensor:
        gain, bias = getattr(self, "gain", getattr(self, "weight", None)), getattr(self, "bias", None)
        return F.group_norm(x, 1, gain, bias, 1e-6)

    rewrite(vae, site, forward=forward)
