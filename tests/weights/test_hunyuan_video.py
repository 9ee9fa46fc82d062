"""Maps of HunyuanVideo and GameCraft, which have the same keys, against Diffusers' and the official classes'."""

from __future__ import annotations

from typing import Any

import pytest

from tests.narrow import GAMECRAFT_OPEN, HUNYUAN
from tests.weights.laws import assert_bijective, diffusers_shapes, official_shapes, planned
from vaeport.mapping import Layout
from vaeport.models.gamecraft import GameCraft
from vaeport.models.hunyuan_video import HunyuanVideo
from vaeport.weights import gamecraft, hunyuan_video
from vaeport.weights.hunyuan_video import DIFFUSERS, LAYOUTS, OFFICIAL

ARCH = HunyuanVideo.variants["hunyuan_video"]
PUBLISHED = {"hunyuan_video": (HunyuanVideo, ARCH), "gamecraft": (GameCraft, GameCraft.variants["gamecraft"])}
PAIRS: list[Any] = [*PUBLISHED.values(), (HunyuanVideo, HUNYUAN), (GameCraft, GAMECRAFT_OPEN)]


@pytest.mark.parametrize(("model", "arch"), PAIRS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_bijective(layout: Layout, model: Any, arch: Any) -> None:
    assert_bijective(layout, model, arch)


def test_gamecrafts_are_the_same() -> None:
    assert gamecraft.LAYOUTS is hunyuan_video.LAYOUTS


@pytest.mark.parametrize("arch", [ARCH, HUNYUAN], ids=["published", "narrow"])
def test_diffusers_keys(arch: Any) -> None:
    found = planned(DIFFUSERS, HunyuanVideo, arch, diffusers_shapes(arch))
    assert found.dropped == {}
    stored = {step.native: step.stored for step in found.steps}
    assert stored["encoder.middle.attention.main.attention.qkv.weight"] == tuple(
        f"encoder.mid_block.attentions.0.to_{part}.weight" for part in "qkv"
    )
    assert stored["decoder.levels.2.resample.conv.conv.bias"] == ("decoder.up_blocks.2.upsamplers.0.conv.conv.bias",)
    assert stored["encoder.levels.1.resample.conv.weight"] == ("encoder.down_blocks.1.downsamplers.0.conv.conv.weight",)
    assert stored["encoder.levels.2.blocks.0.shortcut.weight"] == (
        "encoder.down_blocks.2.resnets.0.conv_shortcut.conv.weight",
    )


@pytest.mark.parametrize("prefix", ["", "vae."])
@pytest.mark.parametrize("name", PUBLISHED)
def test_official_keys(name: str, prefix: str) -> None:
    stored = {prefix + key.removeprefix("vae."): shape for key, shape in official_shapes(name).items()}
    found = planned(OFFICIAL if prefix else DIFFUSERS, *PUBLISHED[name], stored)
    assert (found.prefix, found.dropped) == (prefix, {})
