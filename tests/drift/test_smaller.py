"""Smaller configurations and cases, and the reference's arguments at them."""

from __future__ import annotations

from math import prod

import diffusers
import pytest
import torch

from tests import narrow
from vaeport.configs import VAEArchConfig
from vaeport.drift.shrunk_arguments import adapted
from vaeport.drift.smaller import fewer_latents, fewer_levels, narrower, small_cases, smaller
from vaeport.mapping import plan
from vaeport.models.autoencoder_kl import AutoencoderKL
from vaeport.models.wan import Wan
from vaeport.models.wan2_2 import Wan22
from vaeport.registry import ModelRegistry
from vaeport.vae import VAE

PUBLISHED = {v: (r.model, a) for r in ModelRegistry.registrations() for v, a in r.model.variants.items()}


def weights(model: type[VAE], arch: VAEArchConfig) -> int:
    return sum(p.numel() for p in narrow.on_meta(model, arch).parameters())


@pytest.mark.parametrize("variant", PUBLISHED)
def test_every_published_model_has_a_much_smaller_one_that_fits_diffusers(variant: str) -> None:
    model, arch = PUBLISHED[variant]
    z = model.contract_of(arch).latent_channels
    first = next(iter(smaller(arch, z)))
    assert weights(model, first) < weights(model, arch) / 100
    assert model.contract_of(first).latent_channels < z
    assert model.arch_class.from_published(first.to_published()) == first
    if variant == "gamecraft":
        assert not hasattr(diffusers, first.class_names[0]), "Diffusers has it now: remove this branch"
        return
    with torch.device("meta"):
        theirs = narrow.reference(first)
    found = plan(narrow.weight_map(model).DIFFUSERS, narrow.shapes(narrow.on_meta(model, first)), narrow.shapes(theirs))
    assert found.fits, (found.missing, found.unexpected, found.misshapen)


def test_candidates_are_given_once() -> None:
    found = list(smaller(narrow.KL, 4))
    assert all(one not in found[i + 1 :] for i, one in enumerate(found))
    assert narrow.KL not in found


def test_groups_stay_groups() -> None:
    arch = AutoencoderKL.variants["sd1"]
    for one in narrower(arch, 4):
        ways = [w // v for w, v in zip(arch.block_out_channels, one.block_out_channels, strict=True)]
        assert len(set(ways)) == 1
        assert 1 < one.norm_num_groups < min(one.block_out_channels)


def test_statistics_are_cut_with_the_latents() -> None:
    few, more = list(fewer_latents(Wan.variants["wan2.1"], 16))[:2]
    assert (few.z_dim, few.latents_mean, few.latents_std) == (2, (-0.7571, -0.7089), (2.8184, 1.4541))
    assert more.z_dim == len(more.latents_std) == 4


def test_levels_go_from_either_end() -> None:
    inner, outer = fewer_levels(Wan.variants["wan2.1"], 16)
    assert (inner.dim_mult, inner.temporal_downsample) == ((1, 2, 4), (False, True))
    assert (outer.dim_mult, outer.temporal_downsample) == ((2, 4, 4), (True, True))


def test_the_shortest_case_comes_first() -> None:
    contract = Wan22.contract_of(narrow.WAN22)
    first, *rest = small_cases(contract, ())
    assert first.media == (1, 12 // 4, 1, 16, 16)
    assert first.latent == (1, 4, 1, 1, 1)
    assert all(prod(first.media) < prod(case.media) for case in rest)


def test_arguments_follow_the_published_ones() -> None:
    before, after = narrow.WAN, narrow.WAN.replace(base_dim=4, z_dim=2, latents_mean=(0.0,) * 2, latents_std=(1.0,) * 2)
    assert list(adapted(None, before, after)) == [None]
    given = {"base_dim": 8, "z_dim": 4, "device": "cpu"}
    assert next(iter(adapted(given, before, after))) == {"base_dim": 4, "z_dim": 2, "device": "cpu"}
    given = {"dim": 8, "ddconfig": {"z": 4, "mult": [1, 2, 8]}, "eps": 8.0}
    found = list(adapted(given, before, after))
    assert found == [given, {"dim": 4, "ddconfig": {"z": 2, "mult": [1, 2, 4]}, "eps": 8.0}]
