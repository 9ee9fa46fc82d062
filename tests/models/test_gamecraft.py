"""GameCraft: HunyuanVideo's function and what its two options make of it, and its config."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders import autoencoder_kl_hunyuan_video as theirs_module
from torch import Tensor

from tests.golden.load import load_golden
from tests.layers.laws import difference, filled, normal
from tests.narrow import GAMECRAFT, GAMECRAFT_OPEN, HUNYUAN, media, native, on_meta, reference, relative_errors, shapes
from vaeport.errors import ConfigError, InputError
from vaeport.layers import Conv, FrameCausalAttention, SelfAttention
from vaeport.mapping import plan
from vaeport.models.gamecraft import EntryClass, GameCraft, GameCraftArchConfig
from vaeport.models.hunyuan_video import HunyuanVideo
from vaeport.registry import ModelRegistry
from vaeport.weights.gamecraft import LAYOUTS

PUBLISHED = GameCraft.variants["gamecraft"]


def official(name: str = "gamecraft") -> dict[str, Any]:
    """The configuration that the official class was built from for the captures."""
    return {"_class_name": "AutoencoderKLCausal3D", **copy.deepcopy(load_golden(name).provenance["arguments"])}


def diffusers_with(vae: GameCraft, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Diffusers' HunyuanVideo with the same weights, in which the options are set by hand."""
    theirs = reference(HUNYUAN).double()
    found = plan(LAYOUTS[0], shapes(vae), shapes(theirs)).require("gamecraft", "fix the map")
    theirs.load_state_dict(dict(found.write(vae.state_dict().__getitem__)), strict=True)
    if not vae.arch.mid_block_causal_attn:
        whole = theirs_module.prepare_causal_attention_mask
        monkeypatch.setattr(theirs_module, "prepare_causal_attention_mask", lambda *a, **k: 0 * whole(*a, **k).exp())
    if vae.arch.disable_causal_conv:
        for module in theirs.modules():
            if isinstance(module, theirs_module.HunyuanVideoCausalConv3d):
                before = module.time_causal_padding[4]
                module.time_causal_padding = (*module.time_causal_padding[:4], before // 2, before // 2)

        def upsampled(self: Any, x: Tensor) -> Tensor:
            return self.conv(F.interpolate(x, scale_factor=self.upsample_factor, mode="nearest"))  # type: ignore[no-any-return]

        monkeypatch.setattr(theirs_module.HunyuanVideoUpsampleCausal3D, "forward", upsampled)
    return theirs


@pytest.mark.parametrize("open_attention", [False, True])
@pytest.mark.parametrize("open_convolutions", [False, True])
def test_is_diffusers_with_the_options_set_by_hand(
    open_attention: bool, open_convolutions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    arch = GAMECRAFT.replace(mid_block_causal_attn=not open_attention, disable_causal_conv=open_convolutions)
    vae = filled(GameCraft(arch))
    theirs = diffusers_with(vae, monkeypatch)
    x, z = media("gamecraft", (2, 3, 6, 20, 16)), normal(2, 4, 2, 2, 3)
    assert max(relative_errors(vae, theirs, x, z)) <= 1e-12


def test_with_causal_attention_it_is_hunyuan_video() -> None:
    """The same weights under the same names, and the same bits."""
    one, other = native("gamecraft"), HunyuanVideo(HUNYUAN).double().requires_grad_(False)
    other.load_state_dict(one.state_dict(), strict=True)
    x, z = media("gamecraft"), normal(1, 4, 2, 2, 3)
    assert torch.equal(one.encode(x).latent_dist.parameters, other.encode(x).latent_dist.parameters)
    assert torch.equal(one.decode(z).sample, other.decode(z).sample)
    assert one.contract == other.contract


def test_each_option_changes_the_function() -> None:
    x, state = media("gamecraft", (1, 3, 9, 8, 16)), native("gamecraft").state_dict()
    found = []
    for changes in ({}, {"mid_block_causal_attn": False}, {"disable_causal_conv": True}):
        vae = GameCraft(GAMECRAFT.replace(**changes)).double().requires_grad_(False)
        vae.load_state_dict(state, strict=True)
        found.append(vae.encode(x).latent_dist.mode())
    assert difference(found[0], found[1]) > 1e-4
    assert difference(found[0], found[2]) > 1e-3


def test_words_of_the_options() -> None:
    for name, kind in (("gamecraft", FrameCausalAttention), ("gamecraft_open", SelfAttention)):
        kinds = {type(m) for m in native(name).modules() if isinstance(m, SelfAttention)}
        assert kinds == {kind}


# Lengths when convolutions are not causal.


def test_four_frames_a_latent() -> None:
    """Frame 0 is like any other: 4n frames of n latents, and ceil(T / 4) latents of T frames."""
    vae = native("gamecraft_open")
    rule = vae.contract.axes[0]
    assert [rule.latents(n) for n in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]
    assert [rule.decoded(n) for n in (1, 2, 3)] == [4, 8, 12]
    for frames in (1, 4, 5):
        z = vae.encode(media("gamecraft_open", (1, 3, frames, 8, 8))).latent_dist.mode()
        assert z.shape[2] == -(-frames // 4)
        assert vae.decode(z).sample.shape[2] == 4 * z.shape[2]
    with pytest.raises(InputError, match="too short"):
        vae.encode(media("gamecraft_open", (1, 3, 0, 8, 8)))


def test_time_runs_both_ways() -> None:
    """With every kernel turned around in time, a clip that is turned around decodes to the clip turned around."""
    arch, z = GAMECRAFT_OPEN, normal(1, 4, 3, 2, 2)
    forwards, backwards = filled(GameCraft(arch)), filled(GameCraft(arch))
    for module in backwards.modules():
        if isinstance(module, Conv):
            module.weight.copy_(module.weight.flip(2))
    assert difference(backwards.decode(z.flip(2)).sample, forwards.decode(z).sample.flip(2)) < 1e-12
    causal = GameCraft(GAMECRAFT.replace(mid_block_causal_attn=False)).double().requires_grad_(False)
    causal.load_state_dict(backwards.state_dict())
    assert difference(causal.decode(z.flip(2)).sample, native_flipped(forwards, z)) > 1e-3


def native_flipped(vae: GameCraft, z: Tensor) -> Tensor:
    """What a causal model of the same weights decodes, turned around."""
    causal = GameCraft(GAMECRAFT.replace(mid_block_causal_attn=False)).double().requires_grad_(False)
    causal.load_state_dict(vae.state_dict())
    return causal.decode(z).sample.flip(2)


# Architecture and configuration.


@pytest.mark.parametrize("arch", [PUBLISHED, GameCraftArchConfig(disable_causal_conv=True)])
def test_shapes_in_the_docstring(arch: GameCraftArchConfig) -> None:
    vae = on_meta(GameCraft, arch)
    frames = 8 if arch.disable_causal_conv else 5
    with torch.device("meta"):
        z = vae.encoder(torch.empty(1, 3, frames, 16, 24))
        assert z.shape == (1, 32, 2, 2, 3)
        assert vae.decoder(z[:, :16]).shape == (1, 3, frames, 16, 24)
    assert sum(p.numel() for p in vae.parameters()) == 246_478_803


@pytest.mark.parametrize(
    ("name", "arch"),
    [("gamecraft", PUBLISHED), ("gamecraft_open", GameCraftArchConfig(disable_causal_conv=True))],
)
def test_official_config(name: str, arch: GameCraftArchConfig) -> None:
    config = official(name)
    assert ModelRegistry.find_published(config).model is GameCraft
    assert GameCraftArchConfig.from_published(config).replace(extra={}) == arch
    assert GameCraftArchConfig.from_published(arch.to_published()) == arch
    assert ModelRegistry.find_published(arch.to_published()).model is GameCraft


def test_published_names() -> None:
    published = GAMECRAFT.to_published()
    assert (published["_class_name"], published["time_compression_ratio"]) == ("AutoencoderKLCausal3D", 4)
    assert published["mid_block_causal_attn"] is True


def test_without_its_options_a_config_is_hunyuan_videos() -> None:
    config = official()
    for key in ("mid_block_causal_attn", "disable_causal_conv"):
        assert GameCraftArchConfig.misfit({k: v for k, v in config.items() if k != key}) is None, "one is enough"
    for key in ("mid_block_causal_attn", "disable_causal_conv"):
        del config[key]
    assert GameCraftArchConfig.misfit(config) == "no mid_block_causal_attn: this is HunyuanVideo's VAE"
    assert ModelRegistry.find_published(config).model is HunyuanVideo


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mid_block_causal_attn", 1, "`mid_block_causal_attn` has a value of the wrong type"),
        ("down_block_types", ["DownEncoderBlock2D"] * 4, "`down_block_types` has a value that this architecture"),
        ("time_compression_ratio", 16, "temporal_compression_ratio must be a power of 2, at most 8"),
        ("norm_num_groups", 48, "is not a multiple of norm_num_groups"),
        ("mid_block_add_attention", False, "`mid_block_add_attention` has a value that this architecture"),
    ],
)
def test_configs_that_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GameCraftArchConfig.from_published({**official(), key: value})


def test_entry_class() -> None:
    assert EntryClass is GameCraft
    assert GameCraft.variants == {"gamecraft": GameCraftArchConfig(mid_block_causal_attn=True)}
