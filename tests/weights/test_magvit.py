"""Map of Magvit against Diffusers' own keys."""

from __future__ import annotations

import pytest

from tests.weights.laws import assert_bijective, diffusers_shapes, planned
from vaeport.models.magvit import Magvit, MagvitArchConfig
from vaeport.weights.magvit import DIFFUSERS, LAYOUTS

NARROW = MagvitArchConfig(
    block_out_channels=(16, 16, 32),
    norm_num_groups=8,
    down_block_types=("SpatialTemporalDownBlock3D", "SpatialDownBlock3D", "SpatialDownBlock3D"),
    up_block_types=("SpatialTemporalUpBlock3D", "SpatialUpBlock3D", "SpatialUpBlock3D"),
    layers_per_block=1,
)


@pytest.mark.parametrize("arch", [MagvitArchConfig(), NARROW], ids=["published", "narrow"])
def test_bijective(arch: MagvitArchConfig) -> None:
    assert LAYOUTS == (DIFFUSERS,)
    assert_bijective(DIFFUSERS, Magvit, arch)


@pytest.mark.parametrize("arch", [MagvitArchConfig(), NARROW], ids=["published", "narrow"])
def test_diffusers_keys(arch: MagvitArchConfig) -> None:
    found = planned(DIFFUSERS, Magvit, arch, diffusers_shapes(arch))
    assert found.dropped == {}
    stored = {step.native: step.stored for step in found.steps}
    assert stored["encoder.levels.1.blocks.0.main.norm2.layer.weight"] == (
        "encoder.down_blocks.1.convs.0.norm2.weight",
    )
    assert stored["encoder.levels.0.resample.conv.bias"] == ("encoder.down_blocks.0.downsampler.conv.bias",)
    assert stored["decoder.levels.1.resample.conv.conv.weight"] == ("decoder.up_blocks.1.upsampler.conv.weight",)
    assert stored["decoder.middle.blocks.0.main.conv1.conv.weight"] == ("decoder.mid_block.convs.0.conv1.weight",)
