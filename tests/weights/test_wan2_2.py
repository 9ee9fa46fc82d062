"""Maps of Wan 2.2 against Diffusers' and the official class's own keys."""

from __future__ import annotations

import pytest

from tests.narrow import WAN22
from tests.weights.laws import assert_bijective, diffusers_shapes, official_shapes, planned
from vaeport.errors import KeyMismatchError
from vaeport.mapping import Layout
from vaeport.models.wan2_2 import Wan22, Wan22ArchConfig
from vaeport.weights.wan2_2 import DIFFUSERS, LAYOUTS, OFFICIAL

ARCH = Wan22ArchConfig()


@pytest.mark.parametrize("arch", [ARCH, WAN22, WAN22.replace(temporal_downsample=(True, False, True))])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_bijective(layout: Layout, arch: Wan22ArchConfig) -> None:
    assert_bijective(layout, Wan22, arch)


@pytest.mark.parametrize("arch", [ARCH, WAN22], ids=["published", "narrow"])
def test_diffusers_keys(arch: Wan22ArchConfig) -> None:
    found = planned(DIFFUSERS, Wan22, arch, diffusers_shapes(arch))
    assert found.dropped == {}
    stored = {step.native: step.stored for step in found.steps}
    assert stored["encoder.levels.3.main.blocks.1.main.norm2.gain"] == ("encoder.down_blocks.3.resnets.1.norm2.gamma",)
    assert stored["encoder.levels.1.main.resample.time.rest.weight"] == (
        "encoder.down_blocks.1.downsampler.time_conv.weight",
    )
    assert stored["decoder.levels.0.main.resample.space.layer.conv.bias"] == (
        "decoder.up_blocks.0.upsampler.resample.1.bias",
    )
    assert stored["decoder.levels.3.blocks.0.shortcut.weight"] == (
        "decoder.up_blocks.3.resnets.0.conv_shortcut.weight",
    ), "the last level has no shortcut around it"


def test_official_keys() -> None:
    found = planned(OFFICIAL, Wan22, ARCH, official_shapes("wan2_2"))
    assert found.dropped == {}
    stored = {step.native: step.stored for step in found.steps}
    assert stored["encoder.quant_conv.weight"] == ("conv1.weight",)
    assert stored["encoder.levels.1.main.resample.time.rest.weight"] == (
        "encoder.downsamples.1.downsamples.2.time_conv.weight",
    )
    assert stored["decoder.levels.1.main.resample.space.layer.conv.weight"] == (
        "decoder.upsamples.1.upsamples.3.resample.1.weight",
    )
    assert stored["decoder.levels.3.blocks.2.main.conv2.bias"] == ("decoder.upsamples.3.upsamples.2.residual.6.bias",)


def test_wan_2_1s_file_does_not_fit() -> None:
    """It has the same names at both ends and in the middle."""
    with pytest.raises(KeyMismatchError, match="the weights do not fit the model") as refused:
        planned(OFFICIAL, Wan22, ARCH, official_shapes("wan2_1"))
    found = str(refused.value.found)
    assert "missing: encoder.downsamples.0.downsamples.0.residual.0.gamma" in found
    assert "wrong shape: " in found
