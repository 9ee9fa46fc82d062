"""LTX-2: Diffusers' class at narrow width, its edges and its reach, and the official lists of blocks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.golden.load import load_golden
from tests.layers.laws import difference, filled, normal
from tests.models.slopes import assert_needs_tight, frames_seen
from tests.narrow import LTX2, LTX23, both, latent, media, native, on_meta, reference, relative_errors, shapes
from vaeport.errors import ConfigError, InputError
from vaeport.layers import HEIGHT, TIME, Modulation, Pad, SpatialNoise
from vaeport.mapping import plan
from vaeport.models.ltx2 import EntryClass, LTX2ArchConfig, LTX2Video
from vaeport.registry import ModelRegistry
from vaeport.weights.ltx2 import LAYOUTS

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 0.1}
"""relative to the rms; in float64, the reference may take means of squares in float32"""
VARIANTS = LTX2Video.variants
HALVES = ("encoder", "decoder")


def official(variant: str) -> dict[str, Any]:
    """The configuration that the official class was built from for the captures."""
    return copy.deepcopy(load_golden(variant.replace(".", "_")).provenance["arguments"])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("frames", [1, 17])
@pytest.mark.parametrize("name", ["ltx2", "ltx23"])
def test_is_diffusers(name: str, frames: int, dtype: torch.dtype) -> None:
    ours, theirs = both(name, dtype)
    x, z = media(name, (2, 3, frames, 64, 96)).to(dtype), latent(name)[:, :, : frames // 8 + 1].to(dtype)
    assert max(relative_errors(ours, theirs, x, z)) <= TOLERANCE[dtype]


# Edges.


def test_the_first_versions_decoder_mirrors_its_edges() -> None:
    """Of the same weights, zeros make another picture, up to the edge that the reach leads to."""
    mirrored, zeros = filled(LTX2Video(LTX2)), filled(LTX2Video(LTX2.replace(decoder_spatial_padding_mode="zeros")))
    z = normal(1, 4, 1, 2, 3)
    assert difference(mirrored.decode(z).sample, zeros.decode(z).sample) > 1e-3
    x = media("ltx2", (1, 3, 1, 64, 64))
    assert torch.equal(mirrored.encode(x).latent_dist.mode(), zeros.encode(x).latent_dist.mode())
    modes = {half: {m.mode for m in getattr(mirrored, half).modules() if isinstance(m, Pad)} for half in HALVES}
    assert modes == {"encoder": {"replicate"}, "decoder": {"replicate", "reflect"}}
    assert {m.mode for m in zeros.modules() if isinstance(m, Pad)} == {"replicate"}


def test_one_latent_has_no_mirror_image() -> None:
    """It can be encoded, and 2.3 decodes it."""
    z = native("ltx2").encode(media("ltx2", (1, 3, 1, 32, 64))).latent_dist.mode()
    with pytest.raises(InputError, match="too short to be mirrored at its edges") as refused:
        native("ltx2").decode(z)
    assert "at least 2" in str(refused.value.fix)
    assert native("ltx23").decode(z).sample.shape == (1, 3, 1, 32, 64)


def test_there_is_no_timestep_and_no_noise() -> None:
    vae = native("ltx2")
    assert not any(isinstance(m, Modulation | SpatialNoise) for m in vae.modules())
    assert vae.decoder_at() is vae.decoder
    assert (vae.contract.decode_timestep, vae.contract.decode_noise_scale) == (None, None)
    with pytest.raises(InputError, match="LTX2Video's decoder knows no timestep"):
        vae.decode(latent("ltx2"), timestep=0.05)


# Reach.


def test_a_latent_sees_no_later_frame() -> None:
    layer = native("ltx2").encoder
    seen = frames_seen(layer, media("ltx2", (1, 3, 17, 32, 32)))
    assert [last for _, last in seen] == [0, 8, 16]
    assert_needs_tight(layer, seen, 17)


@pytest.mark.parametrize(("variant", "space", "time"), [("ltx2.0", 22, 22), ("ltx2.3", 16, 14)])
def test_reach_of_the_published_decoders(variant: str, space: int, time: int) -> None:
    """Latents to either side that some pixel of a latent depends on, as measured on Diffusers' class.

    In front it is stated generously, since the end, which is repeated or mirrored, is not known here.
    """
    layer = on_meta(LTX2Video, VARIANTS[variant]).decoder_at()
    # of latent 40 are rows 1280 to 1311, and frames 313 to 320, since frame 0 is alone
    for axis, reach, pixels in ((HEIGHT, space, (1280, 1312)), (TIME, time, (313, 321))):
        start, stop = layer.needs(pixels, axis)  # type: ignore[misc]
        assert 0 <= start <= 40 - reach
        assert stop == 41 + reach


def test_a_frame_sees_later_latents() -> None:
    seen = frames_seen(native("ltx23").decoder_at(), normal(1, 4, 3, 1, 1))
    assert len(seen) == 17
    assert (seen[0][1] > 0, seen[-1]) == (True, (0, 2))
    causal = filled(LTX2Video(LTX23.replace(decoder_causal=True))).decoder_at()
    assert [last for _, last in frames_seen(causal, normal(1, 4, 3, 1, 1))] == [0, *[1] * 8, *[2] * 8]


@pytest.mark.parametrize("frames", [2, 8, 10, 12])
def test_lengths(frames: int) -> None:
    """Diffusers fails on them; the official encoder crops."""
    x = media("ltx2", (1, 3, frames, 32, 32))
    with pytest.raises(RuntimeError):
        both("ltx2", torch.float64)[1].encode(x)
    with pytest.raises(InputError, match="LTX2Video takes no input of this length") as refused:
        native("ltx2").encode(x)
    below = 1 + (frames - 1) // 8 * 8
    assert (refused.value.where, refused.value.found) == ("axis time", frames)
    assert refused.value.fix == f"crop it to {below}, or repeat its end up to {below + 8}"


# Architecture and configuration.


@pytest.mark.parametrize(
    ("variant", "encoder", "decoder", "tensors"),
    [("ltx2.0", 694_098_881, 528_380_720, 184), ("ltx2.3", 318_936_897, 407_169_072, 170)],
)
def test_shapes_in_the_docstring(variant: str, encoder: int, decoder: int, tensors: int) -> None:
    vae = on_meta(LTX2Video, VARIANTS[variant])
    with torch.device("meta"):
        z = vae.encoder(torch.empty(1, 3, 9, 64, 96))
        assert z.shape == (1, 256, 2, 2, 3)
        assert vae.decoder(z[:, :128]).shape == (1, 3, 9, 64, 96)
    counts = [sum(p.numel() for p in half.parameters()) for half in (vae.encoder, vae.decoder)]
    assert counts == [encoder, decoder]
    assert sum(counts) == {"ltx2.0": 1_222_479_601, "ltx2.3": 726_105_969}[variant]
    assert len(vae.state_dict()) == tensors


@pytest.mark.parametrize("variant", VARIANTS)
def test_official_lists_of_blocks(variant: str) -> None:
    config = official(variant)
    assert ("spatial_padding_mode" in config) == (variant == "ltx2.3")
    assert LTX2ArchConfig.from_published(config).replace(extra={}) == VARIANTS[variant]
    assert ModelRegistry.find_published(config).model is LTX2Video
    assert LTX2ArchConfig.from_published(VARIANTS[variant].to_published()) == VARIANTS[variant]


def test_a_padding_of_both_halves() -> None:
    """One key, where it is there, is for both, which differ by default."""
    reflect = LTX2ArchConfig.from_published({**official("ltx2.0"), "spatial_padding_mode": "reflect"})
    own = LTX2ArchConfig.from_published({**official("ltx2.0"), "encoder_spatial_padding_mode": "reflect"})
    for arch in (reflect, own):
        assert (arch.encoder_spatial_padding_mode, arch.decoder_spatial_padding_mode) == ("reflect", "reflect")
    theirs = reference(LTX2.replace(encoder_spatial_padding_mode="reflect")).double()
    vae, x = filled(LTX2Video(LTX2.replace(encoder_spatial_padding_mode="reflect"))), media("ltx2", (1, 3, 9, 64, 96))
    found = plan(LAYOUTS[0], shapes(vae), shapes(theirs)).require("ltx2", "fix the map")
    theirs.load_state_dict(dict(found.write(vae.state_dict().__getitem__)), strict=True)
    assert max(relative_errors(vae, theirs, x, normal(1, 4, 2, 2, 3))) <= 1e-6


def test_which_model_an_official_config_is_for() -> None:
    config = official("ltx2.0")
    assert "LTX-Video" in str(LTX2ArchConfig.misfit({**config, "timestep_conditioning": True}))
    strided = {**config, "encoder_blocks": [["res_x", 1], ["compress_all", 1], ["res_x", 1]]}
    assert "strided ways" in str(LTX2ArchConfig.misfit(strided))
    assert LTX2ArchConfig.misfit(config) is LTX2ArchConfig.misfit(LTX2.to_published()) is None
    assert ModelRegistry.find_published(LTX23.to_published()).model is LTX2Video


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("norm_layer", "group_norm", "`norm_layer` has a value that is not supported"),
        ("encoder_blocks", "res_x", "`encoder_blocks` must list blocks"),
        ("encoder_blocks", [["res_x_y", 1]], "`res_x_y` at this place is not supported"),
        ("encoder_blocks", [["res_x", 2], ["res_x", 2]], "every level of LTX-2's VAE scales"),
        ("decoder_blocks", [["res_x", {"num_layers": 5, "inject_noise": True}]], "LTX-2's decoder adds no noise"),
        ("decoder_blocks", [["res_x", 2], ["compress_all", {"multiplier": 0}]], "`decoder_blocks` must list blocks"),
        ("spatial_padding_mode", "circular", "unknown encoder_spatial_padding_mode"),
        ("encoder_spatial_padding_mode", "circular", "unknown encoder_spatial_padding_mode"),
        ("latent_channels", "128", "the encoder's first width must be a positive number"),
    ],
)
def test_official_configs_that_are_refused(key: str, value: object, message: str) -> None:
    config = {**official("ltx2.0"), key: value}
    assert ModelRegistry.find_published(config).model is LTX2Video
    with pytest.raises(ConfigError, match=message):
        LTX2ArchConfig.from_published(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers_per_block": (1, 1)}, "block_out_channels has the wrong length"),
        ({"downsample_type": ("conv",) * 4}, "unknown downsample_type"),
        ({"upsample_type": ("spatial",) * 3}, "do not lead back to the input's size"),
        ({"upsample_factor": (2,) * 4}, "upsample_factor has the wrong length"),
        ({"out_channels": 4}, "in_channels and out_channels differ"),
    ],
)
def test_configs_that_contradict_themselves_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LTX2.replace(**changes)


def test_entry_class() -> None:
    assert EntryClass is LTX2Video
    assert list(VARIANTS) == ["ltx2.0", "ltx2.3"]
