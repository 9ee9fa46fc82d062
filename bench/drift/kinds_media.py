"""Faults at the ends: order of the media's channels, value range, layout, crops in space and time, clamps, caches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.drift.sites import Site, around, at, halves, kind, modality, of, rewrite, whole
from vaeport.configs import AxisRule
from vaeport.layers import TIME, Conv
from vaeport.vae import VAE

SPATIAL, VIDEO, AUDIO = modality("image", "video"), modality("video"), modality("audio")


@kind("channel_order", halves())
def media_channels_reversed(vae: VAE, site: Site) -> None:
    if site.path == "encoder":
        around(vae, "encoder", before=lambda x: x.flip(1))
    else:
        around(vae, "decoder", after=lambda y: y.flip(1))


@kind("value_range", halves())
def range_zero_to_one(vae: VAE, site: Site) -> None:
    if site.path == "encoder":
        around(vae, "encoder", before=lambda x: x * 2 - 1)
    else:
        around(vae, "decoder", after=lambda y: (y + 1) / 2)


@kind("value_range", halves(names=("encoder",)))
def range_of_bytes(vae: VAE, site: Site) -> None:
    around(vae, "encoder", before=lambda x: x * 127.5 / 128)


@kind("layout", halves(SPATIAL))
def height_and_width_swapped(vae: VAE, site: Site) -> None:
    if site.path == "encoder":
        around(vae, "encoder", before=lambda x: x.transpose(-1, -2))
    else:
        around(vae, "decoder", after=lambda y: y.transpose(-1, -2))


@kind("layout", halves(SPATIAL))
def transposed_inside(vae: VAE, site: Site) -> None:
    around(vae, site.path, lambda x: x.transpose(-1, -2), lambda y: y.transpose(-1, -2))


@kind("layout", halves(VIDEO))
def time_reversed(vae: VAE, site: Site) -> None:
    if site.path == "encoder":
        around(vae, "encoder", before=lambda x: x.flip(TIME))
    else:
        around(vae, "decoder", after=lambda y: y.flip(TIME))


@kind("temporal_crop", halves(VIDEO, ("decoder",)))
def first_frame_cropped(vae: VAE, site: Site) -> None:
    around(vae, "decoder", after=lambda y: y[:, :, 1:] if y.shape[TIME] > 1 else y)


@kind("temporal_crop", halves(VIDEO, ("decoder",)))
def last_frame_repeated(vae: VAE, site: Site) -> None:
    around(vae, "decoder", after=lambda y: torch.cat((y, y[:, :, -1:]), TIME))


@kind("temporal_crop", halves(VIDEO))
def first_frame_repeated(vae: VAE, site: Site) -> None:
    def shifted(x: Tensor) -> Tensor:
        return torch.cat((x[:, :, :1], x[:, :, :-1]), TIME)

    if site.path == "encoder":
        around(vae, "encoder", before=shifted)
    else:
        around(vae, "decoder", after=shifted)


@kind("spatial_crop", halves(SPATIAL, ("decoder",)))
def rows_and_columns_cropped(vae: VAE, site: Site) -> None:
    around(vae, "decoder", after=lambda y: y[..., :-1, :-1])


def cut(x: Tensor, axes: int) -> Tensor:
    """One position off the front of the last axes, the last one repeated."""
    for axis in range(-axes, 0):
        n = x.shape[axis]
        x = torch.cat((x.narrow(axis, 1, n - 1), x.narrow(axis, n - 1, 1)), axis)
    return x


@kind("spatial_crop", halves(SPATIAL))
def cropped_one_pixel_late(vae: VAE, site: Site) -> None:
    around(vae, site.path, **{"before" if site.path == "encoder" else "after": lambda t: cut(t, 2)})


def _crops(vae: VAE) -> bool:
    return any(type(rule) is AxisRule and rule.multiple > 1 for rule in vae.contract.axes)


@kind("crop_side", halves(_crops, ("encoder",)))
def cropped_at_the_start(vae: VAE, site: Site) -> None:
    def before(x: Tensor) -> Tensor:
        for axis, rule in enumerate(vae.contract.axes, 2):
            if type(rule) is AxisRule:
                kept = rule.decoded(rule.latents(x.shape[axis]))
                x = x.narrow(axis, x.shape[axis] - kept, kept)
        return x

    around(vae, "encoder", before=before)


@kind("audio_crop", halves(AUDIO, ("decoder",)))
def samples_cropped(vae: VAE, site: Site) -> None:
    around(vae, "decoder", after=lambda y: y[..., 1:])


@kind("audio_crop", halves(AUDIO))
def cropped_one_sample_late(vae: VAE, site: Site) -> None:
    around(vae, site.path, **{"before" if site.path == "encoder" else "after": lambda t: cut(t, 1)})


def _clamps(wanted: bool) -> Any:
    return whole(lambda vae: (vae.contract.clamp is not None) == wanted, ("decoder",))


@kind("clamp", _clamps(True))
def clamp_missing(vae: VAE, site: Site) -> None:
    vae.contract = replace(vae.contract, clamp=None)


@kind("clamp", _clamps(True))
def clamp_range(vae: VAE, site: Site) -> None:
    vae.contract = replace(vae.contract, clamp=(0.0, 1.0))


@kind("clamp", _clamps(False))
def clamp_added(vae: VAE, site: Site) -> None:
    vae.contract = replace(vae.contract, clamp=(-1.0, 1.0))


def _cached(conv: Conv) -> bool:
    return len(conv.kernel) == 3 and conv.kernel[0] > 1 and conv.pad[0] == (conv.kernel[0] - 1, 0)


def _in_pieces(vae: VAE) -> list[Site]:
    return of(Conv, when=_cached)(vae) if vae.encode_pieces is not None else []


@kind("cache_reset", _in_pieces)
def cache_not_reset(vae: VAE, site: Site) -> None:
    base = type(at(vae, site))

    def step(self: Any, x: Any, state: Any, last: bool, axis: int) -> Any:
        kept = self.__dict__.get("kept")
        fits = kept is not None and x is not None and kept.dtype == x.dtype
        if state is None and fits and (kept.shape[:2], kept.shape[3:]) == (x.shape[:2], x.shape[3:]):
            state = (kept.clone(), None)
        y, state = base.step(self, x, state, last, axis)
        if x is not None and axis == TIME:
            self.__dict__["kept"] = state[0].detach().clone()
        return y, state

    rewrite(vae, site, step=step)


@kind(
    "padding_amount",
    halves(lambda vae: any(type(r).__name__ == "CeilAxisRule" for r in vae.contract.axes), ("encoder",)),
)
def padded_with_zeros_to_a_multiple(vae: VAE, site: Site) -> None:
    def before(x: Tensor) -> Tensor:
        rules = vae.contract.axes[-2:]
        height, width = (rule.padded(n) - n for rule, n in zip(rules, x.shape[-2:], strict=True))
        return F.pad(x, (0, width, 0, height))

    around(vae, "encoder", before=before)
