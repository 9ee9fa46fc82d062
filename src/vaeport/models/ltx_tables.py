"""The tables that LTX-Video and LTX-2 share: levels of residual blocks with local norms, folded into each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from vaeport.configs import AxisRule, LatentContract, StrictAxisRule
from vaeport.errors import ConfigError
from vaeport.layers import (
    Add,
    Chain,
    ChannelLayerNorm,
    Conditioned,
    Conv,
    DropFrames,
    GroupMean,
    Identity,
    Layer,
    Modulation,
    Pad,
    PixelNorm,
    SharedLogvar,
    Shuffle,
    SiLU,
    SpatialNoise,
    TileChannels,
    TimestepEmbedding,
    TimestepScale,
    Unshuffle,
)

Factors = tuple[int, int, int]
FACTORS: dict[str, Factors] = {
    "spatial": (1, 2, 2),
    "temporal": (2, 1, 1),
    "spatiotemporal": (2, 2, 2),
    "conv": (2, 2, 2),
}
"""kind of way between two levels -> its factors of time, height, width"""
Convolution = Callable[..., Layer]
"""channels, out_channels, and stride=1 -> layer with a kernel of 3 x 3 x 3"""


@dataclass(frozen=True)
class Down:
    """Residual blocks of one width, then the way to the next level: folded into channels, or strided and widened."""

    width: int
    blocks: int
    way: Factors | None
    folded: bool = True


@dataclass(frozen=True)
class Up:
    """The way to a level, which divides channels by `reduction`, then residual blocks of one width."""

    width: int
    blocks: int
    way: Factors | None = None
    reduction: int = 1
    residual: bool = False
    noise: bool = False


def convolution(causal: bool, edge: Literal["constant", "reflect"] = "constant") -> Convolution:
    """In time it sees frame 0, repeated, then the past; or as much of the future, behind which the last is repeated."""
    time, sides = ((2, 0) if causal else (1, 1)), ((1, 1), (1, 1))

    def conv(channels: int, out_channels: int, stride: int = 1) -> Layer:
        zeros = edge == "constant"
        return Chain(
            time=Pad("replicate", (time, (0, 0), (0, 0))),
            space=None if zeros else Pad(edge, ((0, 0), *sides)),
            conv=Conv(
                channels, out_channels, (3, 3, 3), stride=stride, pad=((0, 0), *(sides if zeros else ((0, 0), (0, 0))))
            ),
        )

    return conv


def block(
    conv: Convolution, channels: int, out_channels: int, *, eps: float = 1e-6, timed: bool = False, noise: bool = False
) -> Add:
    """Residual block with norms without weights; timed: each norm is modulated by its stage's embedding."""
    return Add(
        main=Chain(
            norm1=PixelNorm(),
            modulate1=Modulation(channels, 0, 2) if timed else None,
            act1=SiLU(),
            conv1=conv(channels, out_channels),
            noise1=SpatialNoise(out_channels) if noise else None,
            norm2=PixelNorm(),
            modulate2=Modulation(channels, 1, 2) if timed else None,
            act2=SiLU(),
            conv2=conv(out_channels, out_channels),
            noise2=SpatialNoise(out_channels) if noise else None,
        ),
        shortcut=Identity()
        if channels == out_channels
        else Chain(norm=ChannelLayerNorm(channels, eps), conv=Conv(channels, out_channels, (1, 1, 1))),
    )


def downsample(conv: Convolution, channels: int, out_channels: int, way: Factors) -> Chain:
    """Folds t x h x w positions into channels, beside the mean of the folded input; frame 0 counts twice."""
    return Chain(
        past=Pad("replicate", ((1, 0), (0, 0), (0, 0))) if way[0] == 2 else None,
        sum=Add(
            main=Chain(conv=conv(channels, out_channels // prod(way)), fold=Unshuffle(way)),
            shortcut=Chain(fold=Unshuffle(way), mean=GroupMean(out_channels)),
        ),
    )


def upsample(conv: Convolution, level: Up) -> Chain:
    """Unfolds channels into t x h x w positions, beside the unfolded input where residual; frame 0 is dropped."""
    assert level.way is not None
    size, way = prod(level.way), level.way
    main = Chain(conv=conv(level.width * level.reduction, level.width * size), unfold=Shuffle(way))
    shortcut = Chain(unfold=Shuffle(way), tile=TileChannels(size // level.reduction))
    return Chain(
        sum=Add(main, shortcut) if level.residual else main,
        drop=DropFrames(1) if way[0] == 2 else None,
    )


def encoder(conv: Convolution, arch: Any, *, first: int, eps: float = 1e-6) -> Chain:
    """[B, 3, T, H, W] -> moments [B, 2Z, 1 + (T - 1) / 8, H/32, W/32]; `first` is the first convolution's width."""

    def way(here: Down, there: Down) -> dict[str, Layer | None]:
        if here.way is None:
            return {}
        if here.folded:
            return {"down": downsample(conv, here.width, there.width, here.way)}
        widened = block(conv, here.width, there.width, eps=eps) if here.width != there.width else None
        return {"down": conv(here.width, here.width, stride=2), "widen": widened}

    def blocks(level: Down) -> Chain:
        return Chain(*(block(conv, level.width, level.width) for _ in range(level.blocks)))

    *levels, middle = arch.downs
    patch, latent = arch.patch_size, arch.latent_channels
    return Chain(
        patch=Unshuffle((1, patch, patch), width_first=True),
        conv_in=conv(arch.in_channels * patch * patch, first),
        levels=Chain(*(Chain(blocks=blocks(a), **way(a, b)) for a, b in zip(levels, arch.downs[1:], strict=True))),
        middle=Chain(blocks=blocks(middle)),
        norm_out=PixelNorm(),
        act_out=SiLU(),
        conv_out=conv(middle.width, latent + 1),
        moments=SharedLogvar(latent),
    )


def decoder(conv: Convolution, arch: Any, *, eps: float = 1e-6) -> Chain:
    """[B, Z, n, h, w] -> [B, 3, 1 + 8 (n - 1), 32h, 32w]; with timestep_conditioning it must be bound to one."""
    timed = arch.timestep_conditioning

    def stage(level: Up, before: int | None) -> Chain:
        parts: dict[str, Layer | None] = {}
        if before is not None and before != level.width * level.reduction:
            parts["narrow"] = block(conv, before, level.width, eps=eps, noise=level.noise)
        if level.way is not None:
            parts["up"] = upsample(conv, level)
        options = {"timed": timed, "noise": level.noise}
        parts["blocks"] = Chain(*(block(conv, level.width, level.width, **options) for _ in range(level.blocks)))
        return Conditioned(TimestepEmbedding(4 * level.width), **parts) if timed else Chain(**parts)

    middle, *levels = arch.ups
    last, patch = arch.ups[-1].width, arch.patch_size
    end: dict[str, Layer | None] = {"norm": PixelNorm(), "modulate": Modulation(last) if timed else None, "act": SiLU()}
    parts = {
        "conv_in": conv(arch.latent_channels, middle.width),
        "middle": stage(middle, None),
        "levels": Chain(*(stage(level, before.width) for before, level in zip(arch.ups[:-1], levels, strict=True))),
        "out": Conditioned(TimestepEmbedding(2 * last), **end) if timed else Chain(**end),
        "conv_out": conv(last, arch.out_channels * patch * patch),
        "patch": Shuffle((1, patch, patch), width_first=True),
    }
    return TimestepScale(**parts) if timed else Chain(**parts)


def levels_up(arch: Any, ways: Sequence[Factors | None]) -> tuple[Up, ...]:
    """The decoder's levels in the order in which they run, the middle first; `ways` lead to the others."""
    widths, factors = arch.decoder_block_out_channels[::-1], arch.upsample_factor[::-1]
    noise, blocks = arch.decoder_inject_noise[::-1], arch.decoder_layers_per_block[::-1]
    rows = zip(widths, blocks[1:], ways, factors, arch.upsample_residual[::-1], noise[1:], strict=True)
    others = (Up(width // f, n, way, f, residual, noisy) for width, n, way, f, residual, noisy in rows)
    return (Up(widths[0], blocks[0], noise=noise[0]), *others)


def require_lengths(arch: Any, lengths: dict[str, int]) -> None:
    """ConfigError unless the lists have these lengths, and the decoder gives what the encoder takes."""
    for name, wanted in lengths.items():
        if len(getattr(arch, name)) != wanted:
            raise ConfigError(f"{name} has the wrong length", expected=wanted, found=getattr(arch, name))
    down, up = (rate(stages) for stages in (arch.downs, arch.ups))
    if down != up:
        raise ConfigError("the decoder's ways do not lead back to the input's size", expected=down, found=up)
    if arch.in_channels != arch.out_channels:
        raise ConfigError("in_channels and out_channels differ", expected=arch.in_channels, found=arch.out_channels)


def rate(stages: Sequence[Down] | Sequence[Up]) -> Factors:
    """The product of all ways."""
    t, h, w = (prod(s.way[i] for s in stages if s.way) for i in range(3))
    return t, h, w


def compression(arch: Any) -> dict[str, Any]:
    """Pixels and frames per latent. Diffusers' classes guess wrong for folded ways where a config does not say it."""
    time, height, _ = rate(arch.downs)
    return {"spatial_compression_ratio": height * arch.patch_size, "temporal_compression_ratio": time}


def contract(arch: Any) -> LatentContract:
    """Raw output; latents are normalised per channel with statistics in the checkpoint."""
    time, height, width = rate(arch.downs)
    # only strided ways take other lengths: folding fails on them
    rule = StrictAxisRule if any(level.folded for level in arch.downs) else AxisRule
    return LatentContract(
        modality="video",
        channels=arch.in_channels,
        axes=(
            rule(name="time", multiple=time, offset=1),
            StrictAxisRule(name="height", multiple=height * arch.patch_size),
            StrictAxisRule(name="width", multiple=width * arch.patch_size),
        ),
        latent_channels=arch.latent_channels,
        posterior="gaussian-logvar",
        shift=None,
        scale=None,
        decode_timestep=0.05 if arch.timestep_conditioning else None,
        decode_noise_scale=0.025 if arch.timestep_conditioning else None,
    )
