"""Faults of weights: rounded, flipped, transposed, exchanged, left out, normed over the wrong axis."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from bench.drift.sites import Site, at, children, kind, of, rewrite
from vaeport.layers import Conv, WeightNormConv, WeightNormConvTranspose1d
from vaeport.vae import VAE

CONVS = (Conv, WeightNormConvTranspose1d)
WEIGHTED = (*CONVS, nn.Linear)


def matrix(module: Any) -> Any:
    """The parameter that a convolution or a matrix product multiplies with."""
    return module.weight_v if "weight_v" in module._parameters else module.weight


def changed(vae: VAE, site: Site, change: Any) -> None:
    """Other values of it."""
    weight = matrix(at(vae, site))
    weight.data = change(weight.data).contiguous()


def wide(module: Any) -> bool:
    return max(matrix(module).shape[2:], default=1) > 1


@kind("rounded_weights", of(*WEIGHTED))
def weights_in_bfloat16(vae: VAE, site: Site) -> None:
    for p in at(vae, site).parameters(recurse=False):
        p.data = p.data.to(torch.bfloat16).to(p.dtype)


@kind("rounded_weights", of(*WEIGHTED))
def weights_in_float16(vae: VAE, site: Site) -> None:
    for p in at(vae, site).parameters(recurse=False):
        p.data = p.data.to(torch.float16).to(p.dtype)


@kind("kernel_flipped", of(*CONVS, when=wide))
def kernel_flipped(vae: VAE, site: Site) -> None:
    changed(vae, site, lambda w: w.flip([i for i in range(2, w.dim()) if w.shape[i] > 1]))


@kind("kernel_flipped", of(Conv, when=lambda m: len(m.kernel) == 3 and m.kernel[0] > 1))
def kernel_flipped_in_time(vae: VAE, site: Site) -> None:
    changed(vae, site, lambda w: w.flip(2))


@kind("kernel_transposed", of(Conv, when=lambda m: len(m.kernel) > 1 and m.kernel[-1] == m.kernel[-2] > 1))
def kernel_height_and_width(vae: VAE, site: Site) -> None:
    changed(vae, site, lambda w: w.transpose(-1, -2))


@kind("kernel_transposed", of(*WEIGHTED, when=lambda m: matrix(m).shape[0] == matrix(m).shape[1]))
def kernel_inputs_and_outputs(vae: VAE, site: Site) -> None:
    changed(vae, site, lambda w: w.transpose(0, 1))


def _pairs(vae: VAE) -> list[Site]:
    """Neighbours of one shape within a half."""
    shaped: dict[Any, list[str]] = {}
    for path, module in children(vae, *WEIGHTED):
        shaped.setdefault((path.split(".")[0], tuple(matrix(module).shape)), []).append(path)
    return [Site(a, also=(b,)) for paths in shaped.values() for a, b in pairwise(paths)]


@kind("weights_swapped", _pairs)
def weights_swapped(vae: VAE, site: Site) -> None:
    one, other = (matrix(vae.get_submodule(path)) for path in site.places)
    one.data, other.data = other.data.clone(), one.data.clone()


def _biased(module: Any) -> bool:
    return getattr(module, "bias", None) is not None


def _with_bias(vae: VAE) -> list[Site]:
    return of(nn.Module, when=_biased)(vae)


@kind("bias", _with_bias)
def bias_missing(vae: VAE, site: Site) -> None:
    module = at(vae, site)
    del module._parameters["bias"]
    module.bias = None


@kind("bias", _with_bias)
def bias_zero(vae: VAE, site: Site) -> None:
    at(vae, site).bias.data.zero_()


@kind("channel_order", of(*CONVS, when=lambda m: matrix(m).shape[1] > 1))
def kernel_inputs_reversed(vae: VAE, site: Site) -> None:
    changed(vae, site, lambda w: w.flip(1))


@kind("weight_norm_axis", of(WeightNormConv, WeightNormConvTranspose1d))
def weight_norm_axis(vae: VAE, site: Site) -> None:
    def kernel_weight(self: Any) -> Tensor:
        v = self.weight_v
        return self.weight_g * v / v.norm(dim=(0, 2), keepdim=True)

    rewrite(vae, site, kernel_weight=kernel_weight)


@kind("weight_norm_axis", of(WeightNormConv, WeightNormConvTranspose1d))
def weight_norm_of_the_whole(vae: VAE, site: Site) -> None:
    rewrite(vae, site, kernel_weight=lambda self: self.weight_g * self.weight_v / self.weight_v.norm())


@kind("weight_norm", of(WeightNormConv, WeightNormConvTranspose1d))
def weight_norm_missing(vae: VAE, site: Site) -> None:
    rewrite(vae, site, kernel_weight=lambda self: self.weight_g * self.weight_v)
