"""Maps of Oobleck against Diffusers' and the official class's own keys."""

from __future__ import annotations

import pytest

from tests.narrow import OOBLECK, OOBLECK8
from tests.weights.laws import assert_bijective, diffusers_shapes, official_shapes, planned
from vaeport.mapping import Layout
from vaeport.models.oobleck import Oobleck, OobleckArchConfig
from vaeport.weights.oobleck import DIFFUSERS, LAYOUTS, OFFICIAL

ARCH = OobleckArchConfig()


@pytest.mark.parametrize("arch", [ARCH, OOBLECK, OOBLECK8])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_bijective(layout: Layout, arch: OobleckArchConfig) -> None:
    assert_bijective(layout, Oobleck, arch)


def test_diffusers_keys() -> None:
    planned(DIFFUSERS, Oobleck, ARCH, diffusers_shapes(ARCH))


@pytest.mark.parametrize("prefix", ["pretransform.model.", "autoencoder.", ""])
def test_official_keys(prefix: str) -> None:
    shapes = official_shapes("stable_audio_2_0")
    stored = {prefix + key.removeprefix("pretransform.model."): shape for key, shape in shapes.items()}
    found = planned(OFFICIAL, Oobleck, ARCH, stored)
    assert found.prefix == prefix
    keys = {step.native: step.stored for step in found.steps}
    assert keys["encoder.levels.0.units.2.main.conv1.weight_v"] == (
        prefix + "encoder.layers.1.layers.2.layers.1.weight_v",
    )
    assert keys["decoder.levels.4.units.0.main.snake2.log_beta"] == (
        prefix + "decoder.layers.5.layers.2.layers.2.beta",
    )


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_new_weight_norm_names(layout: Layout) -> None:
    """Files that newer torch saved hold `original0` and `original1` for `weight_g` and `weight_v`."""
    shapes = diffusers_shapes(ARCH) if layout is DIFFUSERS else official_shapes("stable_audio_2_0")
    names = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
    stored = {key.removesuffix(key[-9:]) + names.get(key[-9:], key[-9:]): shape for key, shape in shapes.items()}
    assert sum("original0" in key for key in stored) == sum("original1" in key for key in stored) == 74
    found = planned(layout, Oobleck, ARCH, stored)
    step = next(step for step in found.steps if step.native == "decoder.conv_out.weight_g")
    assert step.stored[0].endswith("original0")
