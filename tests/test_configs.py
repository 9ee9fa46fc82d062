"""Arch configs against Diffusers' defaults, there and back; run configs; the axis rules."""

from __future__ import annotations

import dataclasses
import inspect
import json
from dataclasses import asdict
from typing import Any

import pytest
import torch

from tests.narrow import KL, OOBLECK, WAN, diffusers_class
from vaeport.configs import (
    AudioVAEConfig,
    AxisRule,
    ImageVAEConfig,
    StrictAxisRule,
    VAEArchConfig,
    VAEConfig,
    VideoVAEConfig,
)
from vaeport.errors import ConfigError
from vaeport.models.autoencoder_kl import AutoencoderKL, AutoencoderKLArchConfig
from vaeport.models.oobleck import Oobleck, OobleckArchConfig
from vaeport.models.wan import Wan, WanArchConfig

ARCHS: list[VAEArchConfig] = [
    *(model.arch_class() for model in (AutoencoderKL, Wan, Oobleck)),
    *(arch for model in (AutoencoderKL, Wan, Oobleck) for arch in model.variants.values()),
    *(KL, WAN, OOBLECK),
]


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def through_json(published: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(published))


@pytest.mark.parametrize("config", [AutoencoderKLArchConfig, WanArchConfig, OobleckArchConfig])
def test_defaults_are_those_of_diffusers(config: type[VAEArchConfig]) -> None:
    """Every argument of the published class, no other, with the value that it has when a config.json lacks it."""
    arch = config()
    arguments = inspect.signature(diffusers_class(arch).__init__).parameters
    theirs = {name: plain(p.default) for name, p in arguments.items() if name != "self"}
    ours = {key: value for key, value in arch.to_published().items() if key != "_class_name"}
    assert ours == theirs


@pytest.mark.parametrize("arch", ARCHS)
def test_there_and_back(arch: VAEArchConfig) -> None:
    published = through_json(arch.to_published())
    assert type(arch).from_published(published) == arch
    assert through_json(type(arch).from_published(published).to_published()) == published


@pytest.mark.parametrize("arch", ARCHS)
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


@pytest.mark.parametrize("flag", ["use_tiling", "use_temporal_tiling", "use_parallel_tiling"])
def test_tiling_is_refused(flag: str) -> None:
    for config in (ImageVAEConfig, VideoVAEConfig):
        with pytest.raises(ConfigError, match=f"{flag}: no tiling executor exists yet"):
            config(**{flag: True})
    with pytest.raises(ConfigError, match=f"{flag}: audio is never tiled") as refused:
        AudioVAEConfig(**{flag: True})
    assert "stream" in refused.value.fix


def test_buckets() -> None:
    assert [model.config_class for model in (AutoencoderKL, Wan, Oobleck)] == [
        ImageVAEConfig,
        VideoVAEConfig,
        AudioVAEConfig,
    ]
    for model in (AutoencoderKL, Wan, Oobleck):
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


def test_a_strict_rule_counts_as_others_do() -> None:
    """It tells what is refused, and nothing of the latents, so latent files do not know of it."""
    plain, strict = (rule(name="time", multiple=4, offset=1) for rule in (AxisRule, StrictAxisRule))
    assert (plain.crops, strict.crops) == (True, False)
    assert [strict.latents(n) for n in range(10)] == [plain.latents(n) for n in range(10)]
    assert asdict(strict) == asdict(plain)
