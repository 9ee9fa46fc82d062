"""Maps of LTX-2 against Diffusers' keys, the official class's, and Diffusers' own way from one to the other."""

from __future__ import annotations

import pytest
from diffusers.loaders.single_file_utils import convert_ltx2_vae_to_diffusers

from tests.narrow import LTX2, LTX23, on_meta, shapes
from tests.weights.laws import assert_bijective, assert_converts_alike, diffusers_shapes, official_shapes, planned
from vaeport.mapping import Layout, plan
from vaeport.models.ltx2 import LTX2Video
from vaeport.weights.ltx2 import DIFFUSERS, LAYOUTS, OFFICIAL

VARIANTS = LTX2Video.variants
NARROW = {"ltx2.0": LTX2, "ltx2.3": LTX23}


def official(variant: str) -> dict[str, tuple[int, ...]]:
    return official_shapes(variant.replace(".", "_"))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_bijective(layout: Layout, variant: str) -> None:
    for arch in (VARIANTS[variant], NARROW[variant]):
        assert_bijective(layout, LTX2Video, arch)


@pytest.mark.parametrize("variant", VARIANTS)
def test_diffusers_keys(variant: str) -> None:
    for arch in (VARIANTS[variant], NARROW[variant]):
        found = planned(DIFFUSERS, LTX2Video, arch, diffusers_shapes(arch))
        assert found.dropped == {}
        stored = {step.native: step.stored for step in found.steps}
        assert stored["normalizer.mean"] == ("latents_mean",)
        assert stored["normalizer.std"] == ("latents_std",)


@pytest.mark.parametrize("variant", VARIANTS)
def test_official_keys(variant: str) -> None:
    found = planned(OFFICIAL, LTX2Video, VARIANTS[variant], official(variant))
    assert (found.prefix, found.dropped) == ("vae.", {})


@pytest.mark.parametrize("variant", VARIANTS)
def test_diffusers_converts_alike(variant: str) -> None:
    """Its converter knows 2.0's seven stages of the decoder; of 2.3's nine, it leaves the last two."""
    stored = official(variant)
    left = [key.removeprefix("vae.") for key in stored if "decoder.up_blocks.7." in key or "up_blocks.8." in key]
    assert bool(left) == (variant == "ltx2.3")
    renamed = [key.replace("res_blocks", "resnets") for key in left]
    assert_converts_alike(
        convert_ltx2_vae_to_diffusers, stored, OFFICIAL, DIFFUSERS, LTX2Video, VARIANTS[variant], but=renamed
    )


def test_other_models_of_the_file_are_not_its() -> None:
    """A published file holds the transformer, the audio VAE and the vocoder too; only what the prefix names is read."""
    more = {"model.diffusion_model.proj.weight": (4, 4), "audio_vae.encoder.conv_in.conv.weight": (4, 2, 3, 3)}
    stored = official("ltx2.0")
    found = planned(OFFICIAL, LTX2Video, VARIANTS["ltx2.0"], stored)
    with_more = plan(OFFICIAL, shapes(on_meta(LTX2Video, VARIANTS["ltx2.0"])), {**stored, **more})
    assert with_more.fits
    assert with_more.steps == found.steps
