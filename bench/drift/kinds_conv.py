"""Faults of convolutions: padding, causality, dilation, stride."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from bench.drift.sites import Site, at, kind, of, rewrite
from vaeport.layers import Conv, Pad, WeightNormConvTranspose1d
from vaeport.vae import VAE


def amounts(pads: Any) -> list[int]:
    """As `F.pad` takes them."""
    return [n for pad in reversed(pads) for n in pad]


def pads_of(module: Any) -> Any:
    """(before, after) per axis, of a convolution or a Pad layer."""
    return module.pads if isinstance(module, Pad) else module.pad


def padded(conv: Any) -> bool:
    return any(map(any, conv.pad))


def strided(conv: Any) -> bool:
    return max(conv.stride) > 1


def timed(conv: Any) -> bool:
    return len(pads_of(conv)) == 3 and any(pads_of(conv)[0])


def uneven(module: Any) -> bool:
    return any(a != b for a, b in pads_of(module))


def set_pads(module: Any, change: Any) -> None:
    """Another padding of a convolution or of a Pad layer, axis by axis."""
    name = "pads" if isinstance(module, Pad) else "pad"
    setattr(module, name, tuple(change(i, pad) for i, pad in enumerate(getattr(module, name))))


def convolve_padded(vae: VAE, site: Site, mode: str, axes: slice = slice(None)) -> None:
    """The convolution with zeros replaced by `mode` on some axes."""

    def forward(self: Any, x: Tensor) -> Tensor:
        chosen = set(range(len(self.pad))[axes])
        mine = tuple(p if i in chosen else (0, 0) for i, p in enumerate(self.pad))
        rest = tuple((0, 0) if i in chosen else p for i, p in enumerate(self.pad))
        return self._convolve(F.pad(x, amounts(mine), mode=mode), self.kernel_weight(), rest)

    rewrite(vae, site, forward=forward)


@kind("padding_mode", of(Conv, when=padded))
def conv_padding_replicated(vae: VAE, site: Site) -> None:
    convolve_padded(vae, site, "replicate")


@kind("padding_mode", of(Conv, when=padded))
def conv_padding_circular(vae: VAE, site: Site) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        for axis, (before, after) in enumerate(self.pad, 2):
            n = x.shape[axis]
            indices = [i % n for i in range(-before, n + after)]
            x = x.index_select(axis, x.new_tensor(indices).long())
        return self._convolve(x, self.kernel_weight(), ((0, 0),) * len(self.pad))

    rewrite(vae, site, forward=forward)


@kind("padding_mode", of(Conv, when=timed))
def conv_past_replicated(vae: VAE, site: Site) -> None:
    convolve_padded(vae, site, "replicate", slice(0, 1))


@kind("padding_mode", of(Pad))
def pad_mode(vae: VAE, site: Site) -> None:
    pad = at(vae, site)
    pad.mode = {"constant": "replicate", "replicate": "constant", "reflect": "replicate"}[pad.mode]


@kind("padding_side", of(Conv, Pad, when=uneven))
def padding_side(vae: VAE, site: Site) -> None:
    set_pads(at(vae, site), lambda i, pad: pad[::-1])


@kind("padding_amount", of(Conv, when=lambda m: strided(m) and padded(m)))
def strided_padding(vae: VAE, site: Site) -> None:
    """Even for uneven padding of strided axes, and the other way round."""
    conv = at(vae, site)

    def changed(i: int, pad: tuple[int, int]) -> tuple[int, int]:
        if conv.stride[i] == 1 or not any(pad):
            return pad
        return (pad[0] - 1, pad[1]) if pad[0] == pad[1] else (max(pad),) * 2

    set_pads(conv, changed)


@kind("padding_side", of(Conv, Pad, when=lambda m: pads_of(m)[-1][0] == pads_of(m)[-1][1] > 0))
def padding_one_sided(vae: VAE, site: Site) -> None:
    """All padding of the last axis lies behind it."""
    last = len(pads_of(at(vae, site))) - 1
    set_pads(at(vae, site), lambda i, pad: (0, sum(pad)) if i == last else pad)


@kind("causality", of(Conv, Pad, when=lambda m: timed(m) and sum(pads_of(m)[0]) == 2))
def causality(vae: VAE, site: Site) -> None:
    set_pads(at(vae, site), lambda i, pad: pad if i else (1, 1) if pad[0] == 2 else (2, 0))


@kind("dilation", of(Conv, when=lambda m: max(m.dilation) > 1))
def dilation_missing(vae: VAE, site: Site) -> None:
    conv = at(vae, site)
    conv.pad = tuple((k // 2, k // 2) for k in conv.kernel)
    conv.dilation = (1,) * len(conv.kernel)


@kind("dilation", of(Conv, when=lambda m: len(m.kernel) == 1 and m.kernel[0] == 7))
def dilation_of_the_next(vae: VAE, site: Site) -> None:
    conv = at(vae, site)
    rate = {1: 3, 3: 9, 9: 27}[conv.dilation[0]]
    conv.dilation, conv.pad = (rate,), ((3 * rate, 3 * rate),)


@kind("stride_phase", of(Conv, when=strided))
def stride_phase(vae: VAE, site: Site) -> None:
    """Windows begin one position later."""

    def forward(self: Any, x: Tensor) -> Tensor:
        pads = [(a - 1, b + 1) if s > 1 else (a, b) for (a, b), s in zip(self.pad, self.stride, strict=True)]
        return self._convolve(F.pad(x, amounts(pads)), self.kernel_weight(), ((0, 0),) * len(pads))

    rewrite(vae, site, forward=forward)


@kind("crop_side", of(WeightNormConvTranspose1d, details=("start", "end")))
def transposed_crop(vae: VAE, site: Site) -> None:
    """All of the crop on one side."""

    def forward(self: Any, x: Tensor) -> Tensor:
        y = F.conv_transpose1d(x, self.kernel_weight(), self.bias, self.stride)
        n = y.shape[-1] - 2 * self.crop
        return y.narrow(-1, 2 * self.crop if site.detail == "start" else 0, n)

    rewrite(vae, site, forward=forward)
