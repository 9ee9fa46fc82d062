"""Wan 2.2: Diffusers' class at narrow width, its shortcuts, what each latent depends on, and its config."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AvgDown3D, DupUp3D

from tests.layers.laws import STREAMED, difference, normal
from tests.models.slopes import assert_needs_tight, frames_seen
from tests.narrow import WAN, WAN22, both, latent, media, native, on_meta, relative_errors
from vaeport.configs import VideoVAEConfig
from vaeport.errors import ConfigError, InputError
from vaeport.layers import HEIGHT, Add, Chain
from vaeport.models.wan import Wan
from vaeport.models.wan2_2 import EntryClass, Wan22, Wan22ArchConfig, level_down, level_up
from vaeport.registry import ModelRegistry

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 0.1}
"""relative to the rms; in float64, the reference rounds to float32 where it upsamples"""


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("frames", [1, 5, 6, 9])
def test_is_diffusers(frames: int, dtype: torch.dtype) -> None:
    ours, theirs = both("wan2_2", dtype)
    x, z = media("wan2_2", (2, 3, frames, 32, 48)).to(dtype), latent("wan2_2")[:, :, : (frames + 3) // 4].to(dtype)
    assert max(relative_errors(ours, theirs, x, z)) <= TOLERANCE[dtype]


# Shortcuts.


@pytest.mark.parametrize("frames", [2, 4, 6])
@pytest.mark.parametrize("temporal", [False, True])
@pytest.mark.parametrize(("channels", "width"), [(4, 8), (8, 8), (8, 4)])
def test_shortcut_down_is_diffusers(channels: int, width: int, temporal: bool, frames: int) -> None:
    """Diffusers is told of frame 0 by the number of frames: it pads an odd one."""
    theirs = AvgDown3D(channels, width, factor_t=2 if temporal else 1, factor_s=2)
    x = normal(2, channels, frames + 1, 4, 6)
    assert difference(level_down(channels, width, 1, temporal).shortcut(x), theirs(x)) < 1e-15


@pytest.mark.parametrize("temporal", [False, True])
@pytest.mark.parametrize(("channels", "width"), [(8, 4), (8, 8)])
def test_shortcut_up_is_diffusers(channels: int, width: int, temporal: bool) -> None:
    theirs = DupUp3D(channels, width, factor_t=2 if temporal else 1, factor_s=2)
    way, x = level_up(channels, width, 1, temporal), normal(2, channels, 3, 4, 6)
    assert isinstance(way, Add)
    assert torch.equal(way.shortcut(x), theirs(x, first_chunk=True))
    assert way.shortcut(x).shape[2] == (5 if temporal else 3)


def test_frame_zero_is_averaged_with_zeros() -> None:
    """A still video halves at its start where time is halved, and nowhere else."""
    still = torch.ones(1, 4, 5, 2, 2, dtype=torch.float64)
    assert level_down(4, 4, 1, True).shortcut(still)[0, 0, :, 0, 0].tolist() == [0.5, 1, 1]
    assert level_down(4, 4, 1, False).shortcut(still)[0, 0, :, 0, 0].tolist() == [1] * 5
    assert level_down(4, 4, 1, None).shortcut(still)[0, 0, :, 0, 0].tolist() == [1] * 5


def test_no_shortcut_around_the_decoders_last_level() -> None:
    levels = native("wan2_2").decoder.levels.layers
    assert [type(level) for level in levels] == [Add, Add, Add, Chain]
    assert all(isinstance(level, Add) for level in native("wan2_2").encoder.levels.layers)


# Reach.


def test_a_latent_sees_no_later_frame() -> None:
    layer = native("wan2_2").encoder
    seen = frames_seen(layer, media("wan2_2", (1, 3, 13, 16, 16)))
    assert [last for _, last in seen] == [0, 4, 8, 12]
    assert_needs_tight(layer, seen, 13)


def test_a_frame_sees_no_later_latent() -> None:
    layer = native("wan2_2").decoder
    seen = frames_seen(layer, normal(1, 4, 4, 1, 1))
    assert [last for _, last in seen] == [(frame + 3) // 4 for frame in range(13)]
    assert_needs_tight(layer, seen, 4)


def test_frame_zero_is_an_image() -> None:
    vae, x, z = native("wan2_2"), media("wan2_2"), latent("wan2_2")
    assert difference(moments(vae, x)[:, :, :1], moments(vae, x[:, :, :1])) <= STREAMED
    assert difference(vae.decode(z).sample[:, :, :1], vae.decode(z[:, :, :1]).sample) <= STREAMED


def test_frames_over_a_legal_length_are_dropped() -> None:
    vae, x = native("wan2_2"), media("wan2_2", (1, 3, 8, 16, 16))
    assert difference(moments(vae, x), moments(vae, x[:, :, :5])) <= STREAMED


def test_attention_makes_bands_wait() -> None:
    assert native("wan2_2").encoder.needs((0, 1), HEIGHT) is native("wan2_2").decoder.needs((0, 1), HEIGHT) is None


@pytest.mark.parametrize(("axis", "shape"), [("height", (1, 3, 1, 24, 32)), ("width", (1, 3, 1, 32, 40))])
def test_pixels_that_make_no_latent_are_refused(axis: str, shape: tuple[int, ...]) -> None:
    """Diffusers fails in a view."""
    x = media("wan2_2", shape)
    with pytest.raises(RuntimeError):
        both("wan2_2", torch.float64)[1].encode(x)
    for run in (lambda: native("wan2_2").encode(x), lambda: list(native("wan2_2").stream_encode([x]))):
        with pytest.raises(InputError, match="Wan22 takes no input of this length") as refused:
            run()
        error, n = refused.value, shape[3 if axis == "height" else 4]
        assert (error.where, error.expected, error.found) == (f"axis {axis}", "16k + 0", n)
        assert error.fix == f"crop it to {n - 8}, or repeat its end up to {n + 8}"


# Latents.


def test_latents_as_the_diffusion_model_sees_them() -> None:
    """As the official class gives and takes them."""
    raw, x, z = native("wan2_2"), media("wan2_2")[:1], latent("wan2_2")[:1]
    inside = Wan22(WAN22, VideoVAEConfig(latents="normalized")).double().requires_grad_(False)
    inside.load_state_dict(raw.state_dict())
    assert difference(inside.encode(x).latent_dist.mode(), raw.normalize(raw.encode(x).latent_dist.mode())) <= STREAMED
    assert difference(inside.decode(z).sample, raw.decode(raw.denormalize(z)).sample) <= STREAMED
    assert difference(torch.cat(list(inside.stream_decode(z.split(1, 2))), 2), inside.decode(z).sample) <= STREAMED


# Architecture and configuration.


def test_shapes_in_the_docstring() -> None:
    vae = on_meta(Wan22, Wan22ArchConfig())
    with torch.device("meta"):
        z = vae.encoder(torch.empty(1, 3, 5, 32, 48))
        assert z.shape == (1, 96, 2, 2, 3)
        assert vae.decoder(z[:, :48]).shape == (1, 3, 5, 32, 48)
    assert sum(p.numel() for p in vae.parameters()) == 704_688_668
    assert len(vae.state_dict()) == 196


def test_each_config_finds_its_model() -> None:
    assert ModelRegistry.find_published(WAN22.to_published()).model is Wan22
    assert ModelRegistry.find_published(WAN.to_published()).model is Wan
    assert "Wan 2.1" in str(Wan22ArchConfig.misfit({}))
    assert Wan22ArchConfig.misfit({"is_residual": True}) is None


def test_published_names() -> None:
    published = Wan22ArchConfig().to_published()
    assert published["is_residual"] is True
    assert published["temperal_downsample"] == [False, True, True]
    assert (published["patch_size"], published["in_channels"], published["scale_factor_spatial"]) == (2, 12, 16)
    assert Wan22ArchConfig.from_published(published) == Wan22ArchConfig()


def test_configs_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ConfigError, match="temperal_downsample must have one value fewer than dim_mult"):
        Wan22ArchConfig(dim_mult=(1, 2, 4))
    with pytest.raises(ConfigError, match="latents_mean must have one value per latent channel") as refused:
        WAN22.replace(latents_mean=(1.0, 2.0))
    assert (refused.value.expected, refused.value.found) == (4, 2)
    with pytest.raises(ConfigError, match="do not make patches") as refused:
        WAN22.replace(out_channels=16)
    assert (refused.value.expected, refused.value.found) == ("twice the same multiple of 4", (12, 16))
    with pytest.raises(ConfigError, match="do not make patches"):
        WAN22.replace(in_channels=3, out_channels=3)


def test_entry_class() -> None:
    assert EntryClass is Wan22
    assert Wan22.variants == {"wan2.2": Wan22ArchConfig()}


def moments(vae: Wan22, x: torch.Tensor) -> torch.Tensor:
    return vae.encode(x).latent_dist.parameters
