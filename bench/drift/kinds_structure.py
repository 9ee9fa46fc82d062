"""Faults of how layers are put together: residual branches, order, resolution, frames, channels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.drift.kinds_norm import NORMS
from bench.drift.sites import Site, at, children, in_one_piece, is_a, kind, of, rewrite
from vaeport.layers import (
    TIME,
    Add,
    Chain,
    ChannelsToTime,
    Conv,
    DropFrames,
    GroupMean,
    Identity,
    NearestUpsample,
    RepeatChannels,
    Shuffle,
    SiLU,
    SplitFirst,
    TileChannels,
    Unshuffle,
)
from vaeport.vae import VAE


@kind("residual_scale", of(Add))
def residual_scale(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, x: (self.shortcut(x) + self.main(x)) / 2**0.5)


@kind("residual_missing", of(Add))
def residual_missing(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, x: self.main(x))


@kind("residual_missing", of(Add))
def residual_subtracted(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, x: self.shortcut(x) - self.main(x))


def _normed(add: Any) -> bool:
    first = next(iter(add.main.children()), None) if isinstance(add.main, Chain) else None
    return isinstance(add.shortcut, Identity) and isinstance(first, NORMS)


@kind("residual_input", of(Add, when=_normed))
def residual_of_the_normed(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, x: next(iter(self.main.children()))(x) + self.main(x))


def width(conv: Any) -> tuple[int, int]:
    """Channels in and out of a convolution, or of a chain that ends with one."""
    inner = [m for m in conv.modules() if isinstance(m, Conv)]
    return (inner[0].weight.shape[1], inner[-1].weight.shape[0]) if inner else (0, 1)


def _runs(vae: VAE, *, swap: tuple[int, int]) -> list[Site]:
    """Chains with a norm, an activation and a convolution in succession; `detail`: the two names that are swapped."""
    found = []
    for path, chain in children(vae, Chain):
        names = list(chain._modules)
        for i in range(len(names) - 2):
            norm, act, conv = (chain._modules[name] for name in names[i : i + 3])
            if not (isinstance(norm, NORMS) and isinstance(act, SiLU)) or isinstance(conv, SiLU):
                continue
            after = width(conv)
            if swap == (0, 1) or after[0] == after[1]:
                found.append(Site(path, f"{names[i + swap[0]]} {names[i + swap[1]]}", (f"{path}.{names[i]}",)))
    return found


def swap_layers(vae: VAE, site: Site) -> None:
    """The two layers of `detail` change places."""
    chain = at(vae, site)
    one, other = site.detail.split()
    order = list(chain._modules)
    i, j = order.index(one), order.index(other)
    order[i], order[j] = order[j], order[i]
    chain._modules = {name: chain._modules[name] for name in order}
    in_one_piece(vae)


@kind("norm_placement", lambda vae: _runs(vae, swap=(0, 2)))
def norm_after_convolution(vae: VAE, site: Site) -> None:
    swap_layers(vae, site)


@kind("norm_placement", lambda vae: _runs(vae, swap=(0, 1)))
def activation_before_norm(vae: VAE, site: Site) -> None:
    swap_layers(vae, site)


@kind("group_mean", of(GroupMean))
def group_sum(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, x: x.unflatten(1, (self.groups, -1)).sum(2))


@kind("channel_grouping", of(GroupMean))
def group_of_distant_channels(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, x: x.unflatten(1, (-1, self.groups)).mean(1))


@kind("repeat_order", of(RepeatChannels, TileChannels))
def repeat_order(vae: VAE, site: Site) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if is_a(self, TileChannels):
            return x.repeat_interleave(self.times, 1)
        return torch.cat([x] * self.times, 1)

    rewrite(vae, site, forward=forward)


@kind("repeat_order", of(NearestUpsample))
def tiled_for_nearest(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, x: x.repeat(*(1,) * (x.dim() - len(self.factors)), *self.factors))


@kind("upsample_mode", of(NearestUpsample))
def upsample_linear(vae: VAE, site: Site) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        mode = {4: "bilinear", 5: "trilinear"}[x.dim()]
        return F.interpolate(x, scale_factor=[float(f) for f in self.factors], mode=mode)

    rewrite(vae, site, forward=forward)


@kind("upsample_mode", of(NearestUpsample))
def upsample_with_zeros(vae: VAE, site: Site) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        shape = [n * f for n, f in zip(x.shape[-len(self.factors) :], self.factors, strict=True)]
        y = x.new_zeros(*x.shape[: -len(self.factors)], *shape)
        y[(..., *(slice(None, None, f) for f in self.factors))] = x
        return y

    rewrite(vae, site, forward=forward)


@kind("first_frame", of(SplitFirst))
def first_frame_as_the_others(vae: VAE, site: Site) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        wanted = self.length(x.shape[TIME], TIME)
        if self.skip == 0:
            return self.rest(F.pad(x, (0, 0, 0, 0, 2, 0)))
        y = self.rest(x)
        return y[:, :, :wanted]

    rewrite(vae, site, forward=forward)


@kind("first_frame", of(DropFrames))
def last_frame_dropped(vae: VAE, site: Site) -> None:
    rewrite(vae, site, forward=lambda self, x: x[:, :, : x.shape[TIME] - self.count])


def _square(module: Any) -> bool:
    return module.factors[1] == module.factors[2] > 1


@kind("shuffle_order", of(Shuffle, Unshuffle, when=_square))
def shuffle_width_first(vae: VAE, site: Site) -> None:
    module = at(vae, site)
    module.width_first = not module.width_first


@kind("shuffle_order", of(Shuffle, Unshuffle))
def shuffle_positions_first(vae: VAE, site: Site) -> None:
    """Channels in the order (positions, channels) for (channels, positions)."""
    base = type(at(vae, site))

    def forward(self: Any, x: Tensor) -> Tensor:
        size = self.factors[0] * self.factors[1] * self.factors[2]
        if is_a(self, Unshuffle):
            return base.forward(self, x).unflatten(1, (-1, size)).transpose(1, 2).flatten(1, 2)
        return base.forward(self, x.unflatten(1, (size, -1)).transpose(1, 2).flatten(1, 2))

    rewrite(vae, site, forward=forward)


@kind("shuffle_order", of(ChannelsToTime))
def pairs_interleaved(vae: VAE, site: Site) -> None:
    base = type(at(vae, site))

    def forward(self: Any, x: Tensor) -> Tensor:
        return base.forward(self, x.unflatten(1, (-1, self.factor)).transpose(1, 2).flatten(1, 2))

    rewrite(vae, site, forward=forward)
