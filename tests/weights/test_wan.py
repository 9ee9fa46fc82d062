"""Maps of Wan 2.1 against Diffusers' and the official class's own keys."""

from __future__ import annotations

import pytest

from tests.narrow import WAN
from tests.weights.laws import assert_bijective, diffusers_shapes, official_shapes, planned
from vaeport.mapping import Layout
from vaeport.models.wan import Wan, WanArchConfig
from vaeport.weights.wan import DIFFUSERS, LAYOUTS, OFFICIAL


@pytest.mark.parametrize("arch", [WanArchConfig(), WAN, WAN.replace(temporal_downsample=(True, False, True))])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_bijective(layout: Layout, arch: WanArchConfig) -> None:
    assert_bijective(layout, Wan, arch)


def test_diffusers_keys() -> None:
    planned(DIFFUSERS, Wan, WanArchConfig(), diffusers_shapes(WanArchConfig()))


def test_official_keys() -> None:
    found = planned(OFFICIAL, Wan, WanArchConfig(), official_shapes("wan2_1"))
    stored = {step.native: step.stored for step in found.steps}
    assert stored["encoder.quant_conv.weight"] == ("conv1.weight",)
    assert stored["decoder.post_quant_conv.bias"] == ("conv2.bias",)
    assert stored["encoder.levels.1.resample.time.rest.weight"] == ("encoder.downsamples.5.time_conv.weight",)
    assert stored["decoder.levels.1.blocks.0.shortcut.weight"] == ("decoder.upsamples.4.shortcut.weight",)
