"""Arch configs against Diffusers' defaults, there and back; run configs; the axis rules."""

from __future__ import annotations

import dataclasses
import inspect
import json
from dataclasses import asdict
from typing import Any

import pytest
import torch

from tests.narrow import MODELS, WAN, diffusers_class
from vaeport.configs import (
    AudioVAEConfig,
    AxisRule,
    CeilAxisRule,
    ImageVAEConfig,
    LatentContract,
    StrictAxisRule,
    VAEArchConfig,
    VAEConfig,
    VideoVAEConfig,
)
from vaeport.errors import ConfigError
from vaeport.models.autoencoder_kl import AutoencoderKL, AutoencoderKLArchConfig
from vaeport.models.gamecraft import GameCraft, GameCraftArchConfig
from vaeport.models.hunyuan_video import HunyuanVideo, HunyuanVideoArchConfig
from vaeport.models.ltx2 import LTX2ArchConfig, LTX2Video
from vaeport.models.ltx_video import LTXVideo, LTXVideoArchConfig
from vaeport.models.oobleck import Oobleck, OobleckArchConfig
from vaeport.models.wan import Wan, WanArchConfig
from vaeport.models.wan2_2 import Wan22, Wan22ArchConfig

CLASSES = (AutoencoderKL, Wan, Wan22, LTXVideo, LTX2Video, HunyuanVideo, GameCraft, Oobleck)
ARCHS: list[VAEArchConfig] = [
    *(model.arch_class() for model in CLASSES),
    *(arch for model in CLASSES for arch in model.variants.values()),
    *(arch for _, arch in MODELS.values()),
]
CONFIGS = (
    AutoencoderKLArchConfig,
    WanArchConfig,
    HunyuanVideoArchConfig,
    OobleckArchConfig,
    LTXVideoArchConfig,
    LTX2ArchConfig,
)


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def through_json(published: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(published))


@pytest.mark.parametrize("config", CONFIGS)
def test_defaults_are_those_of_diffusers(config: type[VAEArchConfig]) -> None:
    """Every argument of the published class, no other, with the value that it has when a config.json lacks it."""
    arch = config()
    arguments = inspect.signature(diffusers_class(arch).__init__).parameters
    theirs = {name: plain(p.default) for name, p in arguments.items() if name != "self"}
    ours = {key: value for key, value in arch.to_published().items() if key != "_class_name"}
    assert ours == theirs | arch.derived()
    assert all(theirs[name] is None for name in arch.derived())


@pytest.mark.parametrize("config", [LTXVideoArchConfig, LTX2ArchConfig])
def test_compression_is_written(config: type[VAEArchConfig]) -> None:
    """Not stated, null, as it is, or another: what another code states of itself is kept."""
    arch = config()
    stated = {"spatial_compression_ratio": 32, "temporal_compression_ratio": 8}
    assert arch.to_published().items() >= stated.items()
    for published in ({}, stated, dict.fromkeys(stated)):
        assert config.from_published(published) == arch
    other = config.from_published({"spatial_compression_ratio": 64})
    assert other.to_published()["spatial_compression_ratio"] == 64
    assert config.from_published(other.to_published()) == other


def test_wan_2_2_has_the_arguments_of_wan() -> None:
    """Diffusers has one class for both, whose defaults are the older one's."""
    assert Wan22ArchConfig().to_published().keys() == WanArchConfig().to_published().keys()


@pytest.mark.parametrize("arch", ARCHS)
def test_there_and_back(arch: VAEArchConfig) -> None:
    published = through_json(arch.to_published())
    assert type(arch).from_published(published) == arch
    assert through_json(type(arch).from_published(published).to_published()) == published


@pytest.mark.parametrize("arch", [arch for arch in ARCHS if not isinstance(arch, GameCraftArchConfig)])
def test_diffusers_reads_what_is_written(arch: VAEArchConfig) -> None:
    with torch.device("meta"):
        theirs = diffusers_class(arch).from_config(arch.to_published())
    read = type(arch).from_published(through_json(dict(theirs.config)))
    assert read.replace(extra={}) == arch


def test_an_empty_config_is_the_default() -> None:
    assert WanArchConfig.from_published({}) == WanArchConfig()


def test_unknown_keys_are_kept_and_written_back() -> None:
    published = {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": "0.31.0",
        "clip_output": False,
        "x": {"y": [1, 2]},
    }
    arch = AutoencoderKLArchConfig.from_published(published)
    assert arch.extra == {"_diffusers_version": "0.31.0", "clip_output": False, "x": {"y": [1, 2]}}
    assert published.items() <= arch.to_published().items()
    assert AutoencoderKLArchConfig.from_published(arch.to_published()) == arch


def test_another_class_name_is_kept() -> None:
    arch = WanArchConfig.from_published({"_class_name": "LightWanVAE"})
    assert arch.to_published()["_class_name"] == "LightWanVAE"


def test_misspelt_keys_have_right_names_here() -> None:
    arch = WanArchConfig.from_published({"temperal_downsample": [True, True, True]})
    assert arch.temporal_downsample == (True, True, True)
    assert arch.to_published()["temperal_downsample"] == [True, True, True]
    assert "temporal_downsample" not in arch.to_published()


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        (AutoencoderKLArchConfig, "latent_channels", "4"),
        (AutoencoderKLArchConfig, "latent_channels", 4.0),
        (AutoencoderKLArchConfig, "latent_channels", None),
        (AutoencoderKLArchConfig, "latent_channels", True),
        (AutoencoderKLArchConfig, "scaling_factor", "0.18"),
        (AutoencoderKLArchConfig, "scaling_factor", False),
        (AutoencoderKLArchConfig, "block_out_channels", 64),
        (AutoencoderKLArchConfig, "block_out_channels", [64, "128"]),
        (AutoencoderKLArchConfig, "block_out_channels", [64, [128]]),
        (AutoencoderKLArchConfig, "use_quant_conv", 1),
        (AutoencoderKLArchConfig, "latents_mean", [1.0, None, 2.0, 3.0]),
        (WanArchConfig, "temperal_downsample", [0, 1, 1]),
        (WanArchConfig, "decoder_base_dim", "96"),
        (OobleckArchConfig, "downsampling_ratios", {"0": 2}),
        (Wan22ArchConfig, "patch_size", None),
        (LTXVideoArchConfig, "timestep_conditioning", 1),
        (LTX2ArchConfig, "upsample_residual", [0, 1, 1]),
        (HunyuanVideoArchConfig, "temporal_compression_ratio", 4.0),
        (GameCraftArchConfig, "disable_causal_conv", None),
    ],
)
def test_wrong_types_are_refused(config: type[VAEArchConfig], key: str, value: object) -> None:
    with pytest.raises(ConfigError) as refused:
        config.from_published({key: value})
    error = refused.value
    assert error.what == f"`{key}` has a value of the wrong type"
    assert error.where == f"config.json of {config.class_names[0]}"
    assert error.found == repr(value)
    assert error.expected is not None


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        (AutoencoderKLArchConfig, "latent_channels", 0),
        (AutoencoderKLArchConfig, "norm_num_groups", 0),
        (AutoencoderKLArchConfig, "block_out_channels", []),
        (AutoencoderKLArchConfig, "block_out_channels", [64, -64]),
        (WanArchConfig, "base_dim", -8),
        (OobleckArchConfig, "downsampling_ratios", [2, 4, 4, 8, 0]),
    ],
)
def test_sizes_are_positive(config: type[VAEArchConfig], key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"`{key}` must be positive") as refused:
        config.from_published({key: value})
    assert refused.value.where == f"config.json of {config.class_names[0]}"


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        (AutoencoderKLArchConfig, "act_fn", "relu"),
        (AutoencoderKLArchConfig, "down_block_types", ["AttnDownEncoderBlock2D"]),
        (AutoencoderKLArchConfig, "up_block_types", ["UpDecoderBlock2D"] * 2),
        (WanArchConfig, "is_residual", True),
        (WanArchConfig, "patch_size", 2),
        (WanArchConfig, "attn_scales", [0.25]),
        (WanArchConfig, "dropout", 0.1),
        (Wan22ArchConfig, "is_residual", False),
        (LTXVideoArchConfig, "encoder_causal", False),
        (LTXVideoArchConfig, "patch_size_t", 2),
        (LTX2ArchConfig, "decoder_inject_noise", [True] * 4),
        (LTX2ArchConfig, "spatio_temporal_scaling", [True, True, True, False]),
        (HunyuanVideoArchConfig, "mid_block_add_attention", False),
    ],
)
def test_what_is_not_built_is_refused(config: type[VAEArchConfig], key: str, value: object) -> None:
    with pytest.raises(ConfigError) as refused:
        config.from_published({key: value})
    error = refused.value
    assert error.what == f"`{key}` has a value that this architecture does not have"
    assert error.where == f"config.json of {config.class_names[0]}"
    assert error.expected == config().constants()[key]
    assert error.found == value
    assert "architecture of its own" in error.fix


def test_contradictions_are_found_when_a_config_is_read() -> None:
    with pytest.raises(ConfigError, match="not a multiple of norm_num_groups"):
        AutoencoderKLArchConfig.from_published({"block_out_channels": [100]})


def test_archs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        WAN.base_dim = 16


def test_missing_keys_without_default_are_named() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Made(VAEArchConfig):
        class_names = ("Made",)

        width: int
        depth: int

    with pytest.raises(ConfigError, match=r"config\.json of Made lacks width, depth"):
        Made.from_published({})
    assert Made.from_published({"width": 1, "depth": 2}).to_published() == {
        "_class_name": "Made",
        "width": 1,
        "depth": 2,
    }


def test_one_half_at_least() -> None:
    with pytest.raises(ConfigError, match="load_encoder and load_decoder are both False"):
        VideoVAEConfig(load_encoder=False, load_decoder=False)


@pytest.mark.parametrize("flag", ["tiling", "use_tiling", "use_temporal_tiling", "use_parallel_tiling"])
def test_audio_is_never_tiled(flag: str) -> None:
    with pytest.raises(ConfigError, match=f"{flag}: audio is never tiled") as refused:
        AudioVAEConfig(**{flag: True})
    assert "stream" in refused.value.fix


def test_buckets() -> None:
    assert [model.config_class for model in CLASSES] == [ImageVAEConfig, *[VideoVAEConfig] * 6, AudioVAEConfig]
    for model in CLASSES:
        for arch in model.variants.values():
            assert model.contract_of(arch).modality == model.config_class.modality
    assert VAEConfig.modality is None


@pytest.mark.parametrize(
    ("rule", "latents", "padded"),
    [
        (AxisRule(name="time", multiple=4, offset=1), [0, 1, 1, 1, 1, 2, 2, 2, 2, 3], [1, 5, 5, 5, 5, 9, 9, 9, 9]),
        (AxisRule(name="height", multiple=3), [0, 0, 0, 1, 1, 1, 2, 2, 2, 3], [3, 3, 3, 6, 6, 6, 9, 9, 9]),
        (AxisRule(name="samples", multiple=1), list(range(10)), list(range(1, 10))),
    ],
)
def test_axis_rule(rule: AxisRule, latents: list[int], padded: list[int]) -> None:
    assert [rule.latents(n) for n in range(10)] == latents
    assert [rule.padded(n) for n in range(1, 10)] == padded
    assert [rule.latents(rule.decoded(k)) for k in range(1, 10)] == list(range(1, 10))


@pytest.mark.parametrize(
    ("rule", "latents", "decoded"),
    [
        (CeilAxisRule(name="height", multiple=3), [0, 1, 1, 1, 2, 2, 2, 3, 3, 3], [3, 6, 9]),
        (CeilAxisRule(name="time", multiple=4), [0, 1, 1, 1, 1, 2, 2, 2, 2, 3], [4, 8, 12]),
    ],
)
def test_a_rule_that_counts_what_is_over(rule: CeilAxisRule, latents: list[int], decoded: list[int]) -> None:
    assert (rule.crops, rule.least) == (True, 1)
    assert [rule.latents(n) for n in range(10)] == latents
    assert [rule.decoded(k) for k in (1, 2, 3)] == decoded
    assert all(rule.decoded(rule.latents(n)) == rule.padded(n) for n in range(1, 10))


def test_the_shortest_input() -> None:
    rules = [
        AxisRule(name="time", multiple=4, offset=1),
        AxisRule(name="samples", multiple=8),
        StrictAxisRule(name="width", multiple=32),
    ]
    assert [rule.least for rule in rules] == [1, 8, 32]
    assert all(rule.latents(rule.least) == 1 and rule.latents(rule.least - 1) == 0 for rule in rules)


def test_contracts_as_plain_data() -> None:
    """Statistics in the checkpoint are null; so is what a decoder does not know."""
    plain_, timed = (LTXVideo.contract_of(arch).to_json() for arch in list(LTXVideo.variants.values())[:2])
    assert [plain_[name] for name in ("shift", "scale", "decode_timestep", "decode_noise_scale")] == [None] * 4
    assert [timed[name] for name in ("shift", "scale")] == [None] * 2
    assert (timed["decode_timestep"], timed["decode_noise_scale"]) == (0.05, 0.025)
    assert json.loads(json.dumps(timed)) == timed
    numbers = LatentContract(modality="image", channels=3, axes=(), latent_channels=4, posterior="gaussian-logvar")
    assert (numbers.shift, numbers.scale, numbers.decode_timestep) == (0.0, 1.0, None)


@pytest.mark.parametrize("latents", ["", "Raw", "normalised", None])
def test_conventions_of_latents(latents: Any) -> None:
    assert VideoVAEConfig().latents == "raw"
    assert VideoVAEConfig(latents="normalized").latents == "normalized"
    with pytest.raises(ConfigError, match="unknown convention of latents") as refused:
        VideoVAEConfig(latents=latents)
    assert (refused.value.expected, refused.value.found) == ('"raw" or "normalized"', repr(latents))


def test_a_strict_rule_counts_as_others_do() -> None:
    """It tells what is refused, and nothing of the latents, so latent files do not know of it."""
    plain, strict = (rule(name="time", multiple=4, offset=1) for rule in (AxisRule, StrictAxisRule))
    assert (plain.crops, strict.crops) == (True, False)
    assert [strict.latents(n) for n in range(10)] == [plain.latents(n) for n in range(10)]
    assert asdict(strict) == asdict(plain)
