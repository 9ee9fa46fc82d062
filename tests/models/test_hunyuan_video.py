"""HunyuanVideo: Diffusers' class at narrow width, what makes its frames depend on each other, memory, its config."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.golden.load import load_golden
from tests.layers.laws import Largest, difference, filled, normal
from tests.narrow import GAMECRAFT, HUNYUAN, both, latent, media, native, on_meta, relative_errors
from vaeport.errors import ConfigError
from vaeport.layers import HEIGHT, TIME, FrameCausalAttention, GroupNorm, SelfAttention
from vaeport.models.gamecraft import GameCraft
from vaeport.models.hunyuan_tables import ways
from vaeport.models.hunyuan_video import EntryClass, HunyuanVideo, HunyuanVideoArchConfig, from_official
from vaeport.registry import ModelRegistry

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.1}
"""relative to the rms"""
PUBLISHED = HunyuanVideo.variants["hunyuan_video"]


def official() -> dict[str, Any]:
    """The configuration that the official class was built from for the captures."""
    return {
        "_class_name": "AutoencoderKLCausal3D",
        **copy.deepcopy(load_golden("hunyuan_video").provenance["arguments"]),
    }


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("frames", "pixels"), [(1, (16, 24)), (4, (20, 23)), (9, (16, 9))])
def test_is_diffusers(frames: int, pixels: tuple[int, int], dtype: torch.dtype) -> None:
    """Of any length and size: what is over a legal size counts as a latent."""
    ours, theirs = both("hunyuan_video", dtype)
    x, z = media("hunyuan_video", (2, 3, frames, *pixels)).to(dtype), latent("hunyuan_video").to(dtype)
    assert max(relative_errors(ours, theirs, x, z[:, :, : (frames + 3) // 4])) <= TOLERANCE[dtype]


def test_a_size_between_two_legal_ones_counts_as_the_larger() -> None:
    rules = native("hunyuan_video").contract.axes
    assert [rules[1].latents(n) for n in (1, 8, 9, 16, 17, 23, 24)] == [1, 1, 2, 2, 3, 3, 3]
    assert [rules[0].latents(n) for n in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]


# What frames depend on.


def without_norms(vae: Any) -> Any:
    """A model whose norms pass everything on."""
    vae = filled(vae)
    for module in vae.modules():
        if isinstance(module, GroupNorm):
            module.forward = lambda x: x
    return vae


@pytest.mark.parametrize(
    ("vae", "causal"),
    [
        (filled(HunyuanVideo(HUNYUAN)), False),
        (without_norms(HunyuanVideo(HUNYUAN)), True),
        (without_norms(GameCraft(GAMECRAFT.replace(mid_block_causal_attn=False))), False),
        (without_norms(GameCraft(GAMECRAFT.replace(disable_causal_conv=True))), False),
    ],
    ids=["as it is", "without norms", "and with full attention", "and with convolutions that look ahead"],
)
def test_only_its_norms_make_frames_depend_on_later_ones(vae: Any, causal: bool) -> None:
    x, z = media("hunyuan_video", (1, 3, 9, 8, 16)), normal(1, 4, 3, 1, 2)
    for half, given, stays in ((vae.encoder, x, 1), (vae.decoder, z, 1)):
        changed = given.clone()
        changed[:, :, -1] += 1
        a, b = half(given)[:, :, :stays], half(changed)[:, :, :stays]
        assert torch.equal(a, b) if causal else difference(a, b) > 1e-9


def test_it_never_streams() -> None:
    for half in (native("hunyuan_video").encoder, native("hunyuan_video").decoder):
        for axis in (TIME, HEIGHT):
            assert half.needs((0, 1), axis) is None


def test_a_flat_still_video_stays_flat_and_still() -> None:
    """Edges and the past are repeated: zeros would show at the borders and in the first frames."""
    flat = media("hunyuan_video", (1, 3, 1, 1, 1)).expand(-1, -1, 9, 16, 24)
    z = native("hunyuan_video").encode(flat).latent_dist.parameters
    assert difference(z, z[:, :, :1, :1, :1].expand_as(z)) < 1e-12
    y = native("hunyuan_video").decode(normal(1, 4, 1, 1, 1).expand(-1, -1, 3, 2, 3)).sample
    assert difference(y, y[:, :, :1, :1, :1].expand_as(y)) < 1e-7, "norms of what is nearly constant enlarge rounding"


def test_attention_is_in_the_middle_and_frame_causal() -> None:
    found = [name for name, layer in native("hunyuan_video").named_modules() if isinstance(layer, SelfAttention)]
    assert found == [f"{half}.middle.attention.main.attention" for half in ("encoder", "decoder")]
    assert all(isinstance(native("hunyuan_video").get_submodule(name), FrameCausalAttention) for name in found)


def test_memory_of_the_middle_is_linear_in_positions() -> None:
    """Diffusers makes a mask of N x N; here nothing is larger than queries, keys and values."""
    middle, sizes = native("hunyuan_video").decoder.middle, []
    for frames in (3, 6):
        with Largest() as largest:
            middle(normal(1, 32, frames, 12, 20))
        sizes.append(largest.elements)
    positions = 6 * 12 * 20
    assert sizes[1] <= 2.5 * sizes[0]
    assert sizes[1] <= 5 * 32 * positions < positions**2 / 8


# Architecture and configuration.


def test_shapes_in_the_docstring() -> None:
    vae = on_meta(HunyuanVideo, PUBLISHED)
    with torch.device("meta"):
        z = vae.encoder(torch.empty(1, 3, 5, 20, 23))
        assert z.shape == (1, 32, 2, 3, 3)
        assert vae.decoder(z[:, :16]).shape == (1, 3, 5, 24, 24)
    counts = [sum(p.numel() for p in half.parameters()) for half in (vae.encoder, vae.decoder)]
    assert counts == [100_341_408 + 1056, 146_136_067 + 272]
    assert sum(counts) == 246_478_803
    assert len(vae.state_dict()) + 2 * 2 * 2 == 248, "queries, keys and values are one tensor here"


@pytest.mark.parametrize(
    ("space", "time", "expected"),
    [
        (8, 4, [(1, 2, 2), (2, 2, 2), (2, 2, 2), None]),
        (8, 8, [(2, 2, 2), (2, 2, 2), (2, 2, 2), None]),
        (2, 2, [(1, 2, 2), None, (2, 1, 1), None]),
        (4, 1, [(1, 2, 2), (1, 2, 2), None, None]),
    ],
)
def test_space_shrinks_first_and_time_last(space: int, time: int, expected: list[Any]) -> None:
    arch = HUNYUAN.replace(spatial_compression_ratio=space, temporal_compression_ratio=time)
    assert ways(arch) == expected
    vae = filled(HunyuanVideo(arch))
    x = media("hunyuan_video", (1, 3, 1 + time, 2 * space, space))
    z = vae.encode(x).latent_dist.mode()
    assert z.shape == vae.contract.latent_shape(tuple(x.shape)) == (1, 4, 2, 2, 1)
    assert vae.decode(z).sample.shape == x.shape


def test_official_config() -> None:
    assert HunyuanVideoArchConfig.from_published(official()).replace(extra={}) == PUBLISHED
    assert from_official(PUBLISHED.to_published()) == PUBLISHED.to_published()
    assert HunyuanVideoArchConfig.from_published(PUBLISHED.to_published()) == PUBLISHED


def test_each_config_finds_its_model() -> None:
    assert ModelRegistry.find_published(official()).model is HunyuanVideo
    assert ModelRegistry.find_published(PUBLISHED.to_published()).model is HunyuanVideo
    with_options = {**official(), "mid_block_causal_attn": True}
    assert ModelRegistry.find_published(with_options).model is GameCraft
    assert HunyuanVideoArchConfig.misfit(with_options) == "mid_block_causal_attn: this is GameCraft's VAE"
    assert HunyuanVideoArchConfig.misfit(official()) is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("down_block_types", ["DownEncoderBlock2D"] * 4, "`down_block_types` has a value that this architecture"),
        ("up_block_types", ["UpDecoderBlockCausal3D"] * 3, "`up_block_types` has a value that this architecture"),
        ("up_block_types", 4, "`up_block_types` has a value that this architecture"),
        ("down_block_types", [["DownEncoderBlockCausal3D"]] * 4, "`down_block_types` has a value that this"),
        ("mid_block_add_attention", False, "`mid_block_add_attention` has a value that this architecture"),
        ("time_compression_ratio", 3, "temporal_compression_ratio must be a power of 2, at most 8"),
        ("spatial_compression_ratio", 16, "spatial_compression_ratio must be a power of 2, at most 8"),
        ("norm_num_groups", 3, r"block_out_channels \(128\) is not a multiple of norm_num_groups \(3\)"),
        ("out_channels", 4, "in_channels and out_channels differ"),
        ("shift_factor", "0.1", "shift_factor must be a number"),
    ],
)
def test_configs_that_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HunyuanVideoArchConfig.from_published({**official(), key: value})


def test_latents_may_be_shifted() -> None:
    arch = HunyuanVideoArchConfig.from_published({**HUNYUAN.to_published(), "shift_factor": 0.25})
    vae, z = on_meta(HunyuanVideo, arch), normal(1, 4, 1, 2, 2)
    assert difference(vae.normalize(z), (z - 0.25) * 0.476986) < 1e-15
    assert arch.to_published()["shift_factor"] == 0.25


def test_entry_class() -> None:
    assert EntryClass is HunyuanVideo
    assert HunyuanVideo.variants == {"hunyuan_video": HunyuanVideoArchConfig()}
