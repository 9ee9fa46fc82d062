"""What a tiled VAE is: the same VAE but for two halves; which tilings there are; what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.layers.laws import STREAMED, difference, normal
from tests.narrow import both, media, native, saved
from vaeport.configs import AxisRule, ImageVAEConfig, VAEConfig, VideoVAEConfig
from vaeport.errors import ConfigError, InputError
from vaeport.models.autoencoder_kl import AutoencoderKL, AutoencoderKLArchConfig
from vaeport.models.gamecraft import GameCraft, GameCraftArchConfig
from vaeport.models.hunyuan_video import HunyuanVideo
from vaeport.models.wan import Wan
from vaeport.registry import ModelRegistry
from vaeport.runtime.load import load
from vaeport.runtime.tiling import (
    Axes,
    Axis,
    Ramps,
    TiledHalf,
    Trapezoids,
    run_tiled,
    tiled,
    tiling_names,
    tiling_policy,
)
from vaeport.runtime.tiling.published import PUBLISHED
from vaeport.vae import VAE

SMALL = Axes.square(Axis(tile=32, stride=16))
RAMPS = Ramps(source="here", encode=SMALL, decode=SMALL)
VIDEO = (1, 3, 5, 40, 48)


def test_a_tiled_vae_is_the_same_vae() -> None:
    whole = native("wan")
    ours = tiled(whole, RAMPS)
    assert (type(ours), ours.contract, ours.arch, ours.dtype) == (Wan, whole.contract, whole.arch, whole.dtype)
    assert list(ours.state_dict()) == list(whole.state_dict())
    theirs = {key: value.data_ptr() for key, value in whole.state_dict().items()}
    assert {key: value.data_ptr() for key, value in ours.state_dict().items()} == theirs, "weights are shared"
    assert ours.weights_hash() == whole.weights_hash()
    assert ModelRegistry.find_class(type(ours)).name == "wan"
    x = media("wan", VIDEO)
    assert difference(ours.encode(x).latent_dist.mode(), whole.encode(x).latent_dist.mode()) > 1e-3
    assert not isinstance(whole.encoder, TiledHalf), "the VAE that it came from is as it was"
    assert whole.decode_pieces == (1, 1)


def test_a_tiled_vae_moves_and_is_saved(tmp_path: Path) -> None:
    ours = tiled(load(saved("wan", tmp_path / "vae")), RAMPS)
    x, z = media("wan", VIDEO).float(), normal(1, 4, 2, 5, 6).float()
    before = ours.decode(z).sample
    ours.save(tmp_path / "again")
    again = tiled(load(tmp_path / "again"), RAMPS)
    assert torch.equal(again.decode(z).sample, before)
    assert ours.double().encode(x.double()).latent_dist.mean.dtype == torch.float64
    assert difference(ours.decode(z.double()).sample, before.double()) < 1e-5


def test_a_half_may_be_missing() -> None:
    ours = tiled(Wan(native("wan").arch, VideoVAEConfig(load_encoder=False)).double(), RAMPS)
    assert ours.encoder is None
    assert ours.decode(normal(1, 4, 1, 5, 5)).sample.shape == (1, 3, 1, 40, 40)
    with pytest.raises(InputError, match="loaded without its encoder"):
        ours.encode(media("wan", VIDEO))


def test_streams_are_collected() -> None:
    """Pieces along time give what the whole gives, in one."""
    ours, x = tiled(native("wan"), RAMPS), media("wan", VIDEO)
    (posterior,) = ours.stream_encode(x.split((1, 3, 1), 2))
    assert torch.equal(posterior.parameters, ours.encode(x).latent_dist.parameters)
    z = posterior.mode()
    (video,) = ours.stream_decode(z.split(1, 2))
    assert torch.equal(video, ours.decode(z).sample)


def test_gradients_pass_every_tile() -> None:
    for policy in (RAMPS, Trapezoids(source="here", encode=SMALL, decode=SMALL)):
        ours, x = tiled(native("kl"), policy), media("kl", (1, 3, 40, 24)).requires_grad_()
        ours.decode(ours.encode(x).latent_dist.mode()).sample.sum().backward()
        assert x.grad.abs().amax((0, 1)).min() > 0


@pytest.mark.parametrize("policy", [RAMPS, Trapezoids(source="here", encode=SMALL, decode=SMALL)])
def test_local_halves_do_not_notice(policy: Ramps) -> None:
    """Where every output depends on its own input alone, tiles are the whole."""
    rules = tuple(AxisRule(name=name, multiple=1) for name in ("height", "width"))
    x = normal(2, 3, 70, 81)
    found = run_tiled(torch.sin, x, policy, rules, "decode")
    assert difference(found, x.sin()) <= STREAMED


@pytest.mark.parametrize("overlap", [1, 3, 8, 12])
def test_local_halves_with_a_first_frame_do_not_notice(overlap: int) -> None:
    """Frames that are repeated, but the first: the case of every first-frame rule that aligns."""
    rules = (AxisRule(name="time", multiple=2, offset=1), *(AxisRule(name=n, multiple=1) for n in ("height", "width")))
    axes = Axes(time=Axis(tile=32, stride=32 - 2 * overlap))

    def repeated(z: torch.Tensor) -> torch.Tensor:
        return z.repeat_interleave(2, 2)[:, :, 1:]

    z = normal(1, 2, 45, 3, 3)
    for policy in (Ramps, Trapezoids):
        found = run_tiled(repeated, z, policy(source="here", encode=axes, decode=axes), rules, "decode")
        assert difference(found, repeated(z)) <= STREAMED


def test_names() -> None:
    """Every model that can be tiled, and what its tilings are called."""
    halves = ["{}", "{}-spatial", "{}-framewise"]
    wide = [half.format(name) for name in ("official", "diffusers") for half in halves]
    expected = {
        "autoencoder_kl": ["diffusers"],
        "wan": ["diffusers"],
        "wan2_2": ["diffusers"],
        "hunyuan_video": wide,
        "gamecraft": wide[:3],
        "ltx_video": wide[3:],
        "ltx2": wide,
        "magvit": [],
        "oobleck": [],
    }
    found = {r.name: list(tiling_names(r.name, r.model.arch_class())) for r in ModelRegistry.registrations()}
    assert found == expected
    assert PUBLISHED.keys() <= found.keys()


def test_published_numbers() -> None:
    """Tile and overlap in media, and the policies' other facts."""

    def said(model: str, tiling: str) -> tuple[object, ...]:
        policy = tiling_policy(model, ModelRegistry.find(model).model.arch_class(), tiling)
        time, space = policy.decode.time, policy.decode.height
        assert policy.decode.width == space
        return tuple(axis and (axis.tile, axis.tile - axis.stride) for axis in (time, space))

    assert said("hunyuan_video", "official") == said("gamecraft", "official") == ((64, 16), (256, 64))
    assert said("hunyuan_video", "diffusers") == ((16, 4), (256, 64))
    assert said("hunyuan_video", "diffusers-framewise") == ((16, 4), None)
    assert said("hunyuan_video", "diffusers-spatial") == (None, (256, 64))
    assert said("ltx_video", "diffusers") == said("ltx2", "diffusers") == ((16, 8), (512, 64))
    assert said("ltx2", "official") == ((80, 24), (768, 64))
    assert said("wan", "diffusers") == said("wan2_2", "diffusers") == (None, (256, 64))


def test_the_numbers_are_those_of_diffusers() -> None:
    """What a class has when it is made, for all that its attributes tell."""
    for name, model in (("wan", "wan"), ("hunyuan_video", "hunyuan_video"), ("ltx", "ltx_video"), ("ltx2", "ltx2")):
        ours, theirs = both(name, torch.float64)
        policy = tiling_policy(model, ours.arch, "diffusers")
        for axis, word in (("time", "num_frames"), ("height", "height"), ("width", "width")):
            cut = getattr(policy.decode, axis)
            if cut is not None:
                assert cut.tile == getattr(theirs, f"tile_sample_min_{word}")
                assert cut.stride == getattr(theirs, f"tile_sample_stride_{word}")
    assert theirs.use_tiling is False


@pytest.mark.parametrize("size", [32, 256, 512, 1024, (512, 512)])
def test_sample_size_is_the_tile(size: int | tuple[int, int]) -> None:
    policy = tiling_policy("autoencoder_kl", AutoencoderKLArchConfig(sample_size=size), "diffusers")
    tile = size if isinstance(size, int) else size[0]
    assert policy.encode.height == policy.decode.width == Axis(tile=tile, stride=tile * 3 // 4)


def test_a_config_names_its_tiling() -> None:
    vae = native("hunyuan_video")
    asked = type(vae)(vae.arch, VideoVAEConfig(tiling="diffusers-framewise"))
    assert not isinstance(asked.encoder, TiledHalf)
    ours = tiled(asked)
    assert ours.config.tiling == "diffusers-framewise"
    assert ours.encoder.policy == tiling_policy("hunyuan_video", vae.arch, "diffusers-framewise")


def test_flags_ask_for_nothing_approximate() -> None:
    vae = native("wan")
    asked = type(vae)(vae.arch, VideoVAEConfig(use_tiling=True))
    refused(ConfigError, "by name|ParallelTiledVAE|one of diffusers", tiled, asked)


def refused(error: type[Exception], words: str, call: object, *args: object, **options: object) -> None:
    with pytest.raises(error) as caught:
        call(*args, **options)  # type: ignore[operator]
    for word in words.split("|"):
        assert word in str(caught.value), caught.value


def test_what_is_refused() -> None:
    refused(ConfigError, "wan has no such tiling|one of diffusers|`official`", tiled, native("wan"), "official")
    names = "one of official, official-spatial, official-framewise, diffusers"
    refused(ConfigError, names, tiled, native("hunyuan_video"), "fast")
    refused(ConfigError, "audio is never tiled|stream_decode", tiled, native("oobleck"), "official")
    refused(ConfigError, "no published code tiles magvit", tiling_policy, "magvit", None, "diffusers")
    refused(ConfigError, "which tiling?|one of diffusers", tiled, native("wan"))
    ours = tiled(native("wan"), "diffusers")
    refused(ConfigError, "tiled already|diffusers", tiled, ours, "diffusers")
    refused(ConfigError, "leave nothing out", Axis, tile=8, stride=9)
    refused(ConfigError, "leave nothing out", Axis, tile=8, stride=0)
    odd = Axes.square(Axis(tile=20, stride=16))
    odd_tiles = tiled(native("wan"), replace(RAMPS, encode=odd))
    refused(ConfigError, "whole numbers of latents|multiples of 8|20 and 16", odd_tiles.encode, media("wan", VIDEO))


def test_a_last_tile_that_gives_no_latent_is_refused() -> None:
    """68 is 8 latents and a half, and the tile that begins at 64 holds the half alone."""
    ours = tiled(native("kl"), RAMPS)
    with pytest.raises(InputError, match="last tile is too short") as caught:
        ours.encode(media("kl", (1, 3, 68, 40)))
    assert (caught.value.where, caught.value.found) == ("axis height", 68)
    assert caught.value.fix == "crop it to 64, or extend it to 72"
    assert ours.encode(media("kl", (1, 3, 60, 40))).latent_dist.mean.shape[2] == 7


def test_a_tile_that_cannot_be_mirrored_is_refused() -> None:
    """Where the decoder mirrors the picture at its edges, a last tile of one latent is too few; Diffusers fails too."""
    axes = Axes.square(Axis(tile=96, stride=64))
    ours = tiled(native("ltx2"), replace(RAMPS, encode=axes, decode=axes))
    refused(InputError, "too short to be mirrored", ours.decode, normal(1, 4, 1, 2, 5))
    assert ours.decode(normal(1, 4, 1, 2, 4)).sample.shape[-1] == 128


def test_a_model_without_a_first_frame_is_not_tiled_in_time() -> None:
    arch = GameCraftArchConfig(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=2, disable_causal_conv=True
    )
    ours = tiled(GameCraft(arch).requires_grad_(False), "official")
    refused(ConfigError, "first frame stands alone", ours.encode, torch.zeros(1, 3, 68, 8, 8))
    assert ours.encode(torch.zeros(1, 3, 8, 8, 8)).latent_dist.mean.shape[2] == 2


@pytest.mark.parametrize("config", [ImageVAEConfig, VideoVAEConfig, VAEConfig])
def test_flags_that_contradict_each_other(config: type[VAEConfig]) -> None:
    refused(ConfigError, "no effect without use_tiling|set both", config, use_temporal_tiling=True)
    refused(ConfigError, "names the axes by itself", config, tiling="official", use_tiling=True)


def test_load(tmp_path: Path) -> None:
    folder = saved("autoencoder_kl", tmp_path / "vae")
    ours, whole = load(folder, tiling="diffusers"), load(folder)
    assert isinstance(ours, AutoencoderKL)
    assert (ours.config.tiling, whole.config.tiling) == ("diffusers", None)
    size = whole.arch.sample_size
    x = normal(1, 3, size, size + 8).float().tanh()
    a, b = (vae.encode(x).latent_dist.mean for vae in (ours, whole))
    assert difference(a, b) > 1e-3
    assert torch.equal(ours.encode(x[..., :size]).latent_dist.mean, whole.encode(x[..., :size]).latent_dist.mean)
    refused(ConfigError, "no such tiling", load, folder, tiling="official")
    refused(ConfigError, "audio is never tiled", load, saved("oobleck", tmp_path / "audio"), tiling="official")


def test_a_refused_tiling_reads_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved("autoencoder_kl", tmp_path / "vae")
    from vaeport.checkpoint import Checkpoint

    monkeypatch.setattr(Checkpoint, "tensor", lambda *_: pytest.fail("a weight was read"))
    refused(ConfigError, "no such tiling", load, folder, tiling="official")


def test_types_without_a_map_are_told_apart() -> None:
    """A class that is not registered has no name to look a tiling up by, and takes a policy."""

    class Own(HunyuanVideo):
        pass

    own: VAE = Own(native("hunyuan_video").arch)
    with pytest.raises(ConfigError, match="Own"):
        tiled(own, "official")
    assert isinstance(tiled(own, RAMPS).encoder, TiledHalf)
