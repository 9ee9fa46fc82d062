"""Maps of LTX-Video against Diffusers' keys, the official class's, and Diffusers' own way from one to the other."""

from __future__ import annotations

import pytest
from diffusers.loaders.single_file_utils import convert_ltx_vae_checkpoint_to_diffusers

from tests.narrow import LTX, LTX1, LTX5, on_meta, shapes
from tests.weights.laws import assert_bijective, assert_converts_alike, diffusers_shapes, official_shapes, planned
from vaeport.errors import KeyMismatchError
from vaeport.mapping import Layout, plan
from vaeport.models.ltx_video import LTXVideo
from vaeport.weights.ltx_video import DIFFUSERS, LAYOUTS, OFFICIAL_0_9_0, OFFICIAL_0_9_1, OFFICIAL_0_9_5

VARIANTS = LTXVideo.variants
OFFICIAL: dict[str, Layout] = {
    "ltxv-0.9.0": OFFICIAL_0_9_0,
    "ltxv-0.9.1": OFFICIAL_0_9_1,
    "ltxv-0.9.5": OFFICIAL_0_9_5,
}
NARROW = {"ltxv-0.9.0": LTX, "ltxv-0.9.1": LTX1, "ltxv-0.9.5": LTX5}


def official(variant: str) -> dict[str, tuple[int, ...]]:
    return official_shapes(variant.replace(".", "_").replace("-", "_"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_bijective(variant: str) -> None:
    assert (DIFFUSERS, *OFFICIAL.values()) == LAYOUTS
    for arch in (VARIANTS[variant], NARROW[variant]):
        for layout in (DIFFUSERS, OFFICIAL[variant]):
            assert_bijective(layout, LTXVideo, arch)


@pytest.mark.parametrize("variant", VARIANTS)
def test_diffusers_keys(variant: str) -> None:
    for arch in (VARIANTS[variant], NARROW[variant]):
        found = planned(DIFFUSERS, LTXVideo, arch, diffusers_shapes(arch))
        assert found.dropped == {}
        stored = {step.native: step.stored for step in found.steps}
        assert stored["normalizer.mean"] == ("latents_mean",)
        assert stored["normalizer.std"] == ("latents_std",)


@pytest.mark.parametrize("variant", VARIANTS)
def test_official_keys(variant: str) -> None:
    found = planned(OFFICIAL[variant], LTXVideo, VARIANTS[variant], official(variant))
    assert (found.prefix, found.dropped) == ("vae.", {})


@pytest.mark.parametrize("variant", VARIANTS)
def test_diffusers_converts_alike(variant: str) -> None:
    assert_converts_alike(
        convert_ltx_vae_checkpoint_to_diffusers,
        official(variant),
        OFFICIAL[variant],
        DIFFUSERS,
        LTXVideo,
        VARIANTS[variant],
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_versions_own_layout_fits(variant: str) -> None:
    for other, layout in OFFICIAL.items():
        if other != variant:
            with pytest.raises(KeyMismatchError):
                planned(layout, LTXVideo, VARIANTS[variant], official(variant))


def test_statistics_that_nothing_reads_are_dropped() -> None:
    names = ("channel", "mean-of-stds", "mean-of-stds_over_std-of-means")
    more = {f"vae.per_channel_statistics.{name}": (128,) for name in names}
    native = shapes(on_meta(LTXVideo, VARIANTS["ltxv-0.9.0"]))
    found = plan(OFFICIAL_0_9_0, native, {**official("ltxv-0.9.0"), **more}).require("a file", "fix the map")
    assert found.dropped == dict.fromkeys(more, "statistics that nothing reads")


def test_without_prefix_and_in_the_spelling_of_other_files() -> None:
    stored = {
        key.removeprefix("vae.").replace(".res_blocks.", ".resnets."): s for key, s in official("ltxv-0.9.1").items()
    }
    found = planned(OFFICIAL_0_9_1, LTXVideo, VARIANTS["ltxv-0.9.1"], stored)
    assert found.prefix == ""


def test_both_modulations_of_a_block_are_one_table() -> None:
    """Rows shift, scale, shift, scale."""
    found = planned(OFFICIAL_0_9_1, LTXVideo, VARIANTS["ltxv-0.9.1"], official("ltxv-0.9.1"))
    for n in (1, 2):
        step = next(s for s in found.steps if s.native == f"decoder.levels.1.blocks.0.main.modulate{n}.table")
        (block,) = step.blocks
        assert (block.key, block.index, block.count) == (
            "vae.decoder.up_blocks.4.res_blocks.0.scale_shift_table",
            n - 1,
            2,
        )
        assert (step.shape, step.stored_shape(block)) == ((2, 256), (4, 256))
