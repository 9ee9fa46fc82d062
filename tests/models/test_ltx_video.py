"""LTX-Video: Diffusers' class at narrow width, its timestep and noise, its reach, and the official lists of blocks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.golden.load import load_golden
from tests.layers.laws import STREAMED, difference, filled, normal
from tests.models.slopes import assert_needs_tight, frames_seen
from tests.narrow import (
    LTX,
    LTX1,
    LTX5,
    both,
    decoded,
    decoder,
    latent,
    media,
    native,
    on_meta,
    relative_errors,
    their_sample,
)
from vaeport.errors import ConfigError, InputError
from vaeport.layers import HEIGHT, TIME, Modulation, SpatialNoise
from vaeport.models.ltx2 import LTX2Video
from vaeport.models.ltx_video import EntryClass, LTXVideo, LTXVideoArchConfig
from vaeport.proof.noise import drawn_noise
from vaeport.registry import ModelRegistry

NAMES = ("ltx", "ltx1", "ltx5")
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 0.1}
"""relative to the rms; in float64, the reference takes means of squares in float32"""
VARIANTS = LTXVideo.variants


def official(variant: str) -> dict[str, Any]:
    """The configuration that the official class was built from for the captures."""
    return copy.deepcopy(load_golden(variant.replace(".", "_").replace("-", "_")).provenance["arguments"])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("name", "frames"), [("ltx", 1), ("ltx", 10), ("ltx1", 9), ("ltx5", 1), ("ltx5", 17)])
def test_is_diffusers(name: str, frames: int, dtype: torch.dtype) -> None:
    """Where ways are strided, of lengths between two legal ones too."""
    ours, theirs = both(name, dtype)
    x, z = media(name, (2, 3, frames, 32, 64)).to(dtype), latent(name)[:, :, : frames // 8 + 1].to(dtype)
    assert max(relative_errors(ours, theirs, x, z)) <= TOLERANCE[dtype]


def test_causal_decoder_is_diffusers() -> None:
    vae = filled(LTXVideo(LTX5.replace(decoder_causal=True)))
    assert [last for _, last in frames_seen(vae.decoder_at(), normal(1, 4, 3, 1, 1))] == [0, *[1] * 8, *[2] * 8]


# The decoder's last denoising step.


@pytest.mark.parametrize("name", ["ltx1", "ltx5"])
def test_another_timestep_is_diffusers(name: str) -> None:
    ours, theirs = both(name, torch.float64)
    z = latent(name)[:1, :, :2]  # 1000 times a timestep is an angle, of which the reference keeps 24 bits
    samples = []
    for timestep in (0.05, 0.5):
        with drawn_noise():
            samples.append(ours.decode(z, timestep=timestep).sample)
        with drawn_noise():
            assert difference(samples[-1], their_sample(theirs, z, timestep)) <= 1e-5
    assert difference(*samples) > 1e-3


def test_each_sample_has_its_timestep() -> None:
    vae, z = native("ltx5"), latent("ltx5")[:, :, :2]
    y = vae.decode(z, timestep=torch.tensor([0.05, 0.3], dtype=torch.float64)).sample
    for i, timestep in enumerate((0.05, 0.3)):
        alone = vae.decode(z[i : i + 1], timestep=torch.tensor(timestep, dtype=torch.float64)).sample
        assert difference(y[i : i + 1], alone) < 1e-12
    assert difference(y[:1], vae.decode(z[:1]).sample) < 1e-12, "the contract's is 0.05"


def test_noise_is_drawn_twice_per_block_of_a_noisy_stage() -> None:
    """The middle, which the list of Diffusers has last, has none; each level draws maps of its own size."""
    drawn: list[tuple[int, ...]] = []
    noise = drawn_noise()
    inner = noise.value

    def watched(n: int, shape: tuple[int, ...]) -> torch.Tensor:
        drawn.append(shape)
        return inner(n, shape)  # type: ignore[operator, no-any-return]

    noise.value, z = watched, latent("ltx1")[:, :, :2]
    with noise:
        native("ltx1").decode(z)
    assert LTX1.decoder_inject_noise == (True, True, True, False)
    assert [up.blocks for up in LTX1.ups] == [1, 2, 1, 2]
    assert drawn == [(4, 6)] * 4 + [(8, 12)] * 2 + [(16, 24)] * 4
    assert sum(isinstance(m, SpatialNoise) for m in native("ltx1").modules()) == len(drawn)


def test_noise_follows_the_generator() -> None:
    vae, z = native("ltx1"), latent("ltx1")[:1, :, :1]
    assert torch.equal(decoded(vae, z, seed=1), decoded(vae, z, seed=1))
    assert difference(decoded(vae, z, seed=1), decoded(vae, z, seed=2)) > 1e-3
    assert torch.equal(decoded(native("ltx5"), z, seed=1), decoded(native("ltx5"), z, seed=2))


def test_the_decoder_is_left_unbound() -> None:
    vae, z = native("ltx1"), latent("ltx1")[:1, :, :1]
    decoded(vae, z)
    assert all(m.bound is None for m in vae.modules() if isinstance(m, Modulation))
    with pytest.raises(ValueError, match="depends on a timestep"):
        vae.decoder(z)


def test_the_multiplier_is_stored() -> None:
    assert native("ltx5").state_dict()["decoder.multiplier"] == 1000
    assert "decoder.multiplier" not in native("ltx").state_dict()


# Reach.


@pytest.mark.parametrize("name", ["ltx", "ltx5"])
def test_a_latent_sees_no_later_frame(name: str) -> None:
    layer = native(name).encoder
    seen = frames_seen(layer, media(name, (1, 3, 17, 32, 32)))
    assert [last for _, last in seen] == [0, 8, 16]
    assert_needs_tight(layer, seen, 17)


def test_a_frame_sees_later_latents() -> None:
    """The decoder is not causal: frame 0 depends on latent 1 too."""
    layer = decoder("ltx5")
    seen = frames_seen(layer, normal(1, 4, 3, 1, 1))
    assert len(seen) == 17, "1 + 8 (n - 1): the first of 2 is dropped at each way"
    assert seen[0][1] > 0
    assert seen[-1] == (0, 2)
    for frame, (first, last) in enumerate(seen):
        start, stop = layer.needs((frame, frame + 1), TIME)  # type: ignore[misc]
        assert start <= first <= last < stop


def test_norms_are_local_so_bands_need_no_barrier() -> None:
    for name in ("ltx", "ltx5"):
        for layer in (native(name).encoder, decoder(name)):
            assert layer.needs((0, 1), HEIGHT) is not None
    assert decoder("ltx1").needs((0, 1), HEIGHT) is None, "noise is drawn for whole frames"
    assert decoder("ltx1").needs((0, 1), TIME) is not None


def test_a_still_video_is_the_image_again() -> None:
    """The past is frame 0, repeated: where ways are strided, latents of a still video are all alike."""
    still = media("ltx", (1, 3, 1, 32, 32)).expand(-1, -1, 9, -1, -1)
    z = native("ltx").encode(still).latent_dist.parameters
    assert difference(z, native("ltx").encode(still[:, :, :1]).latent_dist.parameters.expand_as(z)) < 1e-13


def test_one_logvar_serves_all_channels() -> None:
    logvar = native("ltx5").encode(media("ltx5", (1, 3, 9, 32, 32))).latent_dist.logvar
    assert torch.equal(logvar, logvar[:, :1].expand_as(logvar))


@pytest.mark.parametrize("frames", [2, 8, 10])
def test_lengths_where_ways_are_folded(frames: int) -> None:
    """Diffusers fails on them."""
    x = media("ltx5", (1, 3, frames, 32, 32))
    with pytest.raises(RuntimeError):
        both("ltx5", torch.float64)[1].encode(x)
    for run in (lambda: native("ltx5").encode(x), lambda: list(native("ltx5").stream_encode(x.split(3, 2)))):
        with pytest.raises(InputError, match="LTXVideo takes no input of this length") as refused:
            run()
        error, below = refused.value, 1 + (frames - 1) // 8 * 8
        assert (error.where, error.expected, error.found) == ("axis time", "8k + 1", frames)
        assert error.fix == f"crop it to {below}, or repeat its end up to {below + 8}"


@pytest.mark.parametrize("name", NAMES)
def test_pixels_that_make_no_latent_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="takes no input of this length") as refused:
        native(name).encode(media(name, (1, 3, 1, 32, 48)))
    assert (refused.value.where, refused.value.fix) == ("axis width", "crop it to 32, or repeat its end up to 64")


# Architecture and configuration.


@pytest.mark.parametrize(
    ("variant", "parameters", "tensors"),
    [("ltxv-0.9.0", 419_193_649, 190), ("ltxv-0.9.1", 934_976_434, 294), ("ltxv-0.9.5", 1_246_913_522, 226)],
)
def test_shapes_in_the_docstring(variant: str, parameters: int, tensors: int) -> None:
    vae = on_meta(LTXVideo, VARIANTS[variant])
    with torch.device("meta"):
        z = vae.encoder(torch.empty(1, 3, 9, 64, 96))
        assert z.shape == (1, 256, 2, 2, 3)
        assert vae.decoder_at()(z[:, :128]).shape == (1, 3, 9, 64, 96)
    assert sum(p.numel() for p in vae.parameters()) == parameters
    tables = sum(isinstance(m, Modulation) for m in vae.decoder.levels.modules())
    tables += sum(isinstance(m, Modulation) for m in vae.decoder.middle.modules())
    # two modulations of a block are one table there
    assert len(vae.state_dict()) - tables // 2 == tensors


@pytest.mark.parametrize("variant", VARIANTS)
def test_official_lists_of_blocks(variant: str) -> None:
    found = LTXVideoArchConfig.from_published(official(variant))
    assert found.replace(extra={}) == VARIANTS[variant]
    assert ModelRegistry.find_published(official(variant)).model is LTXVideo
    assert LTXVideoArchConfig.from_published(VARIANTS[variant].to_published()) == VARIANTS[variant]


def test_which_model_an_official_config_is_for() -> None:
    folded = official("ltxv-0.9.5")
    assert ModelRegistry.find_published({**folded, "timestep_conditioning": False}).model is LTX2Video
    assert "LTX-2" in str(LTXVideoArchConfig.misfit({**folded, "timestep_conditioning": False}))
    assert LTXVideoArchConfig.misfit(LTX5.to_published()) is None
    assert ModelRegistry.find_published(LTX.to_published()).model is LTXVideo


def changed(variant: str, key: str, value: object) -> dict[str, Any]:
    return {**official(variant), key: value}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed("ltxv-0.9.0", "dims", 2), "`dims` has a value that is not supported"),
        (changed("ltxv-0.9.0", "norm_layer", "group_norm"), "`norm_layer` has a value that is not supported"),
        (changed("ltxv-0.9.0", "latent_log_var", "per_channel"), "`latent_log_var` has a value"),
        (changed("ltxv-0.9.0", "spatial_padding_mode", "reflect"), "LTX-Video pads with zeros"),
        (changed("ltxv-0.9.0", "blocks", []), "`encoder_blocks` must list blocks"),
        (changed("ltxv-0.9.0", "blocks", 3), "`encoder_blocks` must list blocks"),
        (changed("ltxv-0.9.0", "blocks", [["res_x"]]), "`encoder_blocks` must list blocks"),
        (changed("ltxv-0.9.0", "blocks", [["compress_all", 1], ["res_x", {}]]), "`encoder_blocks` must list blocks"),
        (changed("ltxv-0.9.0", "blocks", [["res_x", {"num_layers": "4"}]]), "`encoder_blocks` must list blocks"),
        (changed("ltxv-0.9.0", "blocks", [["compress_all", 1]]), "`compress_all` at this place is not supported"),
        (changed("ltxv-0.9.0", "blocks", [["res_x", 1], ["compress_all", 1]]), "encoder_blocks must end with res_x"),
        (changed("ltxv-0.9.1", "encoder_blocks", [["res_x", 4], ["attn_res_x", 1]]), "`attn_res_x` at this place"),
        (changed("ltxv-0.9.1", "decoder_blocks", [["compress_all", 1], ["compress_all", 1]]), "`compress_all` at this"),
        (changed("ltxv-0.9.1", "decoder_base_channels", "128"), "`decoder_base_channels` must be a positive number"),
        (changed("ltxv-0.9.1", "encoder_base_channels", 0), "the encoder's first width must be a positive number"),
        (
            changed("ltxv-0.9.5", "decoder_blocks", [["res_x", 1], ["compress_space", {}], ["res_x", 1]]),
            "doubles time and space together",
        ),
        (
            changed("ltxv-0.9.5", "decoder_blocks", [["res_x", 1], ["compress_all", {}], ["res_x", 1]]),
            "do not lead back",
        ),
    ],
)
def test_official_configs_that_are_refused(config: dict[str, Any], message: str) -> None:
    """Whatever stands there, the registry names a model, and reading it names what is wrong."""
    assert ModelRegistry.find_published(config).model in (LTXVideo, LTX2Video)
    with pytest.raises(ConfigError, match=message):
        LTXVideoArchConfig.from_published(config)


@pytest.mark.parametrize(
    ("arch", "changes", "message"),
    [
        (LTX, {"layers_per_block": (1, 1)}, "block_out_channels has the wrong length"),
        (LTX, {"down_block_types": ("LTXVideoDownBlock3D", "LTXVideo095DownBlock3D") * 2}, "unknown down_block_types"),
        (LTX, {"downsample_type": ("spatial",) * 4}, "unknown downsample_type"),
        (LTX5, {"downsample_type": ("conv",) * 4}, "unknown downsample_type"),
        (LTX, {"decoder_spatio_temporal_scaling": (True, True, False, False)}, "do not lead back to the input's size"),
        (LTX, {"decoder_inject_noise": (False,) * 4}, "decoder_inject_noise has the wrong length"),
        (LTX, {"out_channels": 4}, "in_channels and out_channels differ"),
    ],
)
def test_configs_that_contradict_themselves_are_refused(
    arch: LTXVideoArchConfig, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        arch.replace(**changes)


def test_every_frame_counts() -> None:
    """Strided ways take any length; what is over a legal one changes no latent."""
    x = media("ltx", (1, 3, 12, 32, 32))
    whole = native("ltx").encode(x).latent_dist.parameters
    assert whole.shape[2] == 2
    assert difference(whole, native("ltx").encode(x[:, :, :9]).latent_dist.parameters) <= STREAMED


def test_entry_class() -> None:
    assert EntryClass is LTXVideo
    assert list(VARIANTS) == ["ltxv-0.9.0", "ltxv-0.9.1", "ltxv-0.9.5"]
    assert VARIANTS["ltxv-0.9.0"] == LTXVideoArchConfig()
